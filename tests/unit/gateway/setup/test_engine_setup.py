"""Having an engine: what is said when there is none, and whose processes are stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.setup import engine, packages
from gateway.setup.engine import EngineSetupError, Places, _clear_stale, bring, look, main, started, stop
from gateway.setup.engine_api import EngineApi
from gateway.setup.record import SetupRecord


@pytest.fixture
def places(tmp_path: Path) -> Places:
    names = Places.__dataclass_fields__
    return Places(**{name: tmp_path / name for name in names})


@pytest.fixture
def false_dockerd(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that bears the daemon's name."""
    program = tmp_path / "dockerd"
    shutil.copy("/bin/sleep", program)
    process = subprocess.Popen([program, "60"])
    yield process
    process.kill()
    process.wait()


def test_a_silent_docker_host_is_named_and_nothing_is_installed() -> None:
    with pytest.raises(EngineSetupError, match=r"DOCKER_HOST: unix:///nowhere/engine\.sock"):
        look(EngineApi("unix:///nowhere/engine.sock"), chosen=True)


@pytest.mark.parametrize(("debian", "advice"), [(True, "sudo .*hearth setup"), (False, "docs.docker.com")])
def test_without_root_it_says_what_to_do(
    places: Places, monkeypatch: pytest.MonkeyPatch, debian: bool, advice: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(packages, "is_debian", lambda: debian)
    with pytest.raises(EngineSetupError, match="systemctl start docker") as caught:
        look(EngineApi(f"unix://{places.socket}"), chosen=False)
    assert re.search(advice, str(caught.value))


def test_on_another_distribution_root_is_told_to_install_an_engine(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(packages, "is_debian", lambda: False)
    with pytest.raises(EngineSetupError, match=r"Install it: https://docs\.docker\.com"):
        look(EngineApi(f"unix://{places.socket}"), chosen=False)
    monkeypatch.setattr(packages, "is_debian", lambda: True)
    assert look(EngineApi(f"unix://{places.socket}"), chosen=False) == "install"


def test_an_unknown_address_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
    assert main(["ensure"]) == 1
    assert "give unix:///PATH or tcp://HOST:PORT" in capsys.readouterr().err


def test_a_listener_that_never_answers_is_silent(places: Places) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(places.socket))
        listener.listen()
        with pytest.raises(EngineSetupError, match="timed out"):
            look(EngineApi(f"unix://{places.socket}"), chosen=True)


def test_a_stale_pid_file_is_cleared(places: Places) -> None:
    places.pid_file.write_text(str(os.getpid()))  # alive, but no dockerd: the number was given out again
    _clear_stale(places.pid_file)
    assert not places.pid_file.exists()


def test_the_pid_file_of_a_living_dockerd_is_not(
    places: Places, false_dockerd: subprocess.Popen[bytes]
) -> None:
    places.pid_file.write_text(str(false_dockerd.pid))
    with pytest.raises(EngineSetupError, match=f"process {false_dockerd.pid}"):
        _clear_stale(places.pid_file)
    assert places.pid_file.exists()


def test_only_what_was_started_is_stopped(places: Places, false_dockerd: subprocess.Popen[bytes]) -> None:
    assert stop(places) == started(places) == []
    places.state.write_text(json.dumps({"containerd": os.getpid()}))
    assert stop(places) == []  # the number now belongs to another program
    assert false_dockerd.poll() is None
    places.state.write_text(json.dumps({"dockerd": false_dockerd.pid}))
    assert started(places) == ["dockerd"]
    assert stop(places) == ["dockerd"]
    assert not places.state.exists()


APT_GET = """\
#!/bin/sh
case "$*" in
--simulate*) echo "Inst docker.io (20.10.24 Debian:12.8/stable [amd64])" ;;
*install*) cat {policy} >> {folder}/seen; test ! -e {folder}/fails ;;
esac
"""


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without systemd and without an engine, whose apt-get writes down what forbids a start."""
    policy = tmp_path / "policy-rc.d"
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(APT_GET.format(policy=policy, folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(engine, "POLICY", policy)
    monkeypatch.setattr(engine, "DAEMON_SETTINGS", tmp_path / "etc" / "daemon.json")
    monkeypatch.setattr(engine, "runs_systemd", lambda: False)
    monkeypatch.setattr(engine, "_start_by_hand", lambda *_: None)
    return tmp_path


def test_an_installation_is_recorded_and_starts_nothing_by_itself(bare: Path, places: Places) -> None:
    record = SetupRecord(bare / "record.json")
    bring("install", EngineApi("unix:///nowhere"), places, record=record)
    assert record.packages == ["docker.io"]
    assert (bare / "etc" / "daemon.json").read_text() == '{"live-restore": true}\n'
    assert list(record.files) == [str(bare / "etc" / "daemon.json")]
    assert (bare / "seen").read_text() == "#!/bin/sh\nexit 101\n", "the package started its daemon"
    assert not (bare / "policy-rc.d").exists()


def test_a_failed_installation_leaves_no_policy_and_knows_what_may_have_come(
    bare: Path, places: Places
) -> None:
    (bare / "fails").touch()
    record = SetupRecord(bare / "record.json")
    with pytest.raises(EngineSetupError, match="apt-get install"):
        bring("install", EngineApi("unix:///nowhere"), places, record=record)
    assert not (bare / "policy-rc.d").exists()
    assert SetupRecord.load(record.place).packages == ["docker.io"]


@pytest.mark.parametrize("need", ["install", "start"])
def test_a_policy_that_a_killed_set_up_has_left_is_taken_away(
    bare: Path, places: Places, need: engine.EngineNeed
) -> None:
    record = SetupRecord(bare / "record.json")
    record.write_file(bare / "policy-rc.d", "#!/bin/sh\nexit 101\n")
    bring(need, EngineApi("unix:///nowhere"), places, record=record)
    assert not (bare / "policy-rc.d").exists()
    assert str(bare / "policy-rc.d") not in SetupRecord.load(record.place).files


def test_a_policy_of_somebody_else_stays(bare: Path, places: Places) -> None:
    (bare / "policy-rc.d").write_text("#!/bin/sh\nexit 101 # mine\n")
    bring("install", EngineApi("unix:///nowhere"), places, record=SetupRecord(bare / "record.json"))
    assert (bare / "policy-rc.d").read_text().endswith("# mine\n")


def test_settings_of_an_engine_that_are_there_stay(bare: Path, places: Places) -> None:
    settings = bare / "etc" / "daemon.json"
    settings.parent.mkdir()
    settings.write_text("{}")
    record = SetupRecord(bare / "record.json")
    bring("install", EngineApi("unix:///nowhere"), places, record=record)
    assert (settings.read_text(), record.files) == ("{}", {})
