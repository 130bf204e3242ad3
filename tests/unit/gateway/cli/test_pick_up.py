"""`hearth init` beside a running gateway, and `hearth serve` without a functions.yaml."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.cli import common, main
from gateway.cli.client import GatewayClient
from gateway.cli.commands.developing import pick_up

HELLO = {"name": "hello", "kind": "handler", "state": "building", "version": None, "fault": None}
URL = "http://127.0.0.1:8080"


def init(monkeypatch: pytest.MonkeyPatch, folder: Path, *listed: list[dict[str, Any]]) -> Result:
    """Run `hearth init` beside a gateway that lists these functions, one list after the other."""
    answers = list(listed)

    def answer(request: httpx.Request) -> httpx.Response:
        if not answers:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=answers.pop(0) if len(answers) > 1 else answers[0])

    client = functools.partial(GatewayClient, transport=httpx.MockTransport(answer))
    monkeypatch.setattr(common, "GatewayClient", client)
    monkeypatch.setattr(pick_up, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(pick_up, "PICK_UP_SECONDS", 0.2)
    monkeypatch.chdir(folder)
    return CliRunner().invoke(main, ["init"])


def test_without_a_gateway_the_next_step_is_to_start_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = init(monkeypatch, tmp_path).stdout
    assert "Next:\n  hearth serve\n  hearth invoke hello" in said
    assert "gateway" not in said


def test_a_gateway_that_watches_the_file_is_waited_for_and_called_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ready = HELLO | {"state": "ready"}
    said = init(monkeypatch, tmp_path, [], [], [HELLO], [ready]).stdout
    assert f"The gateway at {URL} has picked it up; it is ready." in said
    assert "Next:\n  hearth invoke hello --data" in said
    assert "hearth serve" not in said


def test_a_gateway_that_cannot_set_it_up_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = HELLO | {"state": "failed", "fault": "the engine has no image"}
    said = init(monkeypatch, tmp_path, [], [failed]).stdout
    assert "has picked it up, but cannot set it up yet:\n  the engine has no image" in said


@pytest.mark.parametrize("before", [[], [HELLO | {"state": "ready"}]])
def test_a_gateway_of_another_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: list[dict[str, Any]]
) -> None:
    said = init(monkeypatch, tmp_path, before).stdout
    assert f"The gateway at {URL} serves another file." in said
    assert "Next:\n  hearth serve\n" in said


def test_serve_in_an_empty_folder_says_how_to_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["serve"])
    assert result.exit_code == 2
    assert f"there is no functions.yaml in {tmp_path}" in result.stderr
    assert "Write a first function:  hearth init hello\n" in result.stderr
    assert list(tmp_path.iterdir()) == [], "no data folder is made for it"


def test_serve_of_a_file_elsewhere_says_where_to_write_it(tmp_path: Path) -> None:
    for name, hint in (("functions.yaml", True), ("other.yaml", False)):
        result = CliRunner().invoke(main, ["serve", "--functions", str(tmp_path / "shop" / name)])
        assert (f"hearth init hello --dir {tmp_path / 'shop'}" in result.stderr) == hint
        assert "hearth serve --functions FILE" in result.stderr
