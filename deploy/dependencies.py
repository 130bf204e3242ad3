"""Install what a purpose needs into .venv: quietly, with progress, and with what pip said if it fails.

python -m deploy.dependencies serve    the gateway with what it imports, and the clients of brokers
python -m deploy.dependencies dev      the tools of tests, lint and benchmarks as well
python -m deploy.dependencies mutants  the tools of mutation testing as well

It runs before anything is installed, so it uses the standard library only.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import TextIO

PURPOSES = {
    "serve": ("Hearth and what it needs", ".[redis,nats,mqtt,schema]"),
    "dev": ("the tools of development", ".[dev]"),
    "mutants": ("the tools of mutation testing", ".[mutants]"),
}
"""Of each purpose: how it is called in messages, and what pip is asked for."""
TAIL_LINES = 15
"""Lines of pip's output that a failure shows; its reason is at the end."""
TICK_SECONDS = 0.2
"""How often a terminal's line is drawn: fast enough for a clock in tenths to look alive."""
LINE_WIDTH = 78
PACKAGE = re.compile(r"\s*(Collecting|Downloading|Installing) ([\w.-]+)")


def pip_command(purpose: str) -> list[str]:
    """Return the command that installs what `purpose`, a key of `PURPOSES`, needs."""
    quiet = ["--disable-pip-version-check", "--progress-bar=off", "--root-user-action=ignore"]
    wanted = ["--constraint=constraints.txt", "--editable", PURPOSES[purpose][1]]
    return [sys.executable, "-m", "pip", "install", *quiet, *wanted]


def run_quietly(title: str, command: Sequence[str], out: TextIO) -> bool:
    """Run a command; on `out` say `title`, then how long it took, or the end of what it printed if it failed.

    On a terminal one moving line says what it does meanwhile. Return whether it succeeded.
    """
    moving = out.isatty()
    began = time.monotonic()
    if not moving:
        print(f"{title} ...", file=out, flush=True)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        rest, detail = b"", ""
        while True:
            if select.select([process.stdout], [], [], TICK_SECONDS)[0]:
                data = os.read(process.stdout.fileno(), 2**16)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    tail.append(line.decode(errors="replace"))
                    if found := PACKAGE.match(tail[-1]):
                        detail = f"{found[1].lower()} {found[2]}"
            if moving:
                line_now = f"{title}: {time.monotonic() - began:.1f} s {detail}"
                print(f"\r\033[K{line_now[:LINE_WIDTH]}", end="", file=out, flush=True)
    if moving:
        print("\r\033[K", end="", file=out)
    if process.returncode != 0:
        shown = [*tail, rest.decode(errors="replace")] if rest else tail
        print(*shown, sep="\n", file=out, flush=True)
        return False
    print(f"{title}: done in {time.monotonic() - began:.1f} s", file=out, flush=True)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.dependencies", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("purpose", choices=PURPOSES)
    purpose = parser.parse_args(arguments).purpose
    name = PURPOSES[purpose][0]
    if run_quietly(f"Installing {name} into .venv", pip_command(purpose), sys.stderr):
        return 0
    print(
        f"error: pip could not install {name}; its last lines are above. "
        "Check that this machine reaches a package index, then run make again.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
