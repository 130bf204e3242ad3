"""init as the first process of real containers, of images that know nothing of us."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pool.contracts.init_place import INIT_FOLDER, with_init
from pool.engine.base import ContainerSpec, Mount, VolumeMount
from pool.engine.docker import DockerEngine
from tests.support.init_builds import built_init
from tests.support.init_process import GatewaySide, until

pytestmark = pytest.mark.engine

DOCKERFILE = """\
FROM scratch
LABEL name={name}
COPY busybox /busybox
"""
"""With a label first: layers that another session builds as well would go with its images."""
RSS_LIMIT = 2**20
"""Bytes of memory that init may have."""
SIZE_LIMIT = 100 * 1000
"""Bytes that the program may have."""

Start = Callable[..., Awaitable[GatewaySide]]
Tar = Callable[[dict[str, bytes]], bytes]


@pytest.fixture
def side() -> Iterator[GatewaySide]:
    made = GatewaySide()
    yield made
    made.close()


@pytest.fixture
async def build(
    docker_engine: DockerEngine, test_label: dict[str, str], tar_of: Tar
) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Returns a function that builds an image with one static program, busybox, and further lines."""
    made = []

    async def build(more: str) -> str:
        name = uuid.uuid4().hex
        text = DOCKERFILE.format(name=name) + more
        files = {"Dockerfile": text.encode(), "busybox": Path("/bin/busybox").read_bytes()}
        tag = f"hearth-test/init:{name}"
        made.append((await docker_engine.build(tar_of(files), tag, test_label)).id)
        return made[-1]

    yield build
    for container in await docker_engine.containers(test_label):
        await docker_engine.remove(container.id)
    for image in made:
        await docker_engine.remove_image(image)


@pytest.fixture
def start(
    docker_engine: DockerEngine, test_label: dict[str, str], side: GatewaySide, tmp_path: Path
) -> Callable[..., Awaitable[str]]:
    """Returns a function that starts a container of an image with init, and returns its id."""
    place = tmp_path / "init"
    place.mkdir()
    shutil.copy(built_init(), place / "init")
    for folder in (place, *place.parents[:1]):
        folder.chmod(0o755)

    async def start(image: str, *flags: str, **keys: Any) -> str:
        found = await docker_engine.image(image)
        spec = ContainerSpec(
            name=f"hearth-test-{side.folder.name}",
            image=image,
            labels=test_label,
            program=(*found.entrypoint, *found.command),
            mounts=(Mount(str(side.folder), "/run/hearth"),),
        )
        spec = with_init(replace(spec, **keys), Mount(str(place), INIT_FOLDER), flags)
        container = await docker_engine.create(spec)
        await docker_engine.start(container)
        return container

    return start


