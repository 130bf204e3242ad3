"""The service of systemd that `hearth setup --systemd` installs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.setup.program import program
from gateway.setup.record import SetupRecord

NAME = "hearth"
ENGINE_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT", "DOCKER_CONFIG")
"""Variables that say which engine is used. The service gets those that are set now."""
TEMPLATE = Path(__file__).parent / "files" / "hearth.service"
NO_FUNCTIONS = """\
# Functions of the service. Add one: hearth init hello --dir {folder}
version: 1
functions: {{}}
"""
PRIVATE = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - refused, not used
"""Folders of which the service has its own: the engine would not see what lies in them."""
START_TIMEOUT_SECONDS = 120.0
"""Time for one call of systemctl. A stop waits for calls in flight, for 90 s at most."""
SETTLE_SECONDS = 3.0
"""Time in which a gateway reads settings and functions.yaml: a second and a half on a quiet machine."""


class ServiceError(Exception):
    """The service could not be installed, started or removed. The message says why, and what to do."""


@dataclass(frozen=True)
class ServicePlaces:
    """Paths of the service, and the folder that shows that systemd runs."""

    functions: Path = Path("/etc/hearth/functions.yaml")
    data_dir: Path = Path("/var/lib/hearth")
    unit: Path = Path("/etc/systemd/system/hearth.service")
    booted: Path = Path("/run/systemd/system")

    @property
    def settings(self) -> Path:
        """Return the path of the file with settings. We never write it: it may hold keys."""
        return self.functions.parent / "hearth.env"


class SystemService:
    """The service `hearth`, which runs the program that this process runs."""

    def __init__(self, places: ServicePlaces) -> None:
        self._places = places

    def check(self) -> None:
        """Raise `ServiceError` if the service cannot be installed on this machine."""
        if os.geteuid() != 0:
            raise ServiceError(f"a service is installed by root: sudo {' '.join(program())} setup --systemd")
        if not self._places.booted.is_dir():
            raise ServiceError("systemd does not run this machine. Start Hearth another way: hearth serve")
        for name, place in (("--functions", self._places.functions), ("--data-dir", self._places.data_dir)):
            if private := next((one for one in PRIVATE if place.is_relative_to(one)), None):
                raise ServiceError(
                    f"{name} {place}: the service has a {private} of its own; choose another place"
                )

        written = self._written()
        if written and not written.startswith(self.text().partition("\n")[0]):
            raise ServiceError(
                f"{self._places.unit} is there, and is not of hearth setup; remove or rename it first"
            )

    def look(self) -> list[str]:
        """Return all that `install` would change, as text for people. Empty if the service runs as it should."""
        places, found = self._places, []
        if not places.functions.exists():
            found.append(f"write {places.functions}, without functions")
        if self._written() != self.text():
            found.append(f"write {places.unit}")
        if not found and _succeeds("is-active") and _succeeds("is-enabled"):
            return []
        return [*found, f"start {NAME}.service, and again at each boot"]

    def text(self) -> str:
        """Return the unit."""
        places = self._places
        engine = [f"{name}={os.environ[name]}" for name in ENGINE_VARIABLES if os.environ.get(name)]
        values = {
            "PROGRAM": " ".join(map(_quoted, program())),
            "FUNCTIONS": _quoted(str(places.functions)),
            "DATA": _quoted(str(places.data_dir)),
            "SETTINGS": str(places.settings).replace("%", "%%"),
            "ENGINE": "".join(f"Environment={_quoted(setting)}\n" for setting in engine),
        }
        text = TEMPLATE.read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@\n" if name == "ENGINE" else f"@{name}@", value)
        return text

    def install(self, record: SetupRecord) -> None:
        """Write what is missing, and start the service, again if it has changed. Raises `ServiceError`."""
        places = self._places
        changed = self._written() != self.text()
        if not places.functions.exists():
            record.write_file(places.functions, NO_FUNCTIONS.format(folder=places.functions.parent))
        places.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if changed:
            record.write_file(places.unit, self.text())
            _systemctl("daemon-reload")
        record.add_service(NAME)
        _systemctl("enable", NAME)
        _systemctl("restart" if changed else "start", NAME)
        self._settle()

    def _settle(self) -> None:
        """Return if the service still runs after a moment: faults in settings end it only then."""
        end = time.monotonic() + SETTLE_SECONDS
        while _succeeds("is-active"):
            if time.monotonic() >= end:
                return
            time.sleep(0.25)
        raise ServiceError(f"{NAME}.service has ended again; its log: journalctl -u {NAME} -e")

    def _written(self) -> str | None:
        try:
            return self._places.unit.read_text()
        except OSError:
            return None


def disable(name: str) -> None:
    """Stop a service, and do not start it at boot. Raises `ServiceError`."""
    _systemctl("disable", "--now", name)


def reload() -> None:
    """Have systemd read its units again. Raises `ServiceError`."""
    _systemctl("daemon-reload")


def _succeeds(verb: str) -> bool:
    return _finished([verb, "--quiet", NAME]).returncode == 0


def _systemctl(*arguments: str) -> None:
    done = _finished(arguments)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise ServiceError(
            f"systemctl {' '.join(arguments)} failed: {said}\n  its log: journalctl -u {NAME} -e"
        )


def _finished(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = ["systemctl", *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=START_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"{' '.join(command)}: {error}") from error


def _quoted(text: str) -> str:
    """Return a text as one word of a unit, with systemd's own characters escaped."""
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%")):
        text = text.replace(character, escaped)
    return f'"{text}"' if any(one in text for one in " \t\\\"'") else text
