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
    # A file that only its owner may read, one more name of it, and one in a volume inside.
    "content": f"""
        FROM {BUSYBOX_IMAGE}
        RUN mkdir -p /data/inner /data/sub && echo private > /data/sub/secret && echo deep > /data/inner/file \\
            && echo seed > /data/seed && ln /data/seed /data/again && ln -s seed /data/link \\
            && chmod 600 /data/sub/secret && chmod 700 /data/sub && chmod 640 /data/seed && chown -R 1234:5 /data
        USER 1234:5
        VOLUME ["/data", "/data/inner"]
    """,
    "large": f"FROM {BUSYBOX_IMAGE}\nRUN mkdir /data && dd if=/dev/zero of=/data/big bs=1M count=3\nVOLUME /data\n",
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
    functions["relative"] = {"image": images["relative"], "command": ["true"]}
    functions["large"] = {"image": images["large"], "command": ["true"], "tmp_size": "2MiB"}
    with Gateway(tmp_path, functions) as gateway:
        shown = settled(gateway)
        assert {name for name, function in shown.items() if function["state"] != "ready"} == {
            "large",
            "relative",
        }
        assert (
            "has 3MiB at its volume /data, and `tmp_size` is 2MiB; write `tmp_size: "
            in shown["large"]["fault"]
        )
        assert "declares a volume at 'data', where nothing may be mounted" in shown["relative"]["fault"]
        assert gateway.call("large").json()["type"].endswith(":function-failed")
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
        refused = gateway.http.post("/jobs", json={"image": images["large"], "count": 1, "tmp_size": "2MiB"})
        assert refused.status_code == 422 and "has 3MiB at its volume /data" in refused.text
        assert gateway.http.delete(place).status_code == 204


LOOK = """
cd /data && cat seed again link sub/secret inner/file && echo more >> seed && cat seed
stat -c '%n %a %u:%g' sub sub/secret seed inner/file; cp /dev/null sub/new && ls sub
"""
SERVER_OF_CONTENT = ["httpd", "-f", "-p", "8000", "-h", "/data"]
CONTENT = ["seed", "seed", "seed", "private", "deep", "seed", "more"]


def settled(gateway: Gateway) -> dict[str, dict[str, str]]:
    """All functions, once no image of one is built: the gateway does not wait for that."""
    shown: dict[str, dict[str, str]] = {}

    def all_built() -> bool:
        shown.update({function["name"]: function for function in gateway.http.get("/functions").json()})
        return not any(function["state"] == "building" for function in shown.values())

    eventually(all_built, 60)
    return shown


def built_for(gateway: Gateway) -> list[str]:
    """Images that a gateway has built."""
    filters = {"label": [f"org.hearth.gateway={gateway.identity}"]}
    return [image["Id"] for image in gateway.engine.request("GET", "/images/json", filters=filters)]


def test_content_of_an_image_is_in_its_volumes_and_can_be_changed(
    tmp_path: Path, images: Mapping[str, str], no_volume: Callable[[], set[str]]
) -> None:
    look: dict[str, object] = {"image": images["content"], "command": ["sh", "-c", LOOK]}
    functions: dict[str, dict[str, object]] = {
        "own": look,
        "theirs": look | {"user": "image"},
        "site": {"image": images["content"], "command": SERVER_OF_CONTENT, "port": 8000},
        "linked": {"image": images["linked"], "command": ["ls", "/data", "/etc"]},
    }
    with Gateway(tmp_path, functions) as gateway:
        assert {function["fault"] for function in settled(gateway).values()} == {None}
        for _ in range(2):  # each container has it anew
            *printed, sub, secret, seed, inner, new, again = gateway.call("own").text.splitlines()
            assert printed == CONTENT and (new, again) == ("new", "secret")
            uid, gid = sub.split()[2].split(":")
            assert DEFAULT_UIDS.first <= int(uid) <= DEFAULT_UIDS.last and gid == "65532"
            assert [line.split()[1] for line in (sub, secret, seed, inner)] == ["755", "644", "644", "644"]
        *printed, sub, secret, seed, inner, new, again = gateway.call("theirs").text.splitlines()
        assert printed == CONTENT and (new, again) == ("new", "secret")
        assert [sub, secret, seed] == ["sub 700 1234:5", "sub/secret 600 1234:5", "seed 640 1234:5"]
        assert gateway.http.get("/invoke/site/inner/file").text == "deep\n"
        assert "passwd" in gateway.call("linked").text
        job = {"image": images["content"], "command": ["cat", "/data/seed"], "count": 1}
        place = gateway.http.post("/jobs", json=job).headers["location"]
        eventually(lambda: gateway.http.get(place).json()["status"] == "succeeded", 20)
        assert len(built_for(gateway)) == 3, "one for each reader, and that of the image with the link"
        gateway.declare({"own": look})
        eventually(lambda: len(built_for(gateway)) == 1, 20)
        assert no_volume() == set()


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
