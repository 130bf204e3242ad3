"""What is read from a cgroup's files, in the words of both kernels' layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool.host.cgroup import Cgroup


@pytest.mark.parametrize(
    ("unified", "file", "text"),
    [
        (True, "memory.events", "low 0\nhigh 0\nmax 7\noom 4\noom_kill 3\noom_group_kill 0\n"),
        (False, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
    ],
)
def test_processes_that_were_killed_for_want_of_memory(
    tmp_path: Path, unified: bool, file: str, text: str
) -> None:
    (tmp_path / file).write_text(text)
    assert Cgroup(tmp_path, tmp_path, unified).memory_kills() == 3
    with pytest.raises(OSError):
        Cgroup(tmp_path / "gone", tmp_path, unified).memory_kills()
