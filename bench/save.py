"""How long a save takes until `hearth dev` answers with the new code, beside the parts that cannot be left out.

  python -m bench.save                          a handler that imports nothing, and two that take a while to import
  python -m bench.save --rounds 40 --no-container

By turns, with one client that keeps its connection:

- a save, timed from before the write until the answer of the new code has come. The client calls when `hearth dev`
  has printed that it has loaded the code. Asked again and again, the gateway and the old code would be busy with
  answers that nobody wants;
- the first call of the same code when no instance has it: a prewarmed one is specialised and imports the handler.
  Timed by the same client, from before the call until its answer. A save costs this at least. The gateway says how
  much of it was the specialising and the import; that is shown, too.

The engine must run.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

IMPORTS = (0.0, 0.05, 0.25)
"""Seconds that the handlers take to import."""
QUIET_SECONDS = 0.7
"""Pause before each turn, in which prewarmed instances are started again."""
CODE = """\
import time
until = time.perf_counter() + {seconds}
while time.perf_counter() < until:
    pass

def handle(event, context):
    return {number}
"""


@dataclass
class Turns:
    """Times of one handler, in seconds."""

    saves: list[float] = field(default_factory=list)
    """From the save to the new answer."""
    first_calls: list[float] = field(default_factory=list)
    """A call that specialises an instance and imports the handler, as the client sees it."""
    starts: list[float] = field(default_factory=list)
    """Of these calls: specialising and import, as the gateway sees them."""

    def ratio(self, least: list[float]) -> float:
        """Return how many times as long as `least` a save takes, by the medians."""
        return statistics.median(self.saves) / statistics.median(least)


class Dev:
    """A running `hearth dev`, and a client with one connection to it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self._printed: IO[str] = process.stdout  # type: ignore[assignment]  # a pipe
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[Any, http.client.HTTPMessage]:
        """Send a request, and return the answer's JSON and head."""
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            sys.exit(f"{method} {path} was answered with {answer.status}: {text.decode()}")
        return json.loads(text or b"null"), answer.headers

    def call(self) -> tuple[Any, http.client.HTTPMessage]:
        """Call the function."""
        return self.ask("POST", "/invoke/saved", b"0")

    def wait_for(self, words: str) -> None:
        """Wait until a line with these words is printed. Calls are printed, too, so nothing is read twice."""
        for line in self._printed:
            if words in line:
                return
        sys.exit("hearth dev has ended; run it by hand to see why")


@contextmanager
def dev(folder: Path, *options: str) -> Iterator[Dev]:
    """Run `hearth dev` on a folder until the first call is answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("hearth"), "dev", folder, "--port", str(port), *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        running = Dev(process, port)
        running.wait_for("Ctrl-C ends it")
        running.call()
        yield running
    finally:
        process.terminate()
        process.wait()


def save(running: Dev, file: Path, seconds: float, number: int) -> float:
    """Save new code, and return the seconds until it answers."""
    code = CODE.format(seconds=seconds, number=number)
    began = time.perf_counter()
    file.write_text(code)
    running.wait_for("reloaded in")
    answer, _ = running.call()
    took = time.perf_counter() - began
    if answer != number:
        sys.exit(f"the code before has answered: {answer}, not {number}")
    return took


def first_call(running: Dev) -> tuple[float, float]:
    """End the instance, and return the seconds of the next call, and those of specialising and import in it."""
    for instance in running.ask("GET", "/pool/instances?function=saved")[0]:
        running.ask("DELETE", f"/pool/instances/{instance['id']}")
    time.sleep(QUIET_SECONDS)
    began = time.perf_counter()
    _, head = running.call()
    took = time.perf_counter() - began
    if head["x-hearth-start"] != "prewarmed":
        sys.exit(f"the call was {head['x-hearth-start']}, not prewarmed; is the machine busy?")
    return took, float(re.search(r"start;dur=([\d.]+)", head["server-timing"])[1]) / 1000  # type: ignore[index]


def measure(rounds: int, seconds: float, options: list[str]) -> Turns:
    """Return the times of a handler that takes so long to import."""
    turns = Turns()
    with tempfile.TemporaryDirectory() as name:
        file = Path(name).resolve() / "saved" / "handler.py"
        file.parent.mkdir()
        file.write_text(CODE.format(seconds=seconds, number=-1))
        with dev(file.parent, *options) as running:
            for number in range(rounds):
                time.sleep(QUIET_SECONDS)
                turns.saves.append(save(running, file, seconds, number))
                time.sleep(QUIET_SECONDS)
                took, start = first_call(running)
                turns.first_calls.append(took)
                turns.starts.append(start)
    return turns


def quartiles(values: list[float]) -> str:
    """Return the median and the quartiles in milliseconds."""
    low, middle, high = (1000 * value for value in statistics.quantiles(values, n=4))
    return f"{middle:7.1f} ({low:.1f}-{high:.1f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__)[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-container", action="store_true")
    arguments = parser.parse_args()
    options = ["--no-container"] if arguments.no_container else []
    print(
        f"{'import ms':>9}  {'save to answer, ms':<24}{'first call, ms':<24}{'its start, ms':<24}save:call  :start"
    )
    for seconds in IMPORTS:
        turns = measure(arguments.rounds, seconds, options)
        times = "".join(f"{quartiles(part):<24}" for part in (turns.saves, turns.first_calls, turns.starts))
        ratios = f"{turns.ratio(turns.first_calls):9.2f}  {turns.ratio(turns.starts):6.2f}"
        print(f"{1000 * seconds:9.0f}  {times}{ratios}", flush=True)


if __name__ == "__main__":
    main()
