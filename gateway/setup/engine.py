"""Have a container engine: use the one that answers, else install and start one.

python -m gateway.setup.engine ensure     nothing to do if DOCKER_HOST or the default socket answers
python -m gateway.setup.engine stop       stop what `ensure` started, and nothing else
python -m gateway.setup.engine status     say what answers

`ensure` installs an engine on Debian and Ubuntu as root only; elsewhere it says what to do. The engine is
started with live-restore, so that containers outlive it, and in a session of its own, so that it outlives
the command. Everything after `--` goes to dockerd.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.setup import packages
from gateway.setup.engine_api import EngineApi, EngineApiError, EngineForbiddenError, EngineSilentError
from gateway.setup.program import program
from gateway.setup.record import RecordError, SetupRecord
from pool.engine.access.address import BadAddress, is_chosen

PROGRAMS = ("dockerd", "containerd", "iptables")
"""Programs that an installed engine has."""
INSTALLATION = "https://docs.docker.com/engine/install/"
PACKAGES = ("docker.io", "containerd", "runc", "iptables", "ca-certificates")
START_TIMEOUT_SECONDS = 60.0
"""Time for a daemon to answer after its start; the first start takes some seconds."""
STOP_TIMEOUT_SECONDS = 20.0
"""Time for a daemon to end; containerd takes the longest, some seconds under load."""
LOG_LINE_CHARACTERS = 200
"""Characters of a daemon's log line that are shown; some run to thousands."""
POLICY = Path("/usr/sbin/policy-rc.d")
DAEMON_SETTINGS = Path("/etc/docker/daemon.json")

EngineNeed = Literal["nothing", "start", "install"]
"""Work until an engine answers: none as it answers, it must be started, or installed first."""


class EngineSetupError(Exception):
    """There is no engine and none could be had; the message says what to do."""


@dataclass(frozen=True)
class Places:
    """Where the daemons keep their things; movable, so that a second engine can run beside another."""

    socket: Path
    data_root: Path
    exec_root: Path
    pid_file: Path
    log: Path
    state: Path
    containerd_socket: Path
    containerd_root: Path
    containerd_state: Path


def look(engine: EngineApi, chosen: bool) -> EngineNeed:
    """Return what must be done until an engine answers. `chosen`: DOCKER_HOST names it, so that no other will do.

    Raises `EngineSetupError` if we cannot do it; the message says who can.
    """
    try:
        engine.ping()
        return "nothing"
    except EngineForbiddenError as error:
        raise EngineSetupError(
            f"{error}. Run as root, or join the group that owns the socket: "
            "sudo usermod -aG docker $USER, then log in again."
        ) from error
    except EngineSilentError as error:
        if chosen:
            raise EngineSetupError(
                f"No engine answers at DOCKER_HOST: {error}. Start that engine, or unset DOCKER_HOST."
            ) from error
    if os.geteuid() != 0:
        advice = ["No container engine answers.", "  Start it:    sudo systemctl start docker"]
        if packages.is_debian():
            advice.append(f"  Or have one: sudo {' '.join(program())} setup")
        raise EngineSetupError("\n".join([*advice, f"  Or install:  {INSTALLATION}"]))
    if all(shutil.which(program) for program in PROGRAMS):
        return "start"
    if not packages.is_debian():
        raise EngineSetupError(
            "No container engine answers, and only on Debian and Ubuntu can Hearth install one.\n"
            f"  Install it: {INSTALLATION}"
        )
    return "install"


def bring(
    need: EngineNeed,
    engine: EngineApi,
    places: Places,
    dockerd_options: Sequence[str] = (),
    record: SetupRecord | None = None,
) -> None:
    """Do what `look` has found, and return when the engine answers. The record is told of all that is new.

    Raises `EngineSetupError`.
    """
    if need == "nothing":
        return
    record = record or SetupRecord.load()
    if record.is_ours(str(POLICY)):  # an earlier set-up was killed, and its policy forbids every start
        _allow_start(record)
    if need == "install":
        _install(record)
    if runs_systemd():
        if _run(["systemctl", "is-enabled", "--quiet", "docker"]).returncode != 0:
            record.add_service("docker")
        _run(["systemctl", "enable", "--now", "docker"], check=True)
        _await("dockerd", lambda: _answers(engine), None, places.log)
    else:
        _start_by_hand(engine, places, dockerd_options)


def started(places: Places) -> list[str]:
    """Return the names of the daemons that `bring` started by hand and that still run, the first first."""
    return [name for name, pid in _started(places).items() if _runs(pid, name)]


def stop(places: Places) -> list[str]:
    """Stop the daemons that `bring` started by hand, the last first; returns their names."""
    stopped = []
    for name, pid in reversed(list(_started(places).items())):
        if _runs(pid, name):
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
            while _runs(pid, name) and time.monotonic() < deadline:
                time.sleep(0.05)
            if _runs(pid, name):
                raise EngineSetupError(f"{name} (process {pid}) does not stop; see {places.log}")
            stopped.append(name)
    places.state.unlink(missing_ok=True)
    return stopped


def _install(record: SetupRecord) -> None:
    from gateway.setup.progress import step

    # Read by every way of starting it: the package's own service comes up with live-restore as well.
    if not DAEMON_SETTINGS.exists():
        record.write_file(DAEMON_SETTINGS, '{"live-restore": true}\n')
    with step("Installing a container engine") as progress:
        # Without systemd the package would start a daemon unknown to us; policy-rc.d forbids that.
        forbid_start = not runs_systemd() and not POLICY.exists()
        if forbid_start:
            record.write_file(POLICY, "#!/bin/sh\nexit 101\n")
            POLICY.chmod(0o755)
        try:
            packages.install(PACKAGES, progress.show, record.add_packages)
        except packages.PackagesError as error:
            raise EngineSetupError(str(error)) from error
        finally:
            if forbid_start:
                _allow_start(record)


