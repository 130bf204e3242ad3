"""Records: whole or not there, and never one that gives an instance to somebody else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pool.adoption.records import FORMAT, Records, left_warm, read
from pool.clock import VirtualClock
from pool.contracts.handler import HANDLER, is_as_recorded, read_status
from pool.engine.base import ContainerSpec
from pool.errors import StartFailed
from pool.instance import Instance
from pool.workload import Order, Workload

SPEC = ContainerSpec(name="", image="i")
FUNCTION = Workload(function="f", version="1", contract=HANDLER, container=SPEC)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records", VirtualClock())


def instance(workload: Workload | None = None) -> Instance:
    return Instance("0123", "i", 128, workload, 0.0)


def test_a_record_is_read_back_by_another_process(records: Records, tmp_path: Path) -> None:
    records.note(instance(FUNCTION), SPEC, ready=False)
    records.update("0123", ready=True, served=7)
    [(id, record)] = Records(tmp_path / "records", VirtualClock()).load().items()
    assert (id, record.function, record.version, record.ready, record.served) == ("0123", "f", "1", True, 7)
    assert left_warm(tmp_path / "records") == {"0123"}
    records.drop("0123")
    records.drop("0123")
    assert not records.has("0123")
    assert records.load() == {}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"id": "0123"}', '{"id": "0123", "surprise": 1}', "\x00" * 9]
)
def test_what_is_no_record_counts_for_nothing(records: Records, tmp_path: Path, content: str) -> None:
    file = tmp_path / "records" / "0123.json"
    file.parent.mkdir()
    file.write_text(content)
    assert records.load() == {}
    assert not file.exists()


def test_a_record_of_another_format_or_name_counts_for_nothing(records: Records, tmp_path: Path) -> None:
    records.note(instance(), SPEC, ready=True)
    file = tmp_path / "records" / "0123.json"
    content = json.loads(file.read_text())
    file.with_name("4567.json").write_text(json.dumps(content))
    assert read(file.with_name("4567.json")) is None
    file.write_text(json.dumps(content | {"format": FORMAT + 1}))
    assert records.load() == {}


def test_a_record_that_cannot_be_written_leaves_none(
    records: Records, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk: the instance serves, and a restart removes it. It does not stay what it was before."""
    records.note(instance(), SPEC, ready=True)
    (tmp_path / "records" / "0123.new").mkdir()  # where the new one would be written
    records.note(instance(FUNCTION), SPEC, ready=False)
    assert "a restart will not adopt it" in caplog.text
    assert not records.has("0123")
    assert not (tmp_path / "records" / "0123.json").exists()


def test_an_older_record_that_cannot_be_taken_away_is_an_error(records: Records, tmp_path: Path) -> None:
    file = tmp_path / "records" / "0123.json"
    file.mkdir(parents=True)  # can neither be replaced by a file nor removed as one
    with pytest.raises(OSError, match="0123"):
        records.note(instance(FUNCTION), SPEC, ready=False)


def test_the_shape_is_of_all_that_an_instance_is_made_of() -> None:
    shapes = {
        Records.shape_of(SPEC, None),
        Records.shape_of(replace(SPEC, memory=1), None),
        Records.shape_of(replace(SPEC, pids=1), None),
        Records.shape_of(SPEC, FUNCTION),
        Records.shape_of(SPEC, replace(FUNCTION, version="2")),
        Records.shape_of(SPEC, replace(FUNCTION, order=Order(b'{"log_limit": 1}', Path("x")))),
        Records.shape_of(SPEC, replace(FUNCTION, order=Order(b'{"log_limit": 2}', Path("x")))),
    }
    assert len(shapes) == 7
    elsewhere = replace(FUNCTION, order=Order(b'{"log_limit": 2}', Path("y")))
    assert Records.shape_of(SPEC, elsewhere) in shapes


STATUS = {"specialised": True, "function": "f", "version": "1", "slots": 1, "failed": False}


def test_an_instance_has_to_say_what_its_record_says() -> None:
    assert is_as_recorded(STATUS, FUNCTION)
    assert is_as_recorded({"specialised": False}, None)
    assert not is_as_recorded(STATUS, None)
    assert not is_as_recorded({"specialised": False}, FUNCTION)
    assert not is_as_recorded({}, None)
    for key, other in (("function", "g"), ("version", "2"), ("failed", True), ("specialised", 1)):
        assert not is_as_recorded(STATUS | {key: other}, FUNCTION)


class FakeAnswer:
    def __init__(self, status: int, *pieces: bytes) -> None:
        self.status = status
        self.pieces = [*pieces, b""]

    async def read(self) -> bytes:
        return self.pieces.pop(0)


async def test_a_status_is_a_json_object_of_bounded_size() -> None:
    assert await read_status(FakeAnswer(200, b'{"specia', b'lised": false}')) == {"specialised": False}  # type: ignore[arg-type]
    for answer in (
        FakeAnswer(500, b"{}"),
        FakeAnswer(200, b"[]"),
        FakeAnswer(200, b"\xff"),
        FakeAnswer(200, *(100 * [b" " * 1024])),
    ):
        with pytest.raises(StartFailed, match="does not say what it is"):
            await read_status(answer)  # type: ignore[arg-type]
