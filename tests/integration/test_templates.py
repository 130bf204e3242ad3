"""The templates of `hearth new` on a real gateway: each is served, and called in its own way."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner
from harness import Gateway, eventually

from gateway.cli import main
from gateway.cli.scaffold.templates import TEMPLATES
from pool.engine.docker import DockerEngine
from pool.observe.metrics import Metrics
from tests.conftest import TEST_LABEL, pack

pytestmark = pytest.mark.engine

PUSH = b'{"ref":"refs/heads/main","commits":[{"id":"a1"}]}'


def write_all(folder: Path) -> dict[str, Any]:
    """Write every template into a folder of its own, and return all that they declare."""
    together: dict[str, Any] = {"version": 1, "prewarm": {"python": 1}}
    for template in TEMPLATES:
        made = folder / template
        name = f"my-{template}"
        result = CliRunner().invoke(main, ["new", name, "--template", template, "--folder", str(made)])
        assert result.exit_code == 0, result.output
        declared = yaml.safe_load((made / "functions.yaml").read_text())
        for function in declared["functions"].values():
            if "source" in function:
                function["source"] = str(made / function["source"])
        for trigger in declared.get("triggers", {}).values():
            if "webhook" in trigger:
                trigger["webhook"]["secret_file"] = str(made / trigger["webhook"]["secret_file"])
        for section in ("functions", "workflows", "triggers"):
            together.setdefault(section, {}).update(declared.get(section, {}))
    return together


async def build(folder: Path, tag: str, label: dict[str, str]) -> None:
    engine = DockerEngine(None, Metrics())
    try:
        await engine.build(pack({file.name: file.read_bytes() for file in folder.iterdir()}), tag, label)
    finally:
        await engine.close()


async def remove(label: dict[str, str]) -> None:
    engine = DockerEngine(None, Metrics())
    try:
        for image in await engine.images(label):
            await engine.remove_image(image.id)
    finally:
        await engine.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("templates")
    label = {TEST_LABEL: uuid.uuid4().hex}
    running = Gateway(folder, {})
    declared = write_all(folder)
    tag = f"hearth-test/template:{label[TEST_LABEL]}"
    declared["functions"]["my-http-image"]["image"] = tag
    asyncio.run(build(folder / "http-image/functions/my-http-image", tag, label))
    running.write("functions.yaml", json.dumps(declared))
    try:
        with running:
            yield running
    finally:
        asyncio.run(remove(label))


def answer_of(gateway: Gateway, id: str) -> Any:
    """The answer of an accepted call, once it has ended well."""
    ended = eventually(
        lambda: (
            (r := gateway.http.get(f"/invocations/{id}").json())["status"] in ("succeeded", "failed") and r
        ),
        30,
    )
    assert ended["status"] == "succeeded", ended
    return gateway.http.get(f"/invocations/{id}/result").json()


def test_python(gateway: Gateway) -> None:
    answer = gateway.call("my-python", {"name": "Ada"})
    assert answer.json() == {"message": "Hello, Ada!"}
    assert gateway.logs(answer) == "greeting Ada\n"


def test_async(gateway: Gateway) -> None:
    assert gateway.call("my-async", {"delays": [0.1, 0.1]}).json()["results"] == [0.1, 0.1]


def test_command(gateway: Gateway) -> None:
    answer = gateway.call("my-command", content=b"one two three")
    assert (answer.text.strip(), answer.headers["content-type"]) == ("3", "text/plain")


def test_http_image(gateway: Gateway) -> None:
    assert gateway.http.get("/invoke/my-http-image/notes").text == "my-http-image was asked for /notes\n"


def test_workflow(gateway: Gateway) -> None:
    given = {"title": "Words", "texts": ["one two", " ", "three"]}
    answer = gateway.http.post("/workflows/my-workflow", json=given, headers={"Prefer": "wait=60"})
    assert answer.json() == {"title": "Words", "texts": 2, "words": 3}


def test_schedule(gateway: Gateway) -> None:
    fired = gateway.http.post("/triggers/my-schedule/fire").json()
    assert answer_of(gateway, fired["id"])["report"] == "sales"


def test_webhook(gateway: Gateway) -> None:
    secret = (gateway.folder / "webhook/github.secret").read_bytes().strip()

    def push(key: bytes) -> httpx.Response:
        signed = hmac.new(key, PUSH, hashlib.sha256).hexdigest()
        headers = {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": "1",
            "X-Hub-Signature-256": f"sha256={signed}",
        }
        return gateway.http.post("/hooks/my-webhook", content=PUSH, headers=headers)

    assert push(b"another").status_code == 401
    [started] = push(secret).json()["started"]
    assert answer_of(gateway, started["id"]) == {"branch": "main", "commits": ["a1"]}
