"""What is mounted where images declare volumes, and which images are refused; on an engine in memory."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from pool.clock import LoopClock
from pool.data_folder import DataFolder
from pool.engine.base import BadPath, ContainerSpec, EngineError, Image, Mount, NotFound, VolumeMount
from pool.engine.container_config import container_config
from pool.engine.memory import MemoryEngine
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.definitions.file import Definitions, FunctionDefinition
from scheduler.definitions.jobs import JobDefinition
from scheduler.deploy.images.image_volumes import (
    LOOKED_AT_BYTES,
    MAX_VOLUMES,
    ImageVolumes,
    VolumeContent,
    VolumeRefused,
    clean,
    mounts_for,
    paths_of,
    read_content,
)
from scheduler.deploy.images.runtimes import RUNTIMES
from scheduler.deploy.images.volume_images import VOLUMES_LABEL
from scheduler.jobs.starting import NotStarted

MIB = 2**20


def tar_of(files: Mapping[str, bytes | None], owner: tuple[int, int] = (0, 0)) -> bytes:
    """A tar as the engine makes it of a folder; None makes a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in {".": None, **files}.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.uid, entry.gid = owner
            entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            entry.size = len(data or b"")
            tar.addfile(entry, io.BytesIO(data or b""))
    return buffer.getvalue()


def image(*volumes: str) -> Image:
    return Image("sha256:1", ("i",), {}, 1, volumes)


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/data", "/data"),
        ("/data/", "/data"),
        ("//data", "/data"),
        ("///data//x/.", "/data/x"),
        ("/a/../../b", "/b"),
        ("/", "/"),
        ("data", None),
        ("", None),
        ("C:\\data", None),
    ],
)
def test_a_path_is_read_as_the_engine_reads_it(path: str, read: str | None) -> None:
    assert clean(path) == read


def test_each_place_is_mounted_once_and_tmp_has_its_own() -> None:
    assert paths_of(image("/data", "//data/", "/tmp", "/tmp/x", "/development")) == (
        "/data",
        "/tmp/x",
        "/development",
    )


@pytest.mark.parametrize("path", ["data", "", "/", "/..", "/proc/x", "/sys", "/dev/shm", "/x/../dev"])
def test_a_volume_where_nothing_can_be_mounted_is_refused(path: str) -> None:
    with pytest.raises(VolumeRefused, match="build it with its VOLUME at another absolute path, or without"):
        paths_of(image(path))


def test_more_volumes_than_are_taken_are_refused() -> None:
    assert len(paths_of(image(*(f"/{n}" for n in range(MAX_VOLUMES))))) == MAX_VOLUMES
    with pytest.raises(VolumeRefused, match="declares 33 volumes, and 32 are allowed"):
        paths_of(image(*(f"/{n}" for n in range(MAX_VOLUMES + 1))))


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({}, VolumeContent(None, "7:8")),
        ({"seed.txt": b"1"}, VolumeContent("/data/seed.txt", "7:8")),
        ({"folder": None}, VolumeContent("/data/folder", "7:8")),
        ({"a": None, "a/cache": None}, VolumeContent(None, "7:8")),
        ({"a": None, "a/cache": None, "a/cache/x": None}, VolumeContent("/data/a/cache/x", "7:8")),
        ({"a": None, "a/cached": None}, VolumeContent("/data/a/cached", "7:8")),
    ],
)
def test_content_is_all_but_the_folders_of_other_volumes(
    files: dict[str, bytes | None], place: VolumeContent
) -> None:
    assert read_content(tar_of(files, (7, 8)), "/data", ("/data", "/data/a/cache")) == place


def test_what_cannot_be_read_to_its_end_counts_as_content() -> None:
    large = tar_of({"big": bytes(2 * LOOKED_AT_BYTES)})[:LOOKED_AT_BYTES]
    assert read_content(large, "/data", ("/data",)).content == "/data/big"
    many = tuple(f"/data/{number:03}" for number in range(600))
    folders = tar_of({path.removeprefix("/data/"): None for path in many})
    assert read_content(folders[:LOOKED_AT_BYTES], "/data", ("/data", *many)).content == "/data"
    assert read_content(b"no tar" * 200, "/data", ("/data",)).content == "/data"
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("data"))
    assert read_content(file.getvalue(), "/data", ("/data",)) == VolumeContent("/data")


def test_a_volume_has_the_size_of_tmp_and_the_images_owner_only_with_the_images_user() -> None:
    places = {"/data": VolumeContent(None, "7:8")}
    keys = ContainerKeys(tmp_size="3MiB")
    assert mounts_for(["/data"], places, keys, copied=True) == (VolumeMount("/data", 3 * MIB),)
    keys = ContainerKeys(user="image")
    assert mounts_for(["/data"], places, keys, copied=True) == (VolumeMount("/data", 64 * MIB, "7:8"),)