def _allow_start(record: SetupRecord) -> None:
    POLICY.unlink(missing_ok=True)
    record.forget_file(POLICY)


def _start_by_hand(engine: EngineApi, places: Places, dockerd_options: Sequence[str]) -> None:
    from gateway.setup.progress import step

    with step("Starting the container engine") as progress:
        if not _listens(places.containerd_socket):
            progress.show("containerd")
            arguments = [f"--address={places.containerd_socket}", f"--root={places.containerd_root}"]
            pid = _launch("containerd", [*arguments, f"--state={places.containerd_state}"], places)
            _await("containerd", lambda: _listens(places.containerd_socket), pid, places.log)
        _clear_stale(places.pid_file)
        progress.show("dockerd")
        arguments = [
            f"--host=unix://{places.socket}",
            f"--containerd={places.containerd_socket}",
            f"--data-root={places.data_root}",
            f"--exec-root={places.exec_root}",
            f"--pidfile={places.pid_file}",
        ]
        if not _settings_say_live_restore():
            arguments.append("--live-restore")
        pid = _launch("dockerd", [*arguments, *dockerd_options], places)
        _await("dockerd", lambda: _answers(engine), pid, places.log)


def _settings_say_live_restore() -> bool:
    """dockerd refuses to start when a setting is both on its command line and in its settings file."""
    try:
        return "live-restore" in json.loads(DAEMON_SETTINGS.read_text())
    except (OSError, ValueError):
        return False


def _launch(name: str, arguments: Sequence[str], places: Places) -> int:
    """Start a daemon that outlives us and remember that it is ours."""
    places.log.parent.mkdir(parents=True, exist_ok=True)
    with places.log.open("ab") as log:
        process = subprocess.Popen(
            [name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    places.state.parent.mkdir(parents=True, exist_ok=True)
    places.state.write_text(json.dumps({**_started(places), name: process.pid}))
    return process.pid


def _await(name: str, ready: Callable[[], bool], pid: int | None, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if ready():
            return
        if pid is not None and not _runs(pid, name):
            break
        time.sleep(0.05)
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    tail = [line[:LOG_LINE_CHARACTERS] for line in lines[-15:]]
    raise EngineSetupError("\n".join([f"{name} did not come up. The end of {log}:", *tail]))


def _clear_stale(pid_file: Path) -> None:
    """A machine that lost power leaves the file behind, and dockerd then refuses to start."""
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if _runs(pid, "dockerd"):
            raise EngineSetupError(
                f"dockerd runs (process {pid}) but does not answer; stop it first: kill {pid}"
            )
        pid_file.unlink()


def _started(places: Places) -> dict[str, int]:
    try:
        started: dict[str, int] = json.loads(places.state.read_text())
    except (OSError, ValueError):
        return {}
    return started


def _runs(pid: int, name: str) -> bool:
    """Return whether this process lives, is no zombie, and is still this program: numbers are given out again."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    comm, rest = fields[fields.index("(") + 1 : fields.rindex(")")], fields[fields.rindex(")") + 2 :]
    return comm == name[:15] and not rest.startswith("Z")


def _answers(engine: EngineApi) -> bool:
    try:
        engine.ping()
    except EngineApiError:
        return False
    return True


def _listens(socket: Path) -> bool:
    import socket as sockets

    with sockets.socket(sockets.AF_UNIX) as probe:
        return probe.connect_ex(str(socket)) == 0


def runs_systemd() -> bool:
    """Return whether systemd manages this machine."""
    return Path("/run/systemd/system").is_dir()


def _run(command: Sequence[str], check: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise EngineSetupError(f"{' '.join(command)} failed:\n{(done.stderr or done.stdout)[-2000:]}")
    return done


DEFAULT_PLACES = Places(
    socket=Path("/var/run/docker.sock"),
    data_root=Path("/var/lib/docker"),
    exec_root=Path("/var/run/docker"),
    pid_file=Path("/var/run/docker.pid"),
    log=Path("/var/log/hearth-dockerd.log"),
    state=Path("/run/hearth-engine/started.json"),
    containerd_socket=Path("/run/containerd/containerd.sock"),
    containerd_root=Path("/var/lib/containerd"),
    containerd_state=Path("/run/containerd"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.setup.engine", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("verb", choices=("ensure", "stop", "status"))
    for place in dataclasses.fields(Places):
        option, default = f"--{place.name.replace('_', '-')}", getattr(DEFAULT_PLACES, place.name)
        parser.add_argument(option, type=Path, default=default, metavar="PATH")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run from the command line; returns the exit status."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = vars(_parser().parse_args(arguments[:split]))
    verb = options.pop("verb")
    places = Places(**options)
    try:
        chosen = is_chosen()
    except BadAddress as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    engine = EngineApi(None if chosen else f"unix://{places.socket}")
    try:
        if verb == "stop":
            print("stopped: " + (", ".join(stop(places)) or "nothing, for nothing was started here"))
        elif verb == "status":
            print(f"{engine.host}: version {engine.version()}")
        else:
            bring(look(engine, chosen), engine, places, arguments[split + 1 :])
    except (EngineSetupError, EngineApiError, RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
