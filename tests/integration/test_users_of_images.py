"""Which uids the users of images have, on the real engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import BUSYBOX_IMAGE

from pool.engine.docker import DockerEngine
from scheduler.deploy.images.image_users import ImageUsers

pytestmark = pytest.mark.engine

LINES = "printf 'root:x:0:0::/:\\napp:x:70001:5::/:\\n'"
DOCKERFILES = {
    "named": (f"FROM {BUSYBOX_IMAGE}\nRUN {LINES} > /etc/passwd\nUSER app:5\nVOLUME /data\n", {70_001}),
    "linked": (f"FROM {BUSYBOX_IMAGE}\nRUN {LINES} > /users && ln -s /users /etc/passwd\nUSER app\n", None),
    "absent": (f"FROM {BUSYBOX_IMAGE}\nUSER app\n", set()),
    "plus": (f"FROM {BUSYBOX_IMAGE}\nUSER +070001\n", {70_001}),
}


async def test_a_name_is_looked_up_where_the_engine_does(
    docker_engine: DockerEngine,
    tar_of: Callable[[dict[str, bytes]], bytes],
    test_label: dict[str, str],
) -> None:
    [session] = test_label.values()
    users = ImageUsers(docker_engine, session)
    for name, (text, uids) in DOCKERFILES.items():
        tag = f"hearth-test/user-{name}:{session}"
        await docker_engine.build(tar_of({"Dockerfile": text.encode()}), tag, test_label)
        try:
            assert await users.uids(await docker_engine.image(tag)) == uids, name
        finally:
            await docker_engine.remove_image(tag)