def test_a_key_that_names_the_place_gives_its_content_up() -> None:
    places = {"/data": VolumeContent("/data/seed"), "/data/x": VolumeContent("/data/x/seed")}
    with pytest.raises(VolumeRefused) as refused:
        mounts_for(places, places, ContainerKeys(), copied=False)
    assert str(refused.value) == (
        "its image declares a volume at /data and has content there ('/data/seed'), which would be hidden; "
        "to start with an empty folder, write `writable: {/data: 64MiB}`; "
        "to mount a folder of the host there, write `volumes: [HOST:/data:rw]`"
    )
    below = (VolumeMount("/data/x", 64 * MIB),)
    assert mounts_for(places, places, ContainerKeys(writable={"/data": "1MiB"}), False) == below
    assert mounts_for(places, places, ContainerKeys(volumes=("/srv:/data",)), False) == below
    with pytest.raises(VolumeRefused, match="a volume at /data and"):
        mounts_for(places, places, ContainerKeys(writable={"/data/x": "1MiB"}), False)


def test_content_is_copied_where_init_can_do_that() -> None:
    places = {
        "/empty": VolumeContent(None, "1:1"),
        "/data": VolumeContent("/data/seed", "7:8"),
        "/given": VolumeContent("/given/x", "7:8"),
    }
    keys = ContainerKeys(writable={"/given": "1MiB"}, user="image")
    assert mounts_for(places, places, keys, copied=True) == (
        VolumeMount("/empty", 64 * MIB, "1:1"),
        VolumeMount("/data", 64 * MIB, "7:8", "/.hearth-volumes/1"),
    )
    with pytest.raises(VolumeRefused, match="which would be hidden"):  # the volume is a file
        mounts_for(["/data"], {"/data": VolumeContent("/data")}, ContainerKeys(), copied=True)


def test_what_is_mounted_at_the_same_path_for_another_reason_wins() -> None:
    spec = ContainerSpec(
        name="",
        image="i",
        volumes=(VolumeMount("/run/hearth", 1), VolumeMount("/function", 2), VolumeMount("/data", 3, "7:8")),
        writable=(("/function", 4),),
        mounts=(Mount("/host", "/run/hearth"),),
        user=None,
    )
    tmpfs = container_config(spec)["HostConfig"]["Tmpfs"]
    assert {path: options.split(",")[0] for path, options in tmpfs.items()} == {
        "/tmp": f"size={64 * MIB}",
        "/function": "size=4",
        "/data": "size=3",
    }
    assert tmpfs["/data"].endswith("uid=7,gid=8")


@pytest.fixture
def engine() -> MemoryEngine:
    made = MemoryEngine(LoopClock())
    made.add_image("plain")
    made.add_image("empty", volumes=("/data",), archives={"/data": tar_of({})})
    made.add_image("heavy", volumes=("/data",), archives={"/data": tar_of({"big": bytes(MIB)})})
    made.add_image("full", volumes=("/data",), archives={"/data": tar_of({"seed": b"1"})})
    return made


@pytest.fixture
async def runtime(engine: MemoryEngine, tmp_path: Path) -> AsyncIterator[Runtime]:
    made = Runtime(Settings(), DataFolder(tmp_path / "data"), engine)
    yield made
    await made.close()


def one(name: str, **keys: object) -> dict[str, FunctionDefinition]:
    return {name: FunctionDefinition.model_validate({"name": name, "image": name, **keys})}


async def test_an_image_is_looked_at_once_and_the_look_leaves_nothing(
    engine: MemoryEngine, runtime: Runtime
) -> None:
    functions = (
        one("plain") | one("empty") | {"again": FunctionDefinition(name="again", image="empty", port=80)}
    )
    await runtime.start(Definitions(functions=functions))
    assert {d.fault for d in runtime.scheduler_floor.registry.declared.values()} == {None}
    # Each image for its users, and the one with a volume for that.
    assert (engine.calls["create"], engine.calls["archive"], engine.alive()) == (3, 3, 0)
    await runtime.scheduler_floor.registry.apply(Definitions(functions=functions))
    assert engine.calls["create"] == 3
    await runtime.scheduler_floor.registry.apply(Definitions(functions=one("plain")))
    await runtime.scheduler_floor.registry.apply(Definitions(functions=functions))
    assert engine.calls["create"] == 5, "what no function uses is forgotten"
    assert engine.volumes_made == 0


async def test_an_image_with_content_is_run_with_a_copy_of_it(engine: MemoryEngine, runtime: Runtime) -> None:
    await runtime.start(Definitions(functions=one("full") | one("plain")))
    registry = runtime.scheduler_floor.registry
    await settled(runtime)
    assert {declared.fault for declared in registry.declared.values()} == {None}
    used = {w.function: w.container for w in runtime.scheduler_floor.dispatcher.workloads()}
    [volume] = used["full"].volumes
    assert (volume.path, volume.content) == ("/data", "/.hearth-volumes/0")
    assert used["full"].image != (await engine.image("full")).id
    [built] = await engine.images({VOLUMES_LABEL: ""})
    assert built.id == used["full"].image and built.labels[VOLUMES_LABEL] == '{"/data": 4096}'
    assert engine.calls["build"] == 1
    await registry.apply(Definitions(functions=one("full")))
    assert engine.calls["build"] == 1, "the engine has it"
    await registry.apply(Definitions(functions=one("full", writable={"/data": "1MiB"})))
    assert registry.declared["full"].state == "ready"
    await registry.apply(Definitions(functions=one("plain")))
    assert await engine.images({VOLUMES_LABEL: ""}) == []
    assert engine.volumes_made == 0


