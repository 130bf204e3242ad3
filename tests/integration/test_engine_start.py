"""A second engine beside the one in use, by the script that starts the first: its own everything."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.setup.engine import Places
from gateway.setup.engine_api import EngineApi, EngineSilentError
from gateway.setup.record import SetupRecord
from gateway.setup.removal import SetupRemoval

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("ip"),
        reason="starting an engine needs root, dockerd and ip",
    ),
]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(f"/tmp/hearth-{secrets.token_hex(3)}")  # short: a unix socket's path is at most 107 bytes
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def script(folder: Path) -> Iterator[Run]:
    """The script with all its places inside the folder; what it started is stopped at the end."""
    options = [
        f"--{name}={folder / name}" for name in ("socket", "data-root", "exec-root", "pid-file", "log")
    ]
    options += [f"--{name}={folder / name}" for name in ("state", "containerd-socket", "containerd-root")]
    options += [f"--containerd-state={folder / 'containerd-state'}"]
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}

    def run(verb: str, *dockerd: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway.setup.engine", verb, *options, "--", *dockerd]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    yield run
    run("stop")


@pytest.fixture
def bridge() -> Iterator[str]:
    name = f"hearth-{secrets.token_hex(3)}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    subprocess.run(["ip", "addr", "add", "172.31.251.1/24", "dev", name], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=True)


def places_in(folder: Path) -> Places:
    """Return the places that the script of these tests is given."""
    return Places(
        **{place.name: folder / place.name.replace("_", "-") for place in dataclasses.fields(Places)}
    )


def test_starts_outlives_and_goes(
    folder: Path, script: Run, bridge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No iptables: the chains are the machine's, and belong to the engine in use.
    own = [
        f"--bridge={bridge}",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
    ]
    (folder / "pid-file").write_text("4194303")  # left by a machine that lost power
    started = script("ensure", *own)
    assert started.returncode == 0, started.stderr
    engine = EngineApi(f"unix://{folder / 'socket'}")
    engine.ping()  # the command has ended; the engine has not
    assert engine.info()["LiveRestoreEnabled"] is True
    again = script("ensure", *own)
    assert (again.returncode, again.stderr) == (0, ""), "nothing to do, nothing to say"
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    removal = SetupRemoval(SetupRecord(folder / "record.json"), places_in(folder), None)
    assert removal.look() == [("engine", "containerd, dockerd")]
    removal.run()
    assert (removal.left, removal.look()) == ([], [])
    with pytest.raises(EngineSilentError):
        engine.ping()
    assert "nothing was started here" in script("stop").stdout


def test_a_failed_start_shows_the_end_of_the_log(script: Run) -> None:
    failed = script("ensure", "--no-such-option")
    assert failed.returncode == 1
    assert "unknown flag: --no-such-option" in failed.stderr
