"""Containers on a protected bridge, the host and the world, on the real engine with real rules.

Each thing that is forbidden is first seen to work without the rule, or answered to somebody else: a test of
silence alone would pass on a network that is simply broken."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from pool.engine.base import ContainerSpec
from pool.engine.docker import DockerEngine
from pool.host import firewall
from tests.support.containers import containers

pytestmark = pytest.mark.engine

METADATA = "169.254.169.254"
HOST = "198.51.100.7"
OUTSIDE = "203.0.113.9"
SERVE = "while true; do echo hello | nc -l -p 8000 -w 2; done"


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def prefix() -> Iterator[str]:
    """Names of this test's interfaces begin so."""
    name = f"ht{uuid.uuid4().hex[:6]}"
    yield name
    rules = subprocess.run(["iptables", "-S"], capture_output=True, text=True).stdout
    assert name not in rules and name not in ip("-o", "link")


@pytest.fixture
def host_address(prefix: str) -> Iterator[str]:
    """A further address of the host itself."""
    device = f"{prefix}d"
    ip("link", "add", device, "type", "bridge")
    try:
        ip("address", "add", f"{HOST}/32", "dev", device)
        ip("link", "set", device, "up")
        yield HOST
    finally:
        ip("link", "del", device)


@pytest.fixture
def world(prefix: str) -> Iterator[None]:
    """Another machine, as a namespace behind a link: it has the metadata address and one of the internet's."""
    namespace, here, there = f"{prefix}w", f"{prefix}h", f"{prefix}t"
    ip("netns", "add", namespace)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", namespace)
        ip("address", "add", "198.18.0.1/30", "dev", here)
        ip("link", "set", here, "up")
        inside = ("-n", namespace)
        ip(*inside, "address", "add", "198.18.0.2/30", "dev", there)
        ip(*inside, "address", "add", f"{METADATA}/32", "dev", there)
        ip(*inside, "address", "add", f"{OUTSIDE}/32", "dev", there)
        ip(*inside, "link", "set", there, "up")
        ip(*inside, "route", "add", "default", "via", "198.18.0.1")
        ip("route", "add", f"{METADATA}/32", "via", "198.18.0.2")
        ip("route", "add", f"{OUTSIDE}/32", "via", "198.18.0.2")
        server = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "/bin/busybox", "sh", "-c", SERVE_FOR_EVER]
        )
        try:
            yield
        finally:
            server.kill()
            server.wait()
    finally:
        for process in ip("netns", "pids", namespace).split():
            subprocess.run(["kill", "-9", process], check=False)
        ip("netns", "del", namespace)


SERVE_FOR_EVER = SERVE.replace("nc ", "/bin/busybox nc ")


@pytest.fixture
async def bridge(docker_engine: DockerEngine, prefix: str, test_label: dict[str, str]) -> AsyncIterator[str]:
    """An egress network, not protected yet; the names of its bridge and of the network are the same."""
    await docker_engine.create_network(prefix, prefix, False, test_label)
    yield prefix
    await firewall.unprotect(prefix)
    for container in await docker_engine.containers(test_label):
        await docker_engine.remove(container.id)
    await docker_engine.remove_network(prefix)


class Probe:
    """A container on the bridge that serves port 8000 and can be asked what it reaches."""

    def __init__(self, engine: DockerEngine, container: str, address: str) -> None:
        self.engine, self.container, self.address = engine, container, address

    async def reaches(self, address: str, port: int = 8000) -> bool:
        command = ["sh", "-c", f"echo | nc -w 2 {address} {port}"]
        async with containers() as docker:
            said = await docker.execute(self.container, *command)
        return b"hello" in said


@pytest.fixture
async def probes(docker_engine, busybox_image, test_label, bridge) -> list[Probe]:
    made = []
    for number in range(2):
        spec = ContainerSpec(
            name=f"{bridge}-{number}",
            image=busybox_image,
            labels=test_label,
            command=("sh", "-c", SERVE),
            network=bridge,
        )
        container = await docker_engine.create(spec)
        await docker_engine.start(container)
        state = await docker_engine.inspect(container)
        made.append(Probe(docker_engine, container, state.addresses[bridge]))
    return made


