"""The first hour of a new user, outside of any checkout: an empty engine, and Hearth from its wheel."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness import eventually, free_port
from outside import ROOT, Outside, build_wheel
from own_engine import OwnEngine

from gateway.setup.service import ServicePlaces, SystemService

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("ip"),
        reason="starting an engine needs root, dockerd and ip",
    ),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    """An engine without images."""
    made = OwnEngine()
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory, wheel: Path, engine: OwnEngine) -> Outside:
    """A new user on a machine where `hearth setup` has run."""
    made = Outside(tmp_path_factory.mktemp("user"), wheel, DOCKER_HOST=f"unix://{engine.socket}")
    refused = made.run("hearth", "setup", status=1)
    assert "build hearth-base, hearth-runtime/python, hearth-example/busybox" in refused
    assert refused.endswith("To agree: hearth setup --yes\n")
    assert "Building hearth-base:latest: done in" in made.run("hearth", "setup", "--yes")
    return made


def test_the_wheel_has_all_that_is_not_python(wheel: Path) -> None:
    """Each file beside our modules is in it, but for what Python itself leaves there."""
    there = {
        str(path.relative_to(ROOT))
        for package in ("gateway", "scheduler", "pool", "runtimes")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert there - packed == set()
    assert {"runtimes/init/main.c", f"runtimes/init/bin/init-{platform.machine()}"} <= packed
    assert "gateway/setup/files/hearth.service" in packed and "gateway/setup/recipes/base/passwd" in packed
    assert {name.partition("/")[0] for name in packed if ".dist-info/" not in name} == {
        "gateway",
        "scheduler",
        "pool",
        "runtimes",
    }


def test_nothing_of_development_is_needed(user: Outside) -> None:
    listing = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    names = set(user.run("python", "-c", listing).split())
    assert {"hearth-faas", "pip", "uvicorn"} <= names
    assert user.run("python", "-m", "pip", "--version").startswith("pip "), "functions' requirements need it"
    assert names & {"pytest", "ruff", "mypy", "setuptools", "hypothesis", "redis", "matplotlib"} == set()


def test_what_is_there_is_not_brought_again(user: Outside) -> None:
    said = user.run("hearth", "setup")
    assert said.startswith("Ready: engine ") and "hearth init hello" in said


GREETS = """\
import time


def handle(event, context):
    time.sleep(event.get("seconds", 0))
    print("greeting", event["name"])
    return {"message": f"Hello, {event['name']}!"}
