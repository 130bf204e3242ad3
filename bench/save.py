"""How long a save takes until `hearth dev` answers with the new code, beside the parts that cannot be left out.

  python -m bench.save                          a handler that imports nothing, and two that take a while to import
  python -m bench.save --rounds 40 --no-container

By turns: a save, timed from before the write until an answer of the new code has come; and a call of the same code on
a prewarmed instance. Of that, the gateway says how long it took to specialise the instance and to import the handler:
a save costs this at least. The engine must run.
"""

from __future__ import annotations

import argparse
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

import httpx

IMPORTS = (0.0, 0.05, 0.25)
"""Seconds that the handlers take to import."""
POLL_SECONDS = 0.005
"""Pause between two calls while the new code is waited for: calls without a pause would slow it down."""
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
    least: list[float] = field(default_factory=list)
    """Specialising an instance and importing the handler."""

    @property
    def ratio(self) -> float:
        """Return how many times as long as the least a save takes, by the medians."""
        return statistics.median(self.saves) / statistics.median(self.least)


@contextmanager
def dev(folder: Path, *options: str) -> Iterator[httpx.Client]:
    """Run `hearth dev` on a folder, and give a client of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("hearth"), "dev", folder, "--port", str(port), *options],
        stdout=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while not is_ready(client):
                if process.poll() is not None:
                    sys.exit("hearth dev has ended; run it by hand to see why")
                time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait()


def is_ready(client: httpx.Client) -> bool:
    """Return whether the gateway runs functions."""
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def save(client: httpx.Client, file: Path, seconds: float, number: int) -> float:
    """Save new code, and return the seconds until it answers."""
    code = CODE.format(seconds=seconds, number=number)
    began = time.perf_counter()
    file.write_text(code)
    while client.post("/invoke/saved", json=0).json() != number:
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - began


def specialise(client: httpx.Client) -> float:
    """End the instance, and return the seconds that the next one takes to be specialised and to import the code."""
    for instance in client.get("/pool/instances", params={"function": "saved"}).json():
        client.delete(f"/pool/instances/{instance['id']}").raise_for_status()
    time.sleep(QUIET_SECONDS)
    answer = client.post("/invoke/saved", json=0)
    if answer.headers["x-hearth-start"] != "prewarmed":
        sys.exit(f"the call was {answer.headers['x-hearth-start']}, not prewarmed; is the machine busy?")
    return float(str(re.search(r"start;dur=([\d.]+)", answer.headers["server-timing"])[1])) / 1000  # type: ignore[index]


def measure(rounds: int, seconds: float, options: list[str]) -> Turns:
    """Return the times of a handler that takes so long to import."""
    turns = Turns()
    with tempfile.TemporaryDirectory() as name:
        file = Path(name).resolve() / "saved" / "handler.py"
        file.parent.mkdir()
        file.write_text(CODE.format(seconds=seconds, number=-1))
        with dev(file.parent, *options) as client:
            client.post("/invoke/saved", json=0)
            for number in range(rounds):
                time.sleep(QUIET_SECONDS)
                turns.saves.append(save(client, file, seconds, number))
                time.sleep(QUIET_SECONDS)
                turns.least.append(specialise(client))
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
    print(f"{'import ms':>9}  {'save to answer, ms':<24}  {'specialise + import, ms':<24}  ratio")
    for seconds in IMPORTS:
        turns = measure(arguments.rounds, seconds, options)
        print(
            f"{1000 * seconds:9.0f}  {quartiles(turns.saves):<24}  {quartiles(turns.least):<24}  {turns.ratio:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
