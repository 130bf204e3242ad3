"""Requests made from the OpenAPI document, sensible and not: every answer is one that the document names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from harness import Gateway, command, handler, server
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.engine

ECHO = "def handle(event, context):\n    return event\n"
PICKY = "def handle(event, context):\n    return 1 / event['divisor']\n"
ECHO_SERVER = (Path(__file__).parents[1] / "integration" / "apps" / "echo_server.py").read_text()
CHECKED = {
    "input": {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "more": {"$ref": "#"}},
        "required": ["n"],
        "additionalProperties": False,
    },
    "check": True,
}
CONFORMS: list[CheckFunction] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 12
"""For each operation of the document."""
OF_CALLS = 5 * EXAMPLES
"""For calls of functions: of each function some, and some of these directly, whatever chance brings."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "echo": handler(ECHO),
        "picky": handler(PICKY),
        "checked": {**handler(ECHO), "schema": CHECKED},
        "count": command("wc", "-c", max_instances=2),
        "site": server(ECHO_SERVER, concurrency=4),
        "no-image": {"image": "nobody/not-there:latest", "command": ["true"]},
    }
    sections = {"workflows": {"twice": ["echo", "echo"]}}
    folder = tmp_path_factory.mktemp("openapi")
    with Gateway(folder, functions, prewarm={"python": 1}, sections=sections) as running:
        for name in ("echo", "picky", "site"):
            running.call(name, {})
        yield running


def test_every_answer_is_one_that_the_document_names(gateway: Gateway) -> None:
    """And none is a fault of the gateway (its log is looked at when it ends)."""
    document = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) >= 19
    seen: set[int] = set()
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not can_be_wrong(operation):
                continue
            tried: list[int] = []
            examples = OF_CALLS if operation.label == "POST /invoke/{function}" else EXAMPLES
            call_many(operation.as_strategy(generation_mode=mode), tried, examples)
            assert tried, operation.label
            seen.update(tried)
    assert {200, 404} <= seen and seen & {500, 502}, "little was tried"  # which function is called is chance


def can_be_wrong(operation: Any) -> bool:
    """Whether the document leaves room for a wrong request: any text is right where plain text is wanted."""
    parameters = operation.definition.raw.get("parameters", [])
    return any(
        set(parameter["schema"]) & {"enum", "minimum", "maximum", "pattern"} for parameter in parameters
    )


def call_many(cases: Any, tried: list[int], examples: int) -> None:
    """Make these requests, and hold each answer against the document."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def call_one(case: Any) -> None:
        if isinstance(case.query, dict):
            case.query.pop("follow", None)  # such an answer has no end
        response = case.call(timeout=30)
        tried.append(response.status_code)
        case.validate_response(response, checks=CONFORMS)
        assert b"internal-error" not in response.content

    call_one()