"""
MISTAKE = GREETS.replace('event["name"])', 'event["nmae"])')
CALL = ("hearth", "invoke", "greet", "--data", '{"name": "Ada"}')


@pytest.fixture(scope="module")
def colleague(tmp_path_factory: pytest.TempPathFactory) -> Outside:
    """Somebody who calls functions, and has hearth-client and nothing else of ours."""
    folder = tmp_path_factory.mktemp("colleague")
    wheel = build_wheel(
        folder, ROOT / "clients" / "python", ("hearth", "pyproject.toml", "README.md", "LICENSE")
    )
    return Outside(folder, wheel)


def test_write_fail_find_mend_and_call(user: Outside, colleague: Outside) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    user.environment["HEARTH_URL"] = colleague.environment["HEARTH_URL"] = url
    user.run("hearth", "new", "greet")
    code = user.folder / "greet" / "functions" / "greet" / "handler.py"
    with user.running("hearth", "dev", "greet", f"--port={port}", until=url) as dev:
        assert "Hello, Ada!" in user.run(*CALL)
        assert dev.says("greeting Ada")

        code.write_text(MISTAKE)
        eventually(
            lambda: httpx.post(f"{url}/invoke/greet", json={"name": "Ada"}, timeout=30).status_code >= 500, 30
        )
        assert eventually(lambda: dev.says("KeyError: 'nmae'"))
        (failed,) = json.loads(user.run("hearth", "calls", "--failed", "--json"))
        assert (failed["function"], failed["blame"]) == ("greet", "function")
        assert failed["id"][:8] in user.run("hearth", "calls", "--failed")
        assert "KeyError: 'nmae'" in user.run("hearth", "logs", failed["id"][:8])

        code.write_text(GREETS)
        eventually(
            lambda: httpx.post(f"{url}/invoke/greet", json={"name": "Ada"}, timeout=30).status_code == 200, 30
        )
        program = "from hearth import Client; print(Client().call('greet', {'name': 'Grace'})['message'])"
        assert colleague.run("python", "-c", program) == "Hello, Grace!\n"
        assert dev.end() == 0


def test_serve_queue_and_find_again_after_a_kill(user: Outside, colleague: Outside) -> None:
    user.run("hearth", "init", "hello", "--dir", "greet")
    serve = ("hearth", "serve", "--functions=greet/functions.yaml", "--data-dir=greet/.hearth")
    port = colleague.environment["HEARTH_URL"].rpartition(":")[2]
    with user.running(*serve, f"--port={port}", until="Hearth serves on") as gateway:
        assert "Hello, Ada!" in user.run("hearth", "invoke", "hello", "--data", '{"name": "Ada"}')
        submit = (
            "from hearth import Client; print(Client().submit('greet', {'name': 'Ada', 'seconds': 1}).id)"
        )
        call = colleague.run("python", "-c", submit).strip()
        gateway.end(signal.SIGKILL)
    with user.running(*serve, f"--port={port}", until="Hearth serves on") as gateway:
        find = f"from hearth import Client; print(Client().future('{call}').result(timeout=30)['message'])"
        assert colleague.run("python", "-c", find) == "Hello, Ada!\n"
        assert "Hello, Ada!" in user.run("hearth", "result", call[:8])
        assert gateway.end() == 0


def test_the_service_can_do_all_that_root_can(user: Outside, tmp_path: Path) -> None:
    """What hearth doctor tries out works under those restrictions of the unit that a test can impose."""
    unit = SystemService(ServicePlaces(data_dir=tmp_path)).text()
    kept = [
        word.lower().removeprefix("cap_")
        for line in re.findall("CapabilityBoundingSet=(.*)", unit)
        for word in line.split()
    ]
    assert "ReadWritePaths=" + str(tmp_path) in unit and "ProtectSystem=strict" in unit
    only_data = 'mount --make-rprivate / && mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
    sandbox = [
        *("unshare", "--mount", "sh", "-c", only_data, str(tmp_path)),
        *(
            "setpriv",
            "--no-new-privs",
            "--inh-caps=-all",
            "--bounding-set=-all," + ",".join(f"+{name}" for name in kept),
        ),
    ]
    doctor = [str(user.bin / "hearth"), "doctor", "--json", f"--data-dir={tmp_path}"]
    default = {**user.environment, "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    del default["DOCKER_HOST"]

    def states(command: list[str]) -> dict[str, str]:
        done = subprocess.run(command, env=default, capture_output=True, text=True)
        assert done.stdout, done.stderr
        return {check["name"]: check["state"] for check in json.loads(done.stdout)["checks"]}

    outside = states(doctor)
    assert {
        outside[name] for name in ("sockets in namespaces", "direct limits", "freezer", "socket folders")
    } == {"ok"}
    assert states([*sandbox, *doctor]) == outside
    without = [word.replace("+sys_admin,", "") for word in sandbox]
    assert states([*without, *doctor])["sockets in namespaces"] == "warning", "the sandbox restricts nothing"


def test_what_was_brought_goes_and_nothing_else(user: Outside, engine: OwnEngine) -> None:
    """Runs last. The functions stay."""
    user.run("hearth", "init", "mine")
    said = user.run("hearth", "setup", "--remove", "--yes")
    assert "hearth-base:latest, hearth-runtime/python:latest" in said
    assert "Removed what setup had brought." in said
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(engine.socket)), base_url="http://engine"
    ) as client:
        assert client.get("/images/json").json() == []
    assert (user.folder / "functions" / "mine" / "handler.py").exists()
    assert "Nothing to remove" in user.run("hearth", "setup", "--remove")
