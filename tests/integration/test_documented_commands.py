"""Every command of README and docs, typed by a reader of one page after the other beside a real gateway.

The reader has the checkout, and the functions and files that the pages think of as the reader's own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from select import select
from typing import Any

import httpx
import pytest
from harness import Gateway, eventually

from tests.support.doc_commands import FILES, ROOT, ShownCommand, commands, words_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

FUNCTIONS = """\
  shop-cart: {runtime: python, source: functions/hello, handler: handler:handle}
  report: {runtime: python, source: functions/hello, handler: handler:handle}
  broken: {image: hearth-example/busybox:latest, command: ["false"], retries: {attempts: 1}}
  slow: {image: hearth-example/busybox:latest, command: [sleep, "1"]}
"""
WORKFLOWS = """\
  resize: {steps: {small: {function: thumbnail}}}
  shop: {steps: {cart: {function: shop-cart}}}
  slow: {steps: {only: {function: slow}}}
"""
JOBS = """\
jobs:
  nightly: {image: hearth-example/busybox:latest, command: ["true"], count: 1}
"""
CONTENTS = {"order.json": '{"name": "Ada"}', "names.jsonl": '{"name": "Ada"}\n{"name": "Alan"}\n'}
"""Content of the reader's files, as far as they are no pictures."""
SLOW_TO_BUILD = re.compile(r"\b(thumbnail|gallery|resize)\b")
"""Names in commands that need the function whose image pip fills."""
LONGEST_SECONDS = 60.0
"""Bounds each command. The longest takes three on a quiet machine."""
PLACEHOLDER = re.compile(r"\b(?:(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{8,32}|ID)\b")
"""An id in a page, or what stands for one. Figures alone are a number, letters alone a word."""
MAKES_KEYS = re.compile(r"hearth keys (create(?!.*--print-only)|list|revoke)")
"""A command after which every call needs a key, so that it comes last."""


