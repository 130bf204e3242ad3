"""Images for requirements: what is refused, what is built, and what is kept. pip is real, its index a folder."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from wheelhouse import only_index, wheel

from pool.clock import LoopClock
from pool.engine.base import EngineInfo, Image
from pool.engine.memory import MemoryEngine
from scheduler.deploy.images.function_images import (
    ImageBuildError,
    PackageRoom,
    check_requirements,
    ensure_requirements_image,
    prune_function_images,
)
from scheduler.deploy.images.shared_builds import SharedBuilds

GATEWAY = "0123456789abcdef"


class BuildingEngine(MemoryEngine):
    """An engine on a known machine that keeps the contexts that it was given."""

    def __init__(self) -> None:
        super().__init__(LoopClock())
        self.contexts: list[bytes] = []

    async def info(self) -> EngineInfo:
        return dataclasses.replace(await super().info(), architecture="x86_64")

    async def build(self, context: bytes, tag: str, labels: Mapping[str, str]) -> Image:
        self.contexts.append(context)
        return await super().build(context, tag, labels)


@pytest.fixture
def engine() -> BuildingEngine:
    return BuildingEngine()


@pytest.fixture
def runtime(engine: BuildingEngine) -> Image:
    return engine.add_image("runtime:test", {"org.hearth.python": "3.11"})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return only_index(tmp_path / "index", monkeypatch)


async def test_builds_once_and_copies_the_packages(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path
) -> None:
    wheel(index, "pureone")
    wheel(index, "native", "cp311-abi3-manylinux_2_28_x86_64")
    image = await ensure_requirements_image(
        engine, runtime, b"pureone==1.0\nnative\n", GATEWAY, PackageRoom(tmp_path), LoopClock()
    )
    again = await ensure_requirements_image(
        engine, runtime, b"pureone==1.0\nnative\n", GATEWAY, PackageRoom(tmp_path), LoopClock()
    )
    assert again == image
    assert len(engine.contexts) == 1
    assert image.tags[0].startswith("hearth-built/01234567:")
    with tarfile.open(fileobj=io.BytesIO(engine.contexts[0])) as tar:
        assert {"packages/pureone.py", "packages/native.py"} <= set(tar.getnames())
        dockerfile = tar.extractfile("Dockerfile")
        assert dockerfile is not None
        assert dockerfile.read().decode() == f"FROM {runtime.id}\nCOPY packages /opt/deps\n"
    assert [path.name for path in tmp_path.iterdir()] == ["index"], "the packages are not left behind"


async def test_equal_requirements_are_one_image_and_one_build(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path
) -> None:
    wheel(index, "pureone")
    wheel(index, "puretwo")
    builds, told = SharedBuilds(), list[int]()
    images = await asyncio.gather(
        *(
            ensure_requirements_image(
                engine,
                runtime,
                text,
                GATEWAY,
                PackageRoom(tmp_path),
                LoopClock(),
                builds,
                lambda number=number: told.append(number),
            )
            for number, text in enumerate(
                (
                    b"pureone==1.0\npuretwo\n",
                    b"# what it needs\n\npuretwo  # two\r\npureone==1.0",
                    b"pureone==1.0\npuretwo\npuretwo\n",
                )
            )
        )
    )
    assert len({image.id for image in images}) == 1
    assert len(engine.contexts) == 1
    assert sorted(told) == [0, 1, 2], "each function says that it waits for its image"


async def test_another_machines_wheel_is_not_taken(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path
) -> None:
    wheel(index, "native", "cp311-abi3-manylinux_2_28_aarch64")
    with pytest.raises(ImageBuildError, match="No matching distribution found for native"):
        await ensure_requirements_image(
            engine, runtime, b"native\n", GATEWAY, PackageRoom(tmp_path), LoopClock()
        )


async def test_versions_with_wheels_are_named(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path
) -> None:
    wheel(index, "pureone")
    with pytest.raises(
        ImageBuildError, match=r"found for pureone==2\..*Only wheels .*There are wheels of: 1\.0\."
    ):
        await ensure_requirements_image(
            engine, runtime, b"pureone==2\n", GATEWAY, PackageRoom(tmp_path), LoopClock()
        )


async def test_a_package_without_a_wheel_is_not_built_from_source(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path
) -> None:
    with tarfile.open(index / "sourced-1.0.tar.gz", "w:gz") as source:
        metadata = b"Metadata-Version: 2.1\nName: sourced\nVersion: 1.0\n"
        entry = tarfile.TarInfo("sourced-1.0/PKG-INFO")
        entry.size = len(metadata)
        source.addfile(entry, io.BytesIO(metadata))
    with pytest.raises(ImageBuildError, match=r"found for sourced\. Only wheels .*`image`"):
        await ensure_requirements_image(
            engine, runtime, b"sourced\n", GATEWAY, PackageRoom(tmp_path), LoopClock()
        )


async def test_an_unknown_package_is_named(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path
) -> None:
    with pytest.raises(ImageBuildError) as raised:
        await ensure_requirements_image(
            engine, runtime, b"pilow\n", GATEWAY, PackageRoom(tmp_path), LoopClock()
        )
    assert str(raised.value) == (
        "requirements.txt: No matching distribution found for pilow. Only wheels for the runtime's Python are "
        "installed, nothing is built from source. Look whether the name is right. A package without wheels can go "
        "into an image of your own (`image`)"
    )
    assert engine.contexts == []


async def test_other_requirements_and_another_runtime_are_other_images(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path
) -> None:
    wheel(index, "pureone")
    newer = engine.add_image("runtime:newer", {"org.hearth.python": "3.11"})
    tags = {
        (
            await ensure_requirements_image(engine, base, text, GATEWAY, PackageRoom(tmp_path), LoopClock())
        ).tags
        for base, text in ((runtime, b"pureone\n"), (runtime, b"pureone==1.0\n"), (newer, b"pureone\n"))
    }
    assert len(tags) == 3


async def test_prune_keeps_what_is_used_and_what_others_built(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path
) -> None:
    wheel(index, "pureone")
    old = await ensure_requirements_image(
        engine, runtime, b"pureone\n", GATEWAY, PackageRoom(tmp_path), LoopClock()
    )
    used = await ensure_requirements_image(
        engine, runtime, b"pureone==1.0\n", GATEWAY, PackageRoom(tmp_path), LoopClock()
    )
    foreign = await ensure_requirements_image(
        engine, runtime, b"pureone\n", "fedcba98", PackageRoom(tmp_path), LoopClock()
    )
    assert await prune_function_images(engine, GATEWAY, {used.id}) == [old.id]
    left = await engine.images({"org.hearth.requirements": ""})
    assert {image.id for image in left} == {used.id, foreign.id}


@pytest.mark.parametrize(
    "line",
    [
        "Pillow",
        "Pillow>=11,<13",
        "requests[socks, security] ~= 2.31  # why",
        'tomli>=2; python_version < "3.11"',
        "zope.interface==6.*",
        "# only a comment",
        "idna==3.7 --hash=sha256:82fe",
        "idna==3.7 \\\n    --hash=sha256:82fe \\\n    --hash=sha256:aaaa",
    ],
)
def test_names_and_versions_are_accepted(line: str) -> None:
    check_requirements(line.encode())


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "./package",
        "../package",
        "/srv/package",
        "package @ https://example.org/p.tar.gz",
        "package@file:///srv/package",
        "git+https://example.org/p.git",
        "https://example.org/p.whl",
        "-r other.txt",
        "--no-binary=:all:",
        "--extra-index-url https://example.org",
        "package --config-settings=x=y",
        "package \\\n --config-settings=x=y",
        "package ; ${SECRET}",
    ],
)
def test_what_could_run_code_on_the_host_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ImageBuildError, match=r"requirements\.txt:2: .* is refused"):
        check_requirements(b"Pillow\n" + line.encode())


# Wheels are archives, and whoever may publish one may try to


async def test_a_decompression_bomb_is_stopped_and_leaves_nothing(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(index, "bomb", more={f"bomb-{number}": bytes(2**24) for number in range(8)})
    assert (index / "bomb-1.0-py3-none-any.whl").stat().st_size < 2**20
    with pytest.raises(ImageBuildError, match="packages are larger than 16MiB; raise HEARTH_PACKAGE_SIZE"):
        room = PackageRoom(tmp_path, most_bytes=2**24)
        await ensure_requirements_image(engine, runtime, b"bomb\n", GATEWAY, room, LoopClock())
    assert engine.contexts == []
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "bomb/../../../escaped"])
async def test_a_path_that_leaves_the_wheel_is_not_written(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path, name: str
) -> None:
    wheel(index, "bomb", more={name: b"x"})
    with pytest.raises(ImageBuildError):
        await ensure_requirements_image(
            engine, runtime, b"bomb\n", GATEWAY, PackageRoom(tmp_path), LoopClock()
        )
    assert not list(tmp_path.parent.rglob("escaped")) and not Path("/escaped").exists()
    assert engine.contexts == []


async def test_a_link_in_a_wheel_is_no_link(
    engine: BuildingEngine, runtime: Image, index: Path, tmp_path: Path
) -> None:
    link = zipfile.ZipInfo("linked")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    wheel(index, "bomb", more={link: b"/etc/shadow"})
    await ensure_requirements_image(engine, runtime, b"bomb\n", GATEWAY, PackageRoom(tmp_path), LoopClock())
    with tarfile.open(fileobj=io.BytesIO(engine.contexts[0])) as tar:
        assert all(entry.isfile() or entry.isdir() for entry in tar)
        linked = tar.extractfile("packages/linked")
        assert linked is not None and linked.read() == b"/etc/shadow"
