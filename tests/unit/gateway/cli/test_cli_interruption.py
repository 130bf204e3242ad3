"""Ctrl-C ends every command with status 130 and a message, and never with a traceback."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner

from gateway.cli import common, main
from gateway.cli.client import GatewayClient

ROOT = Path(__file__).parents[4]
WORDS = {"logs": ["x"], "graph": ["x"]}
"""Arguments that a command needs although each by itself is optional."""


def commands_of_a_gateway(group: click.Group, *words: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command that asks a gateway."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands_of_a_gateway(command, *words, name)
        elif command is not None and any(parameter.name == "url" for parameter in command.params):
            yield (*words, name)


def words_of(names: tuple[str, ...]) -> list[str]:
    """Return a command line with everything that the command needs."""
    command: click.Command = main
    for name in names:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    needed = ["x" for one in command.params if isinstance(one, click.Argument) and one.required]
    asks = ["--yes"] if any("--yes" in one.opts for one in command.params) else []
    return [*names, *(WORDS.get(names[-1]) or needed), *asks]


@pytest.mark.parametrize("names", list(commands_of_a_gateway(main)), ids=" ".join)
def test_a_command_that_waits_for_the_gateway_is_interrupted(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    transport = httpx.MockTransport(interrupted)
    monkeypatch.setattr(common, "GatewayClient", functools.partial(GatewayClient, transport=transport))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, words_of(names))
    assert result.exit_code == 130, result.output
    assert any(words in result.stderr for words in ("\nStopped", "\nNo longer following"))
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("functions",), "Stopped. Nothing was changed."),
        (("invoke", "f", "--path", "/x"), "The gateway ends the call, because nobody waits for its answer."),
        (("jobs", "cancel", "x"), "The gateway may still carry out POST /jobs/x/cancel."),
    ],
)
def test_it_says_what_becomes_of_the_request(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    transport = httpx.MockTransport(interrupted)
    monkeypatch.setattr(common, "GatewayClient", functools.partial(GatewayClient, transport=transport))
    assert said in CliRunner().invoke(main, words).stderr


def test_a_real_signal_ends_a_real_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = os.environ | {"HEARTH_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "functions"],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
        )
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)  # the request is on its way
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
    assert (process.returncode, said.decode()) == (130, "\nStopped. Nothing was changed.\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serv",), "there is no command serv; did you mean serve?"),
        (("dead-leters",), "did you mean dead-letters?"),
        (("jobs", "cancl", "x"), "there is no command cancl; did you mean cancel?"),
        (("keys", "qqq"), "there is no command qqq"),
    ],
)
def test_a_misspelt_command_gets_the_nearest_name(words: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("doctor",), "Stopped. The container of the checks is removed."),
        (("prune", "--yes"), "Stopped. Run the command again to remove the rest."),
    ],
)
def test_commands_of_the_engine_say_what_is_left(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"gateway.cli.commands.serving.{words[0]}.run", interrupted)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.stderr) == (130, f"\n{said}\n")
