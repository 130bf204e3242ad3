"""Images that declare volumes, on the real engine: whatever is run of them, it makes none."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from harness import BASE_IMAGE, BUSYBOX_IMAGE, EngineView, Gateway, eventually
from wheelhouse import only_index, wheel

from pool.clock import LoopClock
from pool.engine.docker import DockerEngine
from pool.host.uids import DEFAULT_UIDS
from pool.observe.metrics import Metrics
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.deploy.images.function_images import PackageRoom, ensure_requirements_image
from scheduler.deploy.images.image_volumes import ImageVolumes
from scheduler.deploy.images.runtimes import RUNTIMES

pytestmark = pytest.mark.engine

MIB = 2**20
WRITE = "dd if=/dev/zero of=$PLACE/big bs=1M count=512 2>/dev/null; stat -c %s $PLACE/big; id -u"
SERVER = """
import http.server, os
class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            with open("/data/big", "wb", 0) as file:
                for _ in range(80):
                    file.write(bytes(2**20))
        except OSError as error:
            answer = f"{error.strerror} at {os.stat('/data/big').st_size}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
http.server.HTTPServer(("", 8000), Server).serve_forever()
"""
DOCKERFILES = {
    # Odd paths, one below /tmp, one inside another, the working folder, and one that a link leads to.
    "odd": f"""
        FROM {BUSYBOX_IMAGE}
        RUN mkdir -p /data/inner /real /work && ln -s /real /link
        WORKDIR /work
        VOLUME ["/data", "/data/inner", "//slashes/", "/a/../dots", "/tmp", "/tmp/x", "/link", "/work", "/a b:c,d"]
    """,
    "owned": f"""
        FROM {BUSYBOX_IMAGE}
        RUN mkdir -m 700 /data && chown 1234:1234 /data
        USER 1234
        VOLUME /data
    """,
    "full": f"FROM {BUSYBOX_IMAGE}\nCOPY Dockerfile /data/seed\nVOLUME /data\n",
    "linked": f"FROM {BUSYBOX_IMAGE}\nRUN ln -s /etc /data\nVOLUME /data\n",
    "relative": f"FROM {BUSYBOX_IMAGE}\nVOLUME data\n",
    "server": f"FROM {BASE_IMAGE}\nVOLUME /data\n",
    "runtime": f"FROM {RUNTIMES['python']}\nVOLUME /data\n",
    "packages": f"FROM {RUNTIMES['python']}\nVOLUME /opt/deps\n",
}


@pytest.fixture(scope="module")
def images(
    tar_of: Callable[[dict[str, bytes]], bytes], test_label: dict[str, str]
) -> Iterator[Mapping[str, str]]:
    """Images by the names above, and no more volumes on the engine afterwards than before."""
    # Of their own: what has the session's label is others', too, and goes with it below.
    [label] = test_label
    session = uuid.uuid4().hex
    tags = {name: f"hearth-test/volumes-{name}:{session}" for name in DOCKERFILES}

    async def build() -> None:
        engine = DockerEngine(None, Metrics())
        try:
            for name, tag in tags.items():
                await engine.build(tar_of({"Dockerfile": DOCKERFILES[name].encode()}), tag, {label: session})
        finally:
            await engine.close()

    view = EngineView()
    try:
        asyncio.run(build())
        yield tags
    finally:
        view.remove_all(f"{label}={session}")


@pytest.fixture
def no_volume() -> Iterator[Callable[[], set[str]]]:
    """Fail if the engine has a volume at the end that it did not have."""
    view = EngineView()

    def volumes() -> set[str]:
        return {volume["Name"] for volume in view.request("GET", "/volumes")["Volumes"] or ()}

    before = volumes()
    yield lambda: volumes() - before
    assert volumes() - before == set()


def written(answer: httpx.Response) -> tuple[int, bool]:
    """Bytes that a container could write, and whether it ran as a uid of its own."""
    size, uid = map(int, answer.text.split())
    return size, DEFAULT_UIDS.first <= uid <= DEFAULT_UIDS.last


def test_nothing_that_is_run_of_them_writes_to_the_engines_disk(
    tmp_path: Path, images: Mapping[str, str], no_volume: Callable[[], set[str]]
) -> None:
    def writes(image: str, place: str, **keys: object) -> dict[str, object]:
        words = ["sh", "-c", WRITE.replace("$PLACE", f"'{place}'")]
        return {"image": images[image], "command": words, "memory": "256MiB", **keys}

    odd = (
        "/data",
        "/data/inner",
        "/slashes",
        "/dots",
        "/tmp",
        "/tmp/x",
        "/link",
        "/real",
        "/work",
        "/a b:c,d",
    )
    functions: dict[str, dict[str, object]] = {
        f"odd-{number}": writes("odd", place, tmp_size="2MiB") for number, place in enumerate(odd)
    }
    functions |= {
        "sized": writes("odd", "/data", writable={"/data": "3MiB"}),
        "owned": writes("owned", "/data", user="image"),
        "emptied": writes("full", "/data", writable={"/data": "1MiB"}),
        "server": {
            "image": images["server"],
            "port": 8000,
            "command": ["python3", "-c", SERVER],
            "memory": "256MiB",
        },
    }
    for name in ("full", "linked", "relative"):
        functions[name] = {"image": images[name], "command": ["true"]}
    with Gateway(tmp_path, functions) as gateway:
        shown = {f["name"]: f for f in gateway.http.get("/functions").json()}
        assert {name for name, function in shown.items() if function["state"] != "ready"} == {
            "full",
            "linked",
            "relative",
        }
        assert "content there ('/data/seed')" in shown["full"]["fault"]
        assert "write `writable: {/data: 64MiB}`" in shown["full"]["fault"]
        assert "volume at /data and has content there" in shown["linked"]["fault"]
        assert "declares a volume at 'data', where nothing may be mounted" in shown["relative"]["fault"]
        assert gateway.call("full").json()["type"].endswith(":function-failed")
        for number, place in enumerate(odd):
            assert written(gateway.call(f"odd-{number}")) == (2 * MIB, True), place
            assert no_volume() == set(), place
        assert written(gateway.call("sized")) == (3 * MIB, True)
        assert gateway.call("owned").text.split() == [str(64 * MIB), "1234"]
        assert written(gateway.call("emptied")) == (MIB, True)
        assert gateway.call("server").text == f"No space left on device at {64 * MIB}"
        job = {
            "image": images["odd"],
            "command": ["sh", "-c", "> /data/x && pwd"],
            "count": 2,
            "remove": "none",
        }
        place = gateway.http.post("/jobs", json=job).headers["location"]
        eventually(lambda: gateway.http.get(place).json()["status"] == "succeeded", 20)
        assert no_volume() == set(), "the job's containers are still there"
        refused = gateway.http.post("/jobs", json={"image": images["full"], "count": 1})
        assert refused.status_code == 422 and "has content there" in refused.text
        assert gateway.http.delete(place).status_code == 204


async def test_images_built_for_requirements_keep_the_volumes_of_their_runtime(
    tmp_path: Path,
    images: Mapping[str, str],
    no_volume: Callable[[], set[str]],
    docker_engine: DockerEngine,
    test_label: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wheel(only_index(tmp_path / "index", monkeypatch), "spam")
    [session] = test_label.values()
    for name, fault in (("runtime", None), ("packages", "has content there ('/opt/deps/")):
        runtime = await docker_engine.image(images[name])
        built = await ensure_requirements_image(
            docker_engine, runtime, b"spam", session, PackageRoom(tmp_path), LoopClock()
        )
        try:
            assert no_volume() == set()
            volumes = ImageVolumes(docker_engine, session)
            if fault is None:
                [mount] = await volumes.mounts(built, ContainerKeys())
                assert mount.path == "/data"
            else:
                with pytest.raises(Exception, match="its image declares a volume at /opt/deps") as refused:
                    await volumes.mounts(built, ContainerKeys())
                assert fault in str(refused.value)
        finally:
            await docker_engine.remove_image(built.id)
