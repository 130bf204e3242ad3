"""Fixtures of every test that needs a real engine: the engine itself, and a small image without network.

And how long Hypothesis looks: seconds, or hours with `pytest --hypothesis-profile=long --timeout=0`.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from turns import pytest_collection_modifyitems, pytest_runtest_protocol  # noqa: F401  (hooks: pytest finds them here)

from pool.engine.docker import DockerEngine
from pool.observe.metrics import Metrics

# What a gateway process has compiled, the next one need not: every test of one starts some.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile(
    "short",
    deadline=None,  # machines are slow at times
    print_blob=True,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
settings.register_profile("long", settings.get_profile("short"), max_examples=100_000)
if settings.get_current_profile_name() != "long":
    settings.load_profile("short")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `tests/endurance` understands: `make chaos` and `make soak` give it minutes."""
    group = parser.getgroup("endurance")
    group.addoption("--seconds", type=float, default=10, help="how long its load lasts (10)")
    group.addoption("--seed", type=int, default=1, help="where its choices come from (1)")


TEST_LABEL = "org.hearth.test"
"""Marks everything that a test session makes on the engine; its value is the session's own."""

BUSYBOX = Path("/bin/busybox")
DOCKERFILE = b"""\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN ["/bin/busybox", "mkdir", "/srv"]
ENV PATH=/bin
CMD ["sleep", "3600"]
"""


def pack(files: dict[str, bytes]) -> bytes:
    """A build context: files by name, all executable."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="session")
def tar_of() -> Callable[[dict[str, bytes]], bytes]:
    """`pack`, for tests."""
    return pack


@pytest.fixture(scope="session")
def test_label() -> dict[str, str]:
    return {TEST_LABEL: uuid.uuid4().hex}


@pytest.fixture(scope="session")
def busybox_image(test_label: dict[str, str]) -> Iterator[str]:
    """Id of an image with nothing but Debian's static busybox; removed with its containers at the end."""
    assert BUSYBOX.exists(), "the tests on the real engine need Debian's busybox-static package"
    tag = f"hearth-test/busybox:{test_label[TEST_LABEL]}"

    async def build() -> str:
        engine = DockerEngine(None, Metrics())
        try:
            context = pack({"Dockerfile": DOCKERFILE, "busybox": BUSYBOX.read_bytes()})
            return (await engine.build(context, tag, test_label)).id
        finally:
            await engine.close()

    async def clean() -> None:
        engine = DockerEngine(None, Metrics())
        try:
            for container in await engine.containers(test_label):
                await engine.remove(container.id)
            for image in await engine.images(test_label):
                await engine.remove_image(image.id)
        finally:
            await engine.close()

    try:
        yield asyncio.run(build())
    finally:
        asyncio.run(clean())


@pytest.fixture
def docker_metrics() -> Metrics:
    """Return the metrics in which `docker_engine` counts."""
    return Metrics()


@pytest.fixture
async def docker_engine(test_label: dict[str, str], docker_metrics: Metrics) -> AsyncIterator[DockerEngine]:
    """The real engine; what the test left of its own on it is removed."""
    engine = DockerEngine(None, docker_metrics)
    try:
        yield engine
        for container in await engine.containers(test_label):
            await engine.remove(container.id)
        for network in await engine.networks(test_label):
            await engine.remove_network(network.name)
    finally:
        await engine.close()
