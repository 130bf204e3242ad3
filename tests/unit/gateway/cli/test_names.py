"""Names that a shell completes: where they come from, and what a fault does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import httpx
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from gateway.cli import main, names
from gateway.cli.client import GatewayClient

FILE = """\
functions:
  hello: {image: x}
  help: {image: x}
  "no name": {image: x}
jobs:
  heavy: {image: x}
workflows:
  gallery: {}
"""
ANSWERS = {
    "/functions": [{"name": "here"}, {"name": "hello"}, {"name": "he\nplain,evil"}],
    "/jobs": {"declared": ["heap"], "jobs": []},
    "/workflows": [{"name": "gallery"}],
}


def completed(*words: str) -> list[str]:
    """Return what Tab offers after these words, the last of which is incomplete."""
    shell = ShellComplete(main, {}, "hearth", "_HEARTH_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder with a functions.yaml."""
    (tmp_path / "functions.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gateway(monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]) -> None:
    client = functools.partial(GatewayClient, transport=httpx.MockTransport(answer))
    monkeypatch.setattr(names, "GatewayClient", client)


def silent(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody there")


def test_names_come_from_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=ANSWERS[request.url.path])

    gateway(monkeypatch, answer)
    monkeypatch.setenv("HEARTH_API_KEY", f"hth_aaaaaaaa_{'b' * 32}")
    assert completed("invoke", "--url", "http://there:1", "he") == ["here", "hello"]
    assert (asked[0].url.host, asked[0].headers["authorization"][:15]) == ("there", "Bearer hth_aaaa")
    assert max(asked[0].extensions["timeout"].values()) == names.ANSWER_SECONDS
    assert completed("run", "he") == ["heap", "here", "hello"]
    assert completed("graph", "") == ["gallery"]
    assert completed("runs", "--workflow", "g") == ["gallery"]


@pytest.mark.parametrize(
    "answer",
    [
        silent,
        lambda request: httpx.Response(401, json={}),
        lambda request: httpx.Response(200, json={"no": "list"}),
        lambda request: httpx.Response(200, text="<html>"),
    ],
)
def test_without_a_gateways_answer_they_come_from_the_file(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]
) -> None:
    gateway(monkeypatch, answer)
    assert completed("invoke", "he") == ["hello", "help"]
    assert completed("run", "he") == ["heavy", "hello", "help"]
    assert completed("start", "") == ["gallery"]


@pytest.mark.parametrize("content", [None, "", "functions: [", "functions: 3", "- 1", "\x00"])
def test_without_a_file_that_can_be_read_there_are_none(
    monkeypatch: pytest.MonkeyPatch, folder: Path, content: str | None
) -> None:
    gateway(monkeypatch, silent)
    file = folder / "functions.yaml"
    file.unlink() if content is None else file.write_text(content)
    assert completed("invoke", "") == []


def test_a_key_that_is_none_leaves_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_API_KEY", "nonsense")
    assert completed("invoke", "he") == ["hello", "help"]
    assert completed("invoke", "--key-file", "/nonexistent", "he") == ["hello", "help"]


def test_subcommands_and_options_are_completed() -> None:
    assert completed("wo") == ["workflows"]
    assert completed("jobs", "ca") == ["cancel"]
    assert completed("invoke", "--da") == ["--data"]


def parameters(command: click.Command, path: str = "hearth") -> Iterator[tuple[str, click.Parameter]]:
    """Yield every parameter of a command and of those below it."""
    context = click.Context(command)
    for parameter in command.params:
        yield path, parameter
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from parameters(found, f"{path} {name}")


def test_every_parameter_that_is_called_so_completes_names() -> None:
    wanted = {"function": names.FUNCTION, "workflow": names.WORKFLOW, "target": names.TARGET}
    found = [(path, p) for path, p in parameters(main) if p.name in wanted]
    assert len(found) >= 6
    assert [path for path, p in found if p.type is not wanted[p.name or ""]] == [], (
        "give it the type FUNCTION, WORKFLOW or TARGET of gateway/cli/names.py"
    )


def test_the_scripts_are_those_of_their_shells() -> None:
    for shell, part in (
        ("bash", "complete -o nosort"),
        ("zsh", "#compdef hearth"),
        ("fish", "complete --no-files"),
    ):
        done = CliRunner().invoke(main, ["completion", shell])
        assert (done.exit_code, part in done.output) == (0, True), done.output
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2