async def test_content_that_does_not_fit_is_the_functions_fault(
    engine: MemoryEngine, runtime: Runtime
) -> None:
    await runtime.start(Definitions(functions=one("heavy", tmp_size="64KiB")))
    await settled(runtime)
    declared = runtime.scheduler_floor.registry.declared["heavy"]
    assert declared.fault == (
        "its image has 1MiB at its volume /data, and `tmp_size` is 64KiB; write `tmp_size: 2MiB`"
    )
    assert not declared.curable


async def settled(runtime: Runtime) -> None:
    """Wait until no image is built any more."""
    async with asyncio.timeout(10):
        while any(d.state == "building" for d in runtime.scheduler_floor.registry.declared.values()):
            await asyncio.sleep(0.001)


async def test_a_job_is_refused_before_it_is_kept(engine: MemoryEngine, runtime: Runtime) -> None:
    await runtime.start(Definitions())
    job = JobDefinition(image="heavy", count=1, tmp_size="64KiB")
    with pytest.raises(NotStarted, match="has 1MiB at its volume /data") as refused:
        await runtime.scheduler_floor.job_starts.start("1", "", job)
    assert refused.value.slug == "invalid-input"


async def test_generic_instances_and_their_functions_have_the_mount_too(tmp_path: Path) -> None:
    engine = MemoryEngine(LoopClock())
    engine.add_image(RUNTIMES["python"], volumes=("/data",))
    runtime = Runtime(Settings(), DataFolder(tmp_path / "data"), engine)
    (tmp_path / "handler.py").write_text("def handle(event, context): return event")
    function = FunctionDefinition(name="f", runtime="python", source=tmp_path, handler="handler:handle")
    await runtime.start(Definitions(functions={"f": function}, prewarm={"python": 1}))
    [target] = runtime.scheduler_floor.dispatcher.prewarm.values()
    (workload,) = runtime.scheduler_floor.dispatcher.workloads()
    assert target.prototype.volumes == workload.container.volumes == (VolumeMount("/data", 64 * MIB),)
    await runtime.close()
    assert engine.volumes_made == 0


async def test_an_engine_that_makes_a_volume_all_the_same_is_noticed(runtime: Runtime) -> None:
    class Careless(MemoryEngine):
        async def create(self, spec: ContainerSpec) -> str:
            made = await super().create(spec)
            self.find(made).volumes = ("/data",)
            return made

    engine = Careless(LoopClock())
    volumes = ImageVolumes(engine, "0" * 32)
    with pytest.raises(
        VolumeRefused, match="the engine makes a volume on the host's disk for its image, at /data"
    ):
        await volumes.mounts(engine.add_image("i", volumes=("/data",)), ContainerKeys())
    assert engine.alive() == 0


async def test_a_look_that_fails_is_made_again_and_a_leftover_is_no_hindrance(engine: MemoryEngine) -> None:
    volumes = ImageVolumes(engine, "0" * 32)
    found = await engine.image("empty")
    engine.fail_next("archive", EngineError("it has a fault"))
    with pytest.raises(EngineError, match="it has a fault"):
        await volumes.mounts(found, ContainerKeys())
    engine.fail_next("remove", EngineError("not now"))
    engine.fail_next("remove", EngineError("not now"))
    with pytest.raises(EngineError, match="not now"):
        await volumes.mounts(found, ContainerKeys())
    engine.heal()
    assert await volumes.mounts(found, ContainerKeys()) == (VolumeMount("/data", 64 * MIB),)
    assert engine.alive() == 0


async def test_a_container_that_is_removed_while_it_is_looked_into_says_nothing(engine: MemoryEngine) -> None:
    class Removed(MemoryEngine):
        async def archive(self, container: str, path: str, limit: int) -> bytes:
            await self.remove(container)
            raise NotFound("it is gone")

    removing = Removed(LoopClock())
    found = removing.add_image("i", volumes=("/data",))
    with pytest.raises(EngineError, match="was removed while its image was read") as raised:
        await ImageVolumes(removing, "0" * 32).mounts(found, ContainerKeys())
    assert not isinstance(raised.value, NotFound)


async def test_a_volume_that_leads_nowhere_is_refused(engine: MemoryEngine) -> None:
    engine.fail_next("archive", BadPath("too many links"))
    with pytest.raises(
        VolumeRefused, match=r"volume at '/data', which leads nowhere \(too many links\); build it"
    ):
        await ImageVolumes(engine, "0" * 32).mounts(await engine.image("empty"), ContainerKeys())
    assert engine.alive() == 0
