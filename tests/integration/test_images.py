"""The images that make images builds, as they are on the engine."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from wheelhouse import only_index, wheel

from gateway.setup import images
from gateway.setup.engine_api import EngineApi
from pool.clock import LoopClock
from pool.engine.docker import DockerEngine
from scheduler.deploy.images.function_images import (
    PackageRoom,
    ensure_requirements_image,
    prune_function_images,
)
from scheduler.deploy.images.runtimes import BASE_IMAGE, EXAMPLE_IMAGES, REQUIRED_IMAGES, RUNTIMES
from tests.support.containers import Containers, containers

pytestmark = pytest.mark.engine
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def docker() -> AsyncIterator[Containers]:
    async with containers() as found:
        yield found


async def run(
    docker: Containers, label: dict[str, str], image: str, *command: str, entrypoint: str | None = None
) -> str:
    """Return what a container without network and with a read-only root prints."""
    config = {
        "Image": image,
        "Cmd": list(command),
        "Labels": label,
        "NetworkDisabled": True,
        "HostConfig": {"ReadonlyRootfs": True},
        **({"Entrypoint": [entrypoint]} if entrypoint else {}),
    }
    container = await docker.create(config)
    try:
        await docker.start(container)
        await docker.wait(container)
        return await docker.output(container)
    finally:
        await docker.remove(container)


def test_everything_is_present_and_check_says_so() -> None:
    engine = EngineApi()
    found = {recipe.tag: images.state(engine, recipe) for recipe in images.recipes()}
    assert found == dict.fromkeys(REQUIRED_IMAGES, "present")
    check = subprocess.run(
        [sys.executable, "-m", "gateway.setup.images", "--check"], cwd=ROOT, capture_output=True
    )
    assert (check.returncode, check.stdout) == (0, b"")


def test_a_changed_file_makes_its_image_outdated(tmp_path: Path) -> None:
    engine = EngineApi()
    recipe = next(recipe for recipe in images.recipes() if recipe.tag == RUNTIMES["python"])
    changed = tmp_path / "shim.py"
    shutil.copy(recipe.files["shim.py"], changed)
    same = dataclasses.replace(recipe, files={**recipe.files, "shim.py": changed})
    assert images.state(engine, same) == "present"
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert images.state(engine, same) == "outdated"
    assert images.state(engine, dataclasses.replace(recipe, tag="hearth-test/none:latest")) == "missing"


async def test_the_base_has_all_of_python_compiled(docker: Containers, test_label: dict[str, str]) -> None:
    program = (
        "import asyncio, bz2, ctypes, curses, lzma, readline, sqlite3, ssl, tomllib, uuid, zoneinfo, pathlib;"
        "assert ssl.create_default_context().cert_store_stats()['x509_ca'] > 50;"
        "modules = list(pathlib.Path(asyncio.__file__).parent.glob('*.py'));"
        "assert all(pathlib.Path(__import__('importlib.util').util.cache_from_source(m)).exists() for m in modules);"
        "print('whole')"
    )
    assert await run(docker, test_label, BASE_IMAGE, "python3", "-c", program) == "whole\n"


async def test_the_runtime_has_a_shell_time_zones_and_authorities(
    docker: Containers, test_label: dict[str, str]
) -> None:
    """What stock packages look for on any system: each of these was missing once."""
    program = (
        "import datetime, os, ssl, subprocess, time, zoneinfo;"
        "assert subprocess.check_output('ls /bin/sh | head -c 4', shell=True) == b'/bin';"
        "assert len(zoneinfo.available_timezones()) > 400;"
        "zone = zoneinfo.ZoneInfo('Europe/Berlin');"
        "assert datetime.datetime(2026, 7, 1, tzinfo=zone).utcoffset() == datetime.timedelta(hours=2);"
        "os.environ['TZ'] = 'Asia/Tokyo'; time.tzset(); assert time.timezone == -9 * 3600;"
        "assert os.path.getsize('/etc/ssl/certs/ca-certificates.crt') > 100_000;"
        "assert ssl.create_default_context().cert_store_stats()['x509_ca'] > 50;"
        "print('whole')"
    )
    image = RUNTIMES["python"]
    assert await run(docker, test_label, image, "-c", program, entrypoint="python3") == "whole\n"


async def test_the_base_carries_nothing_of_this_machine(
    docker: Containers, test_label: dict[str, str]
) -> None:
    program = (
        "import os; print(os.path.exists('/etc/apt/sources.list'), os.path.exists('/etc/apt/auth.conf.d'))"
    )
    listed = await run(docker, test_label, BASE_IMAGE, "python3", "-c", program)
    official = await docker.image(BASE_IMAGE)
    assert listed == "False False\n" or "PYTHON_VERSION" in str(official["Config"]["Env"])


async def test_the_runtime_image_says_what_it_is(docker: Containers) -> None:
    config = (await docker.image(RUNTIMES["python"]))["Config"]
    assert config["User"] == "65532:65532"
    assert config["Labels"]["org.hearth.runtime"] == "python"
    assert config["Labels"]["org.hearth.python"].startswith("3.")
    assert config["Entrypoint"][:4] == ["python3", "-I", "-S", "-E"]


async def test_busybox_has_its_commands(docker: Containers, test_label: dict[str, str]) -> None:
    assert await run(docker, test_label, EXAMPLE_IMAGES[0], "sh", "-c", "echo one two | wc -w") == "2\n"


async def test_a_function_image_imports_its_requirements(
    docker: Containers,
    docker_engine: DockerEngine,
    test_label: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    wheel(only_index(tmp_path / "index", monkeypatch), "pureone")
    gateway = test_label["org.hearth.test"]
    runtime = await docker_engine.image(RUNTIMES["python"])
    image = await ensure_requirements_image(
        docker_engine, runtime, b"pureone\n", gateway, PackageRoom(tmp_path), LoopClock()
    )
    try:
        program = "import sys; sys.path.insert(0, '/opt/deps'); import pureone; print(pureone.ANSWER)"
        assert await run(docker, test_label, image.id, "-c", program, entrypoint="python3") == "42\n"
        assert image.labels["org.hearth.gateway"] == gateway
    finally:
        assert await prune_function_images(docker_engine, gateway, set()) == [image.id]
