"""A process of `hearth dev` for tests from the outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
from harness import eventually, free_port

HEARTH = Path(sys.executable).with_name("hearth")


class DevRun:
    """`hearth dev FOLDER` with more arguments, with its folder for temporary files in `place`."""

    def __init__(
        self, folder: Path, place: Path, *arguments: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.temporary = place / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.log_file = place / "dev.log"
        self.http = httpx.Client(verify=False)
        self._arguments = arguments
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("HEARTH_")} | dict(env or {})

    def __enter__(self) -> Self:
        port = free_port()
        self.http.close()  # of an earlier run
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, verify=False
        )
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [HEARTH, "dev", self.folder, "--port", str(port), *self._arguments],
                env=self._env | {"TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            eventually(lambda: self.says("Ctrl-C ends it."), 60)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.stop()
        self.http.close()

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)

    @property
    def printed(self) -> str:
        return self.log_file.read_text(errors="replace")

    def says(self, text: str) -> bool:
        """Return whether it has printed a text; fail if it has ended."""
        assert self.process.poll() is None, f"hearth dev has ended\n{self.printed}"
        return text in self.printed

    def write(self, code: str, name: str = "handler.py") -> None:
        """Save a file of the function, in place as many editors do."""
        (self.folder / name).write_text(code)

    def call(self, function: str, payload: object = None) -> httpx.Response:
        return self.http.post(f"/invoke/{function}", json=payload)

    def until(self, function: str, answer: Any) -> None:
        """Call until this is the answer."""
        eventually(lambda: self.call(function, 1).json() == answer, 20, pause=0.01)

    @property
    def data(self) -> list[Path]:
        """Return the data folders that are there."""
        return list(self.temporary.glob("hearth-dev-*/*"))
