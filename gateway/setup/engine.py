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

from gateway.setup.engine_api import EngineApi, EngineApiError, EngineForbiddenError, EngineSilentError

PACKAGES = ("docker.io", "containerd", "runc", "iptables", "ca-certificates")
START_PATIENCE = 60.0
"""Seconds that a daemon has to answer after its start."""
STOP_PATIENCE = 20.0
LINE_WIDTH = 200
"""Characters of a daemon's log line that are shown; some run to thousands."""
POLICY = Path("/usr/sbin/policy-rc.d")
DAEMON_SETTINGS = Path("/etc/docker/daemon.json")


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


def ensure(engine: EngineApi, places: Places, dockerd_options: Sequence[str], chosen: bool) -> None:
    """Return when an engine answers. `chosen`: DOCKER_HOST names it, so that no other will do.

    Raises `EngineSetupError`.
    """
    try:
        engine.ping()
        return
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
        raise EngineSetupError(
            "No container engine answers. Start one (sudo systemctl start docker), or install one "
            "(https://docs.docker.com/engine/install/), or run this once as root on Debian or Ubuntu."
        )
    _install()
    if _systemd():
        _run(["systemctl", "enable", "--now", "docker"])
        _await("dockerd", lambda: _answers(engine), None, places.log)
    else:
        _start_by_hand(engine, places, dockerd_options)


def stop(places: Places) -> list[str]:
    """Stop the daemons that `ensure` started by hand, the last first; returns their names."""
    stopped = []
    for name, pid in reversed(list(_started(places).items())):
        if _runs(pid, name):
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_PATIENCE
            while _runs(pid, name) and time.monotonic() < deadline:
                time.sleep(0.05)
            if _runs(pid, name):
                raise EngineSetupError(f"{name} (process {pid}) does not stop; see {places.log}")
            stopped.append(name)
    places.state.unlink(missing_ok=True)
    return stopped


def _install() -> None:
    if shutil.which("dockerd") and shutil.which("containerd") and shutil.which("iptables"):
        return
    release = Path("/etc/os-release")
    facts = release.read_text() if release.exists() else ""
    if not any(line in facts.replace('"', "").splitlines() for line in ("ID=debian", "ID=ubuntu")):
        raise EngineSetupError(
            "No container engine answers and this is neither Debian nor Ubuntu. Install one: https://docs.docker.com/engine/install/"
        )
    from gateway.setup.progress import step

    # Read by every way of starting it: the package's own service comes up with live-restore as well.
    if not DAEMON_SETTINGS.exists():
        DAEMON_SETTINGS.parent.mkdir(parents=True, exist_ok=True)
        DAEMON_SETTINGS.write_text('{"live-restore": true}\n')
    with step("Installing a container engine") as progress:
        # Without systemd the package would start a daemon unknown to us; policy-rc.d forbids that.
        forbid_start = not _systemd() and not POLICY.exists()
        if forbid_start:
            POLICY.write_text("#!/bin/sh\nexit 101\n")
            POLICY.chmod(0o755)
        try:
            _apt_get(["update"], progress.show)
            _apt_get(["install", "-y", "--no-install-recommends", *PACKAGES], progress.show)
        finally:
            if forbid_start:
                POLICY.unlink()


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
    deadline = time.monotonic() + START_PATIENCE
    while time.monotonic() < deadline:
        if ready():
            return
        if pid is not None and not _runs(pid, name):
            break
        time.sleep(0.05)
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    tail = [line[:LINE_WIDTH] for line in lines[-15:]]
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


def _systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineSetupError(f"{' '.join(command)} failed:\n{(done.stderr or done.stdout)[-2000:]}")


def _apt_get(arguments: Sequence[str], show: Callable[[str, float | None], None]) -> None:
    """Run apt-get; its status lines (`pmstatus:package:percent:text`) tell how far it is."""
    reader, writer = os.pipe()
    command = ["apt-get", "-qq", "-o", f"APT::Status-Fd={writer}", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log = subprocess.Popen(
        command,
        env=environment,
        pass_fds=[writer],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(writer)
    import threading

    def follow() -> None:
        with os.fdopen(reader, errors="replace") as status:
            for line in status:
                kind, _, percent, text = ([*line.rstrip().split(":", 3), "", "", ""])[:4]
                if kind in ("dlstatus", "pmstatus"):
                    with suppress(ValueError):
                        show(text, float(percent) / 100)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    output, _ = log.communicate()
    follower.join()
    if log.returncode != 0:
        raise EngineSetupError(f"apt-get {' '.join(arguments)} failed:\n{output[-2000:]}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.setup.engine", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("verb", choices=("ensure", "stop", "status"))
    places = {
        "socket": "/var/run/docker.sock",
        "data-root": "/var/lib/docker",
        "exec-root": "/var/run/docker",
        "pid-file": "/var/run/docker.pid",
        "log": "/var/log/hearth-dockerd.log",
        "state": "/run/hearth-engine/started.json",
        "containerd-socket": "/run/containerd/containerd.sock",
        "containerd-root": "/var/lib/containerd",
        "containerd-state": "/run/containerd",
    }
    for name, default in places.items():
        parser.add_argument(f"--{name}", type=Path, default=Path(default), metavar="PATH")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run from the command line; returns the exit status."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = vars(_parser().parse_args(arguments[:split]))
    verb = options.pop("verb")
    places = Places(**options)
    chosen = bool(os.environ.get("DOCKER_HOST"))
    engine = EngineApi(None if chosen else f"unix://{places.socket}")
    try:
        if verb == "stop":
            print("stopped: " + (", ".join(stop(places)) or "nothing, for nothing was started here"))
        elif verb == "status":
            print(f"{engine.host}: version {engine.version()}")
        else:
            ensure(engine, places, arguments[split + 1 :], chosen)
    except (EngineSetupError, EngineApiError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
