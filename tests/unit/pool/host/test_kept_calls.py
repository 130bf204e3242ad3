"""The call of a container that stays is found by the next process, as long as its folder."""

from __future__ import annotations

from pathlib import Path

from pool.data_folder import DataFolder
from pool.host.kept_calls import KeptCalls


def test_a_call_is_known_until_its_folder_goes(tmp_path: Path) -> None:
    calls = KeptCalls(tmp_path / "run")
    assert calls.of("one") == ""
    calls.drop_all_but(())
    calls.note("one", "call-1")
    calls.note("two", "call-2")
    assert (KeptCalls(tmp_path / "run").of("one"), calls.of("two")) == ("call-1", "call-2")
    calls.drop_all_but({"two"})
    assert (calls.of("one"), calls.of("two")) == ("", "call-2")
    calls.drop("two")
    calls.drop("two")
    assert not list((tmp_path / "run").iterdir())


def test_a_folder_that_cannot_be_written_fails_no_call(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    calls = KeptCalls(tmp_path / "run")
    calls.note("one", "call-1")
    assert calls.of("one") == ""


def test_the_end_of_a_gateway_leaves_the_folders_of_kept_containers(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    KeptCalls(folder.run).note("kept", "call-1")
    (folder.run / "other").mkdir()
    folder.clear()
    assert [found.name for found in folder.run.iterdir()] == ["kept"]
    KeptCalls(folder.run).drop("kept")
    folder.clear()
    assert not folder.run.exists()
    folder.close()
