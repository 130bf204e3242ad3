"""`hearth.testing.invoke` gives what a real gateway gives: the same cases, compared field by field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Gateway, handler

from hearth.response import Response
from hearth.testing import invoke
from hearth.values import encode
from tests.support import handler_cases
from tests.support.handler_cases import CASES, Case

pytestmark = pytest.mark.engine

OF_THE_CONNECTION = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}
"""Fields of the server. A stream that is over at once has a length, or has none."""
DIFFERENT_EACH_TIME = {"server-timing", "x-hearth-start", "x-invocation-id"}
ID = re.compile(rb"[0-9a-f]{32}")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    code = Path(handler_cases.__file__).read_text()
    with Gateway(tmp_path_factory.mktemp("cases"), {"handle": handler(code)}) as running:
        yield running


def asked(gateway: Gateway, case: Case) -> tuple[Response, bool]:
    """A real gateway's answer to a case, and whether it is complete."""
    body, headers = encode(case.event, {**case.headers, "x-case": case.handler})
    target = "/invoke/handle" + (f"?{case.query}" if case.query else "")
    pieces, complete = b"", True
    with gateway.http.stream(case.method, target, content=body, headers=headers) as answer:
        try:
            for piece in answer.iter_raw():
                pieces += piece
        except httpx.RemoteProtocolError:
            complete = False
    return Response(answer.status_code, answer.headers, pieces), complete


def shown(response: Response, log: str, complete: bool) -> dict[str, Any]:
    """What of an answer must be equal."""
    fields = [(name.lower(), value) for name, value in response.headers.multi_items()]
    return {
        "status": response.status,
        "headers": sorted(f for f in fields if f[0] not in OF_THE_CONNECTION | DIFFERENT_EACH_TIME),
        "has": {name for name, _ in fields} & DIFFERENT_EACH_TIME,
        "body": ID.sub(b"ID", response.body),
        "complete": complete,
        "problem": None if response.problem is None else (response.problem.slug, response.problem.blame),
        "log": re.sub(r'File ".*?", line \d+', "File", log),
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_handler_gets_and_gives_the_same(gateway: Gateway, case: Case) -> None:
    here = invoke(
        handler_cases.handle,
        case.event,
        headers={**case.headers, "x-case": case.handler},
        method=case.method,
        query=case.query,
    )
    there, complete = asked(gateway, case)
    logs = gateway.http.get(f"/invocations/{there.invocation_id}/logs")
    log = logs.text if logs.status_code == 200 else ""  # a call that never reached its function has none
    if "content-length" in here.headers:
        assert here.headers["content-length"] == there.headers["content-length"]
    assert shown(here, here.log, here.complete) == shown(there, log, complete)
