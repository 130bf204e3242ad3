"""Real message brokers for tests: each a process of its own on a free port, with its files in the test's folder."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from harness import eventually, free_port


class Server:
    """A broker's process. Started when the block is entered; `kill` and `start` may be called in between."""

    program: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.program
        self.folder.mkdir()
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def arguments(self) -> Sequence[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        found = shutil.which(self.program, path="/usr/bin:/usr/sbin:/usr/local/bin")
        assert found, f"the tests need {self.program}; make tools installs it"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [found, *self.arguments()], cwd=self.folder, stdout=log, stderr=log
            )
        eventually(self._answers, 20)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it and wait until it is gone."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(20)

    def freeze(self) -> None:
        """Let it not run another instruction, until it is killed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


class RedisServer(Server):
    """Redis, which keeps each write: a kill loses nothing."""

    program = "redis-server"

    @property
    def url(self) -> str:
        return f"redis://:secret@127.0.0.1:{self.port}/0"

    def arguments(self) -> Sequence[str]:
        options = ("--port", self.port, "--bind", "127.0.0.1", "--requirepass", "secret", "--save", "")
        return [
            *map(str, options),
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--dir",
            str(self.folder),
        ]


class NatsServer(Server):
    """NATS with JetStream on disk."""

    program = "nats-server"

    @property
    def url(self) -> str:
        return f"nats://user:secret@127.0.0.1:{self.port}"

    def arguments(self) -> Sequence[str]:
        options = ("-a", "127.0.0.1", "-p", self.port, "-js", "-sd", self.folder, "--user", "user")
        return [*map(str, options), "--pass", "secret"]


class Mosquitto(Server):
    """Mosquitto, which keeps sessions and their messages at each change."""

    program = "mosquitto"

    @property
    def url(self) -> str:
        return f"mqtt://user:secret@127.0.0.1:{self.port}"

    def arguments(self) -> Sequence[str]:
        passwords = self.folder / "passwords"
        if not passwords.exists():
            subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "user", "secret"], check=True)
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"password_file {passwords}",
            "persistence true",
            f"persistence_location {self.folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            "user root",
        ]
        file = self.folder / "mosquitto.conf"
        file.write_text("\n".join(lines) + "\n")
        return ["-c", str(file)]
