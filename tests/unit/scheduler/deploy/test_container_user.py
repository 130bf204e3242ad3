"""The user of a function's containers: its name, its home, and what the image knows of it."""

from __future__ import annotations

import pytest

from pool.engine.base import Image
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.deploy.container_user import container_user

PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:70:70::/home/app:/bin/sh\n"


def image(user: str = "", variables: frozenset[str] = frozenset()) -> Image:
    return Image("sha256:1", (), {}, 1, (), variables, user)


def keys(**given: object) -> ContainerKeys:
    return ContainerKeys.model_validate(given)


def test_a_uid_of_its_own_gets_its_line_when_it_is_known() -> None:
    found = container_user(keys(), image(), PASSWD)
    assert (found.user, found.passwd) == ("own", PASSWD)
    assert found.variables["HOME"] == "/tmp" and found.variables["XDG_CACHE_HOME"] == "/tmp/.cache"


@pytest.mark.parametrize(
    ("given", "users", "line"),
    [
        ({"user": "1234"}, "", b"function:x:1234:1234:"),
        ({"user": "1234:5"}, "", b"function:x:1234:5:"),
        ({"volumes": ["/a:/a:rw"]}, "", b"function:x:65532:65532:"),
        ({"user": "image"}, "1234", b"function:x:1234:0:"),
        ({"user": "image"}, "1234:5", b"function:x:1234:5:"),
    ],
)
def test_another_user_that_the_image_does_not_know_gets_a_line(
    given: dict[str, object], users: str, line: bytes
) -> None:
    found = container_user(keys(**given), image(users), PASSWD)
    assert found.passwd is not None and found.passwd.startswith(line) and found.passwd.endswith(PASSWD)
    assert found.variables["USER"] == "function"


@pytest.mark.parametrize(
    ("given", "users"),
    [({"user": "70"}, ""), ({"user": "image"}, "app"), ({"user": "image"}, "070:5"), ({"user": "image"}, "")],
)
def test_a_user_that_the_image_knows_keeps_its_name_and_home(given: dict[str, object], users: str) -> None:
    found = container_user(keys(**given), image(users), PASSWD)
    assert found.passwd is None
    assert set(found.variables) == {"XDG_CACHE_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"}


def test_what_the_image_sets_stays() -> None:
    found = container_user(keys(), image("", frozenset({"HOME", "MPLCONFIGDIR"})), PASSWD)
    assert set(found.variables) == {"USER", "LOGNAME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"}


def test_without_a_readable_file_there_are_variables_only() -> None:
    assert container_user(keys(), image(), None).passwd is None
    found = container_user(keys(user="1234"), image(), None)
    assert (found.passwd, found.variables["HOME"]) == (None, "/tmp")
