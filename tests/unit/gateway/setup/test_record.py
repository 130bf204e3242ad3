"""The record of what setup has brought."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.setup.record import MACHINE_RECORD, RecordError, SetupRecord, default_place


def test_everything_noted_is_on_disk_at_once(tmp_path: Path) -> None:
    place = tmp_path / "state" / "setup.json"
    record = SetupRecord.load(place)
    assert record.empty and not place.exists()
    record.add_packages(["runc", "docker.io"])
    record.add_packages(["docker.io", "mmdebstrap"])
    record.add_image("unix:///a", "hearth-base:latest")
    record.add_image("unix:///a", "hearth-base:latest")
    record.add_service("hearth")
    record.write_file(tmp_path / "etc" / "daemon.json", "{}\n")
    again = SetupRecord.load(place)
    assert again == record
    assert again.packages == ["runc", "docker.io", "mmdebstrap"]
    assert again.images == {"unix:///a": ["hearth-base:latest"]}


def test_an_empty_record_is_no_file(tmp_path: Path) -> None:
    record = SetupRecord.load(tmp_path / "setup.json")
    record.add_service("hearth")
    record.services.clear()
    record.save()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_changed_is_no_longer_ours(tmp_path: Path) -> None:
    record = SetupRecord.load(tmp_path / "setup.json")
    file = tmp_path / "daemon.json"
    record.write_file(file, "{}\n")
    assert record.is_ours(str(file))
    file.write_text('{"debug": true}\n')
    assert not record.is_ours(str(file))
    file.unlink()
    assert not record.is_ours(str(file))


DAMAGED = ("{", "[]", '{"packages": ', '{"packages": [], "images": {}, "files": [], "services": []}')


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_named_with_what_to_do(tmp_path: Path, content: str) -> None:
    place = tmp_path / "setup.json"
    place.write_text(content)
    with pytest.raises(RecordError, match=r"setup\.json, the record of what setup has brought.*mend it"):
        SetupRecord.load(place)


def test_it_lies_where_the_user_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_place() == MACHINE_RECORD
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_place() == tmp_path / ".local" / "state" / "hearth" / "setup.json"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert default_place() == tmp_path / "state" / "hearth" / "setup.json"
