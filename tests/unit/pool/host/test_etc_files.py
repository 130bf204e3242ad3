"""Files of ours in `/etc` of containers: what they say, who gets them, and when they go."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool.engine.base import ContainerSpec, Mount
from pool.host.etc_files import EtcFiles, contents, hosts_text


def test_localhost_and_the_containers_own_names_are_both_addresses() -> None:
    assert hosts_text(("a", "hearth-a"), ipv6=True) == (
        "127.0.0.1\tlocalhost a hearth-a\n::1\tlocalhost ip6-localhost ip6-loopback a hearth-a\n"
    )
    assert hosts_text(("a",), ipv6=False) == "127.0.0.1\tlocalhost a\n"


@pytest.mark.parametrize(
    ("network", "targets", "wanted"),
    [
        (None, (), {"/etc/hosts", "/etc/passwd"}),
        (None, ("/data", "/etc/hosts.d"), {"/etc/hosts", "/etc/passwd"}),
        (None, ("/etc/hosts",), {"/etc/passwd"}),
        (None, ("/etc/passwd",), {"/etc/hosts"}),
        (None, ("/etc",), set()),
        ("bridge", (), {"/etc/passwd"}),
    ],
)
def test_hosts_is_for_who_has_no_network_and_nothing_replaces_what_is_mounted(
    network: str | None, targets: tuple[str, ...], wanted: set[str]
) -> None:
    mounts = tuple(Mount("/h", target) for target in targets)
    spec = ContainerSpec(name="", image="", network=network, mounts=mounts, passwd=b"root:x:0:0::/:\n")
    assert {path for path, _ in contents(spec, ("a",), True)} == wanted


def test_an_image_that_knows_the_user_keeps_its_own_passwd() -> None:
    spec = ContainerSpec(name="", image="", network="bridge")
    assert list(contents(spec, ("a",), True)) == []


def test_files_can_be_read_by_everybody_and_go_by_their_instance(tmp_path: Path) -> None:
    files = EtcFiles(tmp_path / "etc")
    files.drop_all_but({"a"})
    spec = ContainerSpec(name="hearth-a", image="", passwd=b"line\n")
    mounts = [mount for id in ("a", "b", "c") for mount in files.mounts(id, spec)]
    assert [(Path(m.source).name, m.target, m.read_only) for m in mounts] == [
        (f"{id}.{name}", f"/etc/{name}", True) for id in ("a", "b", "c") for name in ("hosts", "passwd")
    ]
    assert {Path(mount.source).stat().st_mode & 0o777 for mount in mounts} == {0o644}
    assert "localhost a hearth-a\n" in Path(mounts[0].source).read_text()
    assert Path(mounts[1].source).read_bytes() == b"line\n"
    files.drop("a")
    files.drop("a")
    assert {file.stem for file in (tmp_path / "etc").iterdir()} == {"b", "c"}
    files.drop_all_but({"c"})
    assert sorted(file.name for file in (tmp_path / "etc").iterdir()) == ["c.hosts", "c.passwd"]
