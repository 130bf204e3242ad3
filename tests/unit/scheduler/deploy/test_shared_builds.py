"""Equal images that are wanted at once are built once."""

from __future__ import annotations

import asyncio

import pytest

from pool.engine.base import Image
from scheduler.deploy.images.function_images import ImageBuildError
from scheduler.deploy.images.shared_builds import SharedBuilds

IMAGE = Image("sha256:one", ("one",), {}, 1)


class Builder:
    """A build that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self.fault: Exception | None = None

    async def __call__(self) -> Image:
        self.begun += 1
        await self.go_on.wait()
        if self.fault is not None:
            raise self.fault
        return IMAGE


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_whoever_comes_during_a_build_gets_its_image() -> None:
    builds, build = SharedBuilds(), Builder()
    asked = [asyncio.ensure_future(builds.once("one", build)) for _ in range(3)]
    await turns()
    other = asyncio.ensure_future(builds.once("two", build))
    await turns()
    assert build.begun == 2, "another tag is another build"
    build.go_on.set()
    assert await asyncio.gather(*asked, other) == [IMAGE] * 4
    assert await builds.once("one", build) is IMAGE
    assert build.begun == 3, "nothing is remembered: the engine knows what it has"


async def test_everybody_gets_the_fault() -> None:
    builds, build = SharedBuilds(), Builder()
    build.fault = ImageBuildError("no such package")
    asked = [asyncio.ensure_future(builds.once("one", build)) for _ in range(3)]
    await turns()
    build.go_on.set()
    assert await asyncio.gather(*asked, return_exceptions=True) == [build.fault] * 3
    assert build.begun == 1


async def test_if_the_builder_is_cancelled_the_next_one_builds() -> None:
    builds, build = SharedBuilds(), Builder()
    first, second, third = (asyncio.ensure_future(builds.once("one", build)) for _ in range(3))
    await turns()
    first.cancel()
    await turns()
    assert build.begun == 2
    third.cancel()
    await turns()
    build.go_on.set()
    assert await second is IMAGE
    with pytest.raises(asyncio.CancelledError):
        await third
    assert build.begun == 2, "who only waited takes nobody's build away"
