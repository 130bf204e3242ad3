"""Copies of what images have at their volumes: which entries, with which owners and modes, and how much."""

from __future__ import annotations

import io
import tarfile

import pytest

from pool.engine.base import Image, VolumeMount
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.deploy.images.image_volumes import VolumeRefused
from scheduler.deploy.images.volume_images import VOLUMES_LABEL, ContentReaders, check_sizes, context_of

IMAGE = Image("sha256:1", ("i",), {}, 1, ("/data", "/data/inner", "/other"))


def folder(*entries: tuple[str, dict[str, object]]) -> bytes:
    """A tar as the engine makes it of a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, facts in ((".", {"type": tarfile.DIRTYPE, "mode": 0o750, "uid": 7}), *entries):
            entry = tarfile.TarInfo(f"./{name}" if name != "." else "./")
            for fact, value in facts.items():
                setattr(entry, fact, value)
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    return buffer.getvalue()


def copied(
    readers: set[int], *entries: tuple[str, dict[str, object]]
) -> tuple[dict[str, tarfile.TarInfo], int]:
    """The entries of the copy of /data, and its bytes."""
    tars = {"/.hearth-volumes/0": ("/data", folder(*entries))}
    context, sizes = context_of(IMAGE, tars, ContentReaders(frozenset(readers)))
    with tarfile.open(fileobj=io.BytesIO(context)) as tar:
        dockerfile = tar.extractfile("Dockerfile")
        content = tar.extractfile("content.tar")
        assert dockerfile is not None and content is not None
        assert dockerfile.read() == b"FROM sha256:1\nADD content.tar /.hearth-volumes/\n"
        with tarfile.open(fileobj=content) as inner:
            return {entry.name: entry for entry in inner}, sizes["/data"]


def test_a_copy_keeps_owners_and_can_be_read_by_whoever_runs() -> None:
    entries = (
        ("secret", {"size": 5, "mode": 0o600, "uid": 7, "gid": 8}),
        ("run", {"size": 5000, "mode": 0o4700, "uid": 7}),
        ("sub", {"type": tarfile.DIRTYPE, "mode": 0o700, "uid": 9}),
    )
    found, size = copied(set(), *entries)
    assert {name: (oct(e.mode), e.uid) for name, e in found.items()} == {
        "0": ("0o755", 7),
        "0/secret": ("0o644", 7),
        "0/run": ("0o4755", 7),
        "0/sub": ("0o755", 9),
    }
    assert found["0/secret"].gid == 8
    assert size == 4096 + 8192
    found, _ = copied({7}, *entries)
    assert [oct(found[name].mode) for name in ("0", "0/secret", "0/run", "0/sub")] == [
        *("0o750", "0o600", "0o4700", "0o755")
    ]


def test_a_copy_has_links_and_leaves_out_devices_and_what_another_volume_has() -> None:
    found, _ = copied(
        set(),
        ("a", {}),
        ("same", {"type": tarfile.LNKTYPE, "linkname": "./a"}),
        ("away", {"type": tarfile.LNKTYPE, "linkname": "inner/x"}),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "/etc/a"}),
        ("pipe", {"type": tarfile.FIFOTYPE}),
        ("null", {"type": tarfile.CHRTYPE}),
        ("inner", {"type": tarfile.DIRTYPE}),
        ("inner/x", {}),
        ("inner-most", {}),
    )
    assert set(found) == {"0", "0/a", "0/same", "0/link", "0/inner", "0/inner-most"}
    assert (found["0/same"].linkname, found["0/link"].linkname) == ("0/a", "/etc/a")


@pytest.mark.parametrize(
    ("sizes", "keys", "fault"),
    [
        ('{"/data": 67108864}', {}, None),
        ('{"/data": 67108865}', {}, "has 65MiB or more at its volume /data, and Hearth copies at most 64MiB"),
        ('{"/data": 2097152}', {"tmp_size": "1MiB"}, "`tmp_size` is 1MiB; write `tmp_size: 3MiB`"),
        ('{"/data": 8388608}', {"memory": "8MiB"}, "lie in memory, and `memory` is 8MiB; raise it"),
    ],
)
def test_content_must_fit(sizes: str, keys: dict[str, object], fault: str | None) -> None:
    known = ContainerKeys.model_validate(keys)
    volumes = (VolumeMount("/data", known.tmp_size, None, "/.hearth-volumes/0"),)
    built = Image("sha256:2", (), {VOLUMES_LABEL: sizes}, 1)
    if fault is None:
        check_sizes(built, volumes, known)
        return
    with pytest.raises(VolumeRefused, match=fault):
        check_sizes(built, volumes, known)