class DocsGateway(Gateway):
    """A gateway with the examples' functions.yaml, in a copy of the checkout."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {}, settings={"callback_allow": "hooks.example.com"})
        self.data = folder / ".hearth"

    def declare(self, *_: object) -> None:
        """Leave functions.yaml as the copy has it."""


class Reader:
    """Somebody at a shell of their own, in the folder of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._output = gateway.folder / "output"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=gateway.folder,
            env={**clean, "PATH": path, "HOME": str(gateway.folder), "HEARTH_URL": gateway.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        # An answer that is an error is a fault of the page. Without this, only -f would say so.
        self._tell('set -o pipefail; curl() { command curl --silent --show-error --fail-with-body "$@"; }')

    def types(self, command: ShownCommand) -> str | None:
        """Run a command, and return what is wrong with it, or None."""
        text = command.text.replace("127.0.0.1:8080", self.gateway.url.removeprefix("http://"))
        if SLOW_TO_BUILD.search(text):
            eventually(lambda: ready(self.gateway, "thumbnail"), 120)
        text = PLACEHOLDER.sub(lambda _: id_for(text, self.gateway), text)
        status = self._tell(f"{{ eval {shlex.quote(text)}; }} </dev/null >{self._output} 2>&1")
        if made := re.match(r"hearth init (\S+)", text):
            eventually(lambda: settled(self.gateway, made[1]))
        if MAKES_KEYS.match(text) and (file := re.search(r"> (\S+\.key)", text)):
            key = (self.gateway.folder / file[1]).read_text().strip()
            eventually(lambda: ask(self.gateway, "/pool", key).status_code != 401)
        said = self._output.read_text(errors="replace")
        return (
            f"{command}\nended with status {status}:\n{said[-1000:]}"
            if status or "Traceback" in said
            else None
        )

    def leaves(self) -> None:
        """End the shell."""
        self._shell.communicate()

    def _tell(self, line: str) -> int:
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write(f"{line}\necho $?\n")
        self._shell.stdin.flush()
        if not select([self._shell.stdout], [], [], LONGEST_SECONDS)[0]:
            os.killpg(self._shell.pid, signal.SIGKILL)
            pytest.fail(f"{line}\nhas not ended; if it does not by itself, say so in NOT_RUN")
        return int(self._shell.stdout.readline())


def ask(gateway: Gateway, path: str, key: str) -> httpx.Response:
    return gateway.http.get(path, headers={"authorization": f"Bearer {key}"})


def settled(gateway: Gateway, function: str) -> bool:
    """Return whether a function was set up, or cannot be: some only stand for an image of the reader's."""
    answer = gateway.http.get(f"/functions/{function}")
    return answer.status_code == 200 and answer.json()["state"] != "building"


def ready(gateway: Gateway, function: str) -> bool:
    answer = gateway.http.get(f"/functions/{function}")
    return answer.status_code == 200 and answer.json()["state"] == "ready"


# -- ids that a reader has got from earlier answers ----------------------------------------------------------------


def id_for(text: str, gateway: Gateway) -> str:
    """Return an id of what a command is about."""
    for start, make in IDS.items():
        if re.search(start, text):
            return make(gateway)
    pytest.fail(f"no id is known for {text}; say in IDS where a reader has got one")


def called(gateway: Gateway) -> str:
    """Return the id of a direct call."""
    return gateway.call("hello", {"name": "Ada"}).headers["x-invocation-id"]


def accepted(gateway: Gateway, function: str = "hello", status: str = "succeeded") -> str:
    """Return the id of an accepted call that has ended so."""
    answer = gateway.call(function, {"name": "Ada"}, headers={"prefer": "respond-async"})
    place = answer.headers["location"]
    eventually(lambda: gateway.http.get(place).json()["status"] == status)
    return place.rpartition("/")[2]


def run_of_shop(gateway: Gateway) -> str:
    """Return the id of a run that has succeeded."""
    return ended(gateway, "/workflows/shop", "/runs/", {"name": "Ada"})


def cancelled_run(gateway: Gateway) -> str:
    """Return the id of a run that can be resumed."""
    run = str(gateway.http.post("/workflows/slow").json()["id"])
    assert gateway.http.delete(f"/runs/{run}").is_success
    eventually(lambda: gateway.http.get(f"/runs/{run}").json()["status"] == "cancelled")
    return run


def job(gateway: Gateway) -> str:
    """Return the id of a job that has ended."""
    return ended(gateway, "/jobs", "/jobs/", {"job": "nightly"})


def ended(gateway: Gateway, start: str, place: str, body: object) -> str:
    found: dict[str, Any] = gateway.http.post(start, json=body).json()
    eventually(lambda: gateway.http.get(f"{place}{found['id']}").json()["status"] == "succeeded")
    return str(found["id"])


def instance(gateway: Gateway) -> str:
    """Return the id of an instance."""
    called(gateway)
    return str(gateway.instances("hello")[0]["id"])


IDS: dict[str, Callable[[Gateway], str]] = {
    r"--instance|pool/instances/": instance,
    r"hearth (logs|calls)|invocations/ID/logs": called,
    r"hearth result|/invocations/": accepted,
    r"hearth resume": cancelled_run,
    r"hearth runs|--run ": run_of_shop,
    r"hearth jobs": job,
    r"hearth dead-letters": lambda gateway: accepted(gateway, "broken", "dead"),
}
"""Beginning of a command to what it needs an id of. The first that fits counts."""


# -- the tests -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Return a gateway in a copy of the checkout, with what readers have beside it."""
    folder = tmp_path_factory.mktemp("reader") / "hearth"
    left_out = shutil.ignore_patterns(".*", "build", "tests", "mutants", "results", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=left_out)
    file = folder / "functions.yaml"
    text = file.read_text()
    text = text.replace("\nfunctions:\n", f"\nfunctions:\n{FUNCTIONS}", 1)
    file.write_text(text.replace("\nworkflows:\n", f"\nworkflows:\n{WORKFLOWS}", 1) + JOBS)
    for name in FILES:
        if name in CONTENTS:
            (folder / name).write_text(CONTENTS[name])
        else:
            shutil.copy(folder / "functions/gallery/pictures/dunes.jpg", folder / name)
    with DocsGateway(folder) as running:
        yield running


SHOWN = [command for command in commands() if command.why_not_run is None]
BLOCKS = [list(block) for _, block in groupby(SHOWN, lambda command: (command.page, command.block))]
WITH_KEYS = [block for block in BLOCKS if any(MAKES_KEYS.search(command.text) for command in block)]


@pytest.mark.parametrize("page", dict.fromkeys(command.page for command in SHOWN))
def test_every_command_of_a_page_works(gateway: Gateway, page: str) -> None:
    faults = typed(gateway, [block for block in BLOCKS if block[0].page == page and block not in WITH_KEYS])
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("block", WITH_KEYS, ids=lambda block: f"{block[0].page}:{block[0].block}")
def test_every_command_about_keys_works(gateway: Gateway, block: list[ShownCommand]) -> None:
    (gateway.data / "keys.json").unlink(missing_ok=True)  # of the block before
    faults = typed(gateway, [block])
    assert not faults, "\n".join(faults)


TYPED: set[tuple[str, ...]] = set()
"""Commands that have worked. A page that shows one again does not cost its time again."""
OF_ITS_SHELL = re.compile(r"\$[{a-zA-Z]|^[a-z_]+=|^export |\beval ")
"""In a command that depends on those before it, or that those after it depend on."""


def typed(gateway: Gateway, blocks: list[list[ShownCommand]]) -> list[str]:
    """Return what is wrong with the commands of some blocks."""
    reader = Reader(gateway)
    faults = []
    try:
        for command in (command for block in blocks for command in block):
            words = tuple(words_of(command.text))  # without a comment
            if words in TYPED and not OF_ITS_SHELL.search(command.text):
                continue
            if fault := reader.types(command):
                faults.append(fault)
            TYPED.add(words)
    finally:
        reader.leaves()
    return faults
