"""`/etc/hosts` of containers without a network: what it says, who gets one, and when it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool.engine.base import ContainerSpec, Mount
from pool.host.hosts_files import HostsFiles, hosts_text, wants_hosts


def test_localhost_and_the_containers_own_names_are_both_addresses() -> None:
    assert hosts_text(("a", "hearth-a"), ipv6=True) == (
        "127.0.0.1\tlocalhost a hearth-a\n::1\tlocalhost ip6-localhost ip6-loopback a hearth-a\n"
    )
    assert hosts_text(("a",), ipv6=False) == "127.0.0.1\tlocalhost a\n"


@pytest.mark.parametrize(
    ("network", "targets", "wanted"),
    [
        (None, (), True),
        (None, ("/data", "/etc/hosts.d"), True),
        (None, ("/etc/hosts",), False),
        (None, ("/etc",), False),
        ("bridge", (), False),
    ],
)
def test_it_is_for_who_has_no_network_and_no_file_of_its_own(
    network: str | None, targets: tuple[str, ...], wanted: bool
) -> None:
    spec = ContainerSpec(name="", image="", network=network, mounts=tuple(Mount("/h", t) for t in targets))
    assert wants_hosts(spec) is wanted


def test_files_can_be_read_by_everybody_and_go_by_their_instance(tmp_path: Path) -> None:
    files = HostsFiles(tmp_path / "hosts")
    files.drop_all_but({"a"})
    mounts = [files.mount(id, (id,)) for id in ("a", "b", "c")]
    assert [(Path(m.source).name, m.target, m.read_only) for m in mounts] == [
        (id, "/etc/hosts", True) for id in ("a", "b", "c")
    ]
    assert Path(mounts[0].source).stat().st_mode & 0o777 == 0o644
    assert "localhost a\n" in Path(mounts[0].source).read_text()
    files.drop("a")
    files.drop("a")
    assert sorted(file.name for file in (tmp_path / "hosts").iterdir()) == ["b", "c"]
    files.drop_all_but({"c"})
    assert [file.name for file in (tmp_path / "hosts").iterdir()] == ["c"]