async def test_an_image_of_one_static_program_serves(
    build: Callable[[str], Awaitable[str]], start: Start, side: GatewaySide, docker_engine: DockerEngine
) -> None:
    image = await build(
        'ENTRYPOINT ["/busybox", "sh", "-c"]\nCMD ["echo up; exec /busybox httpd -f -p 127.0.0.1:80"]'
    )
    container = await start(image, "--serve", "--calls", "2")
    assert side.line() == b"up"
    slot, other = side.slot(), side.slot()
    until(lambda: slot.ask(b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n\r\n").status == 200)
    slot.send(b"GET /busybox HTTP/1.0\r\n\r\n")
    status, fields = slot.head()
    assert (status, int(fields["content-length"])) == (200, Path("/bin/busybox").stat().st_size)
    side.slot()
    answer = other.run("/busybox", "ps", "-o", "pid,args")
    assert (
        answer.body.splitlines()[1].split() == [b"1", b"/.hearth/init", b"--serve"] or b"init" in answer.body
    )
    other.run("/busybox", "killall", "-9", "busybox")
    assert await docker_engine.wait(container) == 137


async def test_user_folder_and_variables_of_the_image_stay(
    build: Callable[[str], Awaitable[str]], start: Start, side: GatewaySide
) -> None:
    image = await build(
        'USER 1234:5678\nWORKDIR /srv/here\nENV FROM=image\nENTRYPOINT ["/busybox"]\nCMD ["id", "-u"]'
    )
    await start(image, "--wait", "--calls", "1", user=None)
    slot = side.slot()
    assert slot.run().body == b"1234\n"
    assert slot.run("/busybox", "id", "-g").body == b"5678\n"
    assert slot.run("/busybox", "pwd").body == b"/srv/here\n"
    assert b"FROM=image\n" in slot.run("/busybox", "env").body
    assert b"FROM=call\n" in slot.run("/busybox", "env", env={"FROM": "call"}).body


async def test_the_root_is_read_only_and_memory_is_not(
    build: Callable[[str], Awaitable[str]], start: Start, side: GatewaySide
) -> None:
    await start(await build('CMD ["/busybox"]'), "--wait", "--calls", "1")
    slot = side.slot()
    for path, status in (("/file", 403), ("/.hearth/init", 403), ("/tmp/file", 200)):
        head = f"PUT /files{path} HTTP/1.1\r\ncontent-length: 4\r\n\r\n"
        assert slot.ask(head.encode() + b"text").status == status
    assert slot.run("/busybox", "cat", "/tmp/file").body == b"text"


async def test_a_volume_gets_its_content_from_the_layer_that_holds_it(
    build: Callable[[str], Awaitable[str]], start: Start, side: GatewaySide
) -> None:
    lines = [
        'RUN ["/busybox", "mkdir", "-p", "/held/deep"]',
        'RUN ["/busybox", "cp", "/busybox", "/held/deep/tool"]',
        'RUN ["/busybox", "chown", "-R", "1234:5678", "/held"]',
        "VOLUME /data\nUSER 1234:5678",
        'CMD ["/busybox", "stat", "-c", "%n %u %g %a", "/data/deep/tool"]',
    ]
    volume = VolumeMount("/data", 16 * 2**20, "1234:5678")
    image = await build("\n".join(lines))
    await start(image, "--serve", "--copy", "/held=/data", user=None, volumes=(volume,))
    assert side.printed_to_the_end() == b"/data/deep/tool 1234 5678 755\n"


@pytest.mark.parametrize("user", ["65532:65532", "0:0"])
async def test_no_user_looks_into_init(
    build: Callable[[str], Awaitable[str]], start: Start, side: GatewaySide, user: str
) -> None:
    await start(await build('CMD ["/busybox"]'), "--wait", "--calls", "1", user=user)
    slot = side.slot()
    for path in ("environ", "mem", "maps", "root/", "cwd/"):
        tried = slot.run(
            "/busybox", "sh", "-c", f"/busybox ls /proc/1/{path} >/dev/null && exec </proc/1/{path}"
        )
        assert tried.fields["x-hearth-status"] != "0", path
    # Root sees their numbers, which say nothing, and can open none.
    numbers = range(16)
    links = [f"/proc/1/fd/{number}" for number in numbers]
    assert slot.run("/busybox", "readlink", *links).body == b""
    for number in numbers:
        tried = slot.run("/busybox", "sh", "-c", f"exec </proc/1/fd/{number}")
        assert tried.fields["x-hearth-status"] != "0", number
    assert slot.run("/busybox", "kill", "-9", "1").status == 200
    assert slot.run("/busybox", "echo", "still here").body == b"still here\n"


async def test_init_is_small(
    build: Callable[[str], Awaitable[str]], start: Start, side: GatewaySide, docker_engine: DockerEngine
) -> None:
    container = await start(await build('CMD ["/busybox", "true"]'), "--wait", "--calls", "16")
    slots = [side.slot() for _ in range(16)]
    for slot in slots:
        slot.run()
    pid = (await docker_engine.inspect(container)).pid
    facts = Path(f"/proc/{pid}/status").read_text().split()
    assert int(facts[facts.index("VmRSS:") + 1]) * 1024 < RSS_LIMIT
    assert built_init().stat().st_size < SIZE_LIMIT


async def test_what_escapes_from_a_run_s_group_is_dead_before_the_next(
    build: Callable[[str], Awaitable[str]], start: Start, side: GatewaySide
) -> None:
    await start(await build('CMD ["/busybox", "true"]'), "--wait", "--calls", "1")
    slot = side.slot()
    slot.run(
        "/busybox",
        "sh",
        "-c",
        "for i in 1 2 3; do (/busybox setsid /busybox sleep 1000 &) ; done; exec /busybox true",
    )
    listed = json.loads(slot.ask(b"GET /files/proc HTTP/1.1\r\n\r\n").body)
    assert [entry["name"] for entry in listed["entries"] if entry["name"].isdigit()] == ["1"]
