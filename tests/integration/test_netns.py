"""Sockets made inside a container that has no network at all."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator

import pytest

from pool.engine.base import ContainerSpec
from pool.engine.docker import DockerEngine
from pool.host import netns

pytestmark = pytest.mark.engine

SERVER = (
    "mkdir /tmp/www && echo from-inside > /tmp/www/index.html && exec httpd -f -p 127.0.0.1:8000 -h /tmp/www"
)


@pytest.fixture
async def pid(
    docker_engine: DockerEngine, busybox_image: str, test_label: dict[str, str]
) -> AsyncIterator[int]:
    """A container without network that serves HTTP on its own loopback."""
    name = f"hearth-netns-{uuid.uuid4().hex[:8]}"
    command = ("sh", "-c", SERVER)
    spec = ContainerSpec(name=name, image=busybox_image, labels=test_label, command=command)
    container = await docker_engine.create(spec)
    await docker_engine.start(container)
    yield (await docker_engine.inspect(container)).pid
    await docker_engine.remove(container)


async def dial_when_up(pid: int, port: int) -> socket.socket:
    async with asyncio.timeout(10):
        while True:
            try:
                return await netns.dial(pid, "127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)


async def test_a_server_on_the_containers_loopback_answers(pid: int):
    home = os.stat("/proc/self/ns/net").st_ino
    assert netns.permitted() and netns.can_enter(pid)
    for _ in range(3):
        reader, writer = await asyncio.open_connection(sock=await dial_when_up(pid, 8000))
        writer.write(b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert b" 200 OK\r\n" in answer and answer.endswith(b"from-inside\n")
        writer.close()
        await writer.wait_closed()
    assert os.stat("/proc/self/ns/net").st_ino == home
    threads = [os.stat(f"/proc/self/task/{task}/ns/net").st_ino for task in os.listdir("/proc/self/task")]
    assert set(threads) == {home}


async def test_inside_is_not_our_own_loopback(pid: int):
    with socket.create_server(("127.0.0.1", 0)) as here, pytest.raises(ConnectionRefusedError):
        await netns.dial(pid, "127.0.0.1", here.getsockname()[1])
    with netns.open_socket(pid) as inside:
        assert not inside.getblocking() and inside.type == socket.SOCK_STREAM


async def test_a_dial_that_nobody_answers_can_be_given_up(pid: int):
    with netns.open_socket(pid) as listening:
        listening.bind(("127.0.0.1", 9000))
        listening.listen(0)
        held = []
        with pytest.raises(TimeoutError):
            for _ in range(10):
                async with asyncio.timeout(0.3):
                    held.append(await netns.dial(pid, "127.0.0.1", 9000))
        for opened in held:
            opened.close()


async def test_the_handle_outlives_the_process(
    docker_engine: DockerEngine, busybox_image: str, test_label: dict[str, str]
):
    name = f"hearth-netns-{uuid.uuid4().hex[:8]}"
    container = await docker_engine.create(ContainerSpec(name=name, image=busybox_image, labels=test_label))
    await docker_engine.start(container)
    pid = (await docker_engine.inspect(container)).pid
    namespace = netns.Namespace(pid)
    await docker_engine.remove(container)
    assert not netns.can_enter(pid)
    with pytest.raises(OSError):
        netns.open_socket(pid)
    with pytest.raises(ConnectionRefusedError):  # empty, and not the namespace of whoever has the pid next
        await namespace.dial("127.0.0.1", 8000)
    namespace.close()
    namespace.close()
    with pytest.raises(OSError, match="closed"):
        namespace.open_socket()


def test_our_own_namespace_is_refused():
    assert not netns.can_enter(os.getpid())
    neighbour = subprocess.Popen(["sleep", "10"])
    try:
        with pytest.raises(OSError, match="our own network namespace"):
            netns.Namespace(neighbour.pid)
    finally:
        neighbour.kill()
        neighbour.wait()


async def test_no_file_stays_open(pid: int):
    netns.open_socket(pid).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        netns.open_socket(pid).close()
        netns.can_enter(pid)
        netns.can_enter(os.getpid())
    assert len(os.listdir("/proc/self/fd")) == before