@contextlib.asynccontextmanager
async def listener(address: str) -> AsyncIterator[int]:
    """A server of the host on this address; its port."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, address, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def host_reaches(address: str, port: int = 8000) -> bool:
    try:
        async with asyncio.timeout(5):
            while True:
                try:
                    reader, writer = await asyncio.open_connection(address, port)
                except ConnectionRefusedError:  # between two rounds of the loop of nc
                    await asyncio.sleep(0.05)
                    continue
                said = await reader.read()
                writer.close()
                await writer.wait_closed()
                return said == b"hello\n"
    except TimeoutError:
        return False


def gateway_of(bridge: str) -> str:
    return ip("-o", "-4", "address", "show", bridge).split()[3].split("/")[0]


async def test_the_host_can_be_protected_here():
    assert await firewall.why_unavailable() is None


async def test_a_protected_bridge_reaches_only_the_world(probes, bridge, host_address, world):
    first, second = probes
    gateway = gateway_of(bridge)
    async with listener(gateway) as near, listener(host_address) as far:
        assert await first.reaches(gateway, near) and await first.reaches(host_address, far)
        assert await first.reaches(METADATA) and await first.reaches(OUTSIDE)

        await firewall.protect(bridge)
        assert not await first.reaches(gateway, near)
        assert not await first.reaches(host_address, far)
        assert not await first.reaches(METADATA)
        assert not await first.reaches(second.address)
        assert not await second.reaches(first.address)
        assert await first.reaches(OUTSIDE)
        assert await host_reaches(first.address) and await host_reaches(second.address)

        await firewall.unprotect(bridge)
        assert await first.reaches(gateway, near) and await first.reaches(METADATA)
        # Between themselves the network's own switch holds still.
        assert not await first.reaches(second.address)


async def test_rules_are_set_once_found_again_and_all_removed(prefix):
    def rules() -> list[str]:
        listed = [
            subprocess.run([p, "-S"], capture_output=True, text=True).stdout
            for p in ("iptables", "ip6tables")
        ]
        return [line for line in "".join(listed).splitlines() if f"-i {prefix}a " in line]

    bridge, other = f"{prefix}a", f"{prefix}b"
    try:
        await firewall.protect(bridge)
        await firewall.protect(bridge)
        await firewall.protect(other)
        assert len(rules()) == 5 and all(firewall.COMMENT in rule and "-j DROP" in rule for rule in rules())
        assert await firewall.protected_bridges(prefix) == [bridge, other]
        assert await firewall.protected_bridges(f"{prefix}b") == [other]
        subprocess.run(firewall.RULES[1].arguments("-D", bridge), check=True)
        assert await firewall.protected_bridges(bridge) == [bridge]  # half of it is still found
        await firewall.protect(bridge)
        assert len(rules()) == 5
    finally:
        await firewall.unprotect(bridge)
        await firewall.unprotect(bridge)
        await firewall.unprotect(other)
    assert rules() == [] and await firewall.protected_bridges(prefix) == []


async def test_many_bridges_at_once(prefix):
    names = [f"{prefix}{number}" for number in range(6)]
    try:
        await asyncio.gather(*(firewall.protect(name) for name in names))
        assert await firewall.protected_bridges(prefix) == names
    finally:
        await asyncio.gather(*(firewall.unprotect(name) for name in names))
    assert await firewall.protected_bridges(prefix) == []


async def test_a_rule_that_cannot_be_set_is_an_error_and_leaves_nothing(prefix):
    too_long = f"{prefix}-name-too-long-for-an-interface"
    with pytest.raises(firewall.FirewallError, match="iptables"):
        await firewall.protect(too_long)
    assert await firewall.protected_bridges(prefix) == []


async def test_without_iptables_the_reason_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert await firewall.why_unavailable() == "there is no iptables command; install the package iptables"
