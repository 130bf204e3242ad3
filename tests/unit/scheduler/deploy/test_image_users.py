"""Which uids an image's own user may stand for."""

from __future__ import annotations

import pytest

from scheduler.deploy.images.image_look import LOOKED_AT_BYTES
from scheduler.deploy.images.image_users import file_in, uids_named
from tests.unit.scheduler.deploy.test_registry import tar_of_file

PASSWD = b"root:x:0:0::/:/bin/sh\n  app:x:+0070:5::/:\napp:x:71:5::/:\nodd:x:many:5::/:\nshort:x\nlast:x:72"


@pytest.mark.parametrize(
    ("name", "uids"),
    [("app", {70, 71}), ("odd", {0}), ("last", {72}), ("short", set()), ("ap", set()), ("nobody", set())],
)
def test_every_line_of_a_name_counts(name: str, uids: set[int]) -> None:
    """The engine takes the first; to know of all is safe whatever it takes."""
    assert uids_named(name, PASSWD) == uids


def test_only_a_whole_file_is_read() -> None:
    assert file_in(tar_of_file(PASSWD)) == PASSWD
    large = tar_of_file(b"app:x:70:5::/:\n" * LOOKED_AT_BYTES)[:LOOKED_AT_BYTES]
    assert file_in(large) is None
    assert file_in(b"") is None
    assert file_in(b"no tar") is None
