"""init's verb `files`, and `--copy`."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.init_builds import Program
from tests.support.init_process import Answer, InitProcess, Slot

LIMIT = 64 * 2**20
"""Bytes of the largest file that init reads or writes."""


@pytest.fixture
def slot(program: Program) -> Iterator[Slot]:
    with InitProcess(program, ["--wait", "--calls", "1"]) as init:
        yield init.slot()


def ask(slot: Slot, method: str, path: Path | str, fields: str = "", body: bytes = b"") -> Answer:
    head = f"{method} /files{quote(str(path))} HTTP/1.1\r\n{fields}content-length: {len(body)}\r\n\r\n"
    return slot.ask(head.encode() + body)


def test_a_file_goes_in_and_comes_out(slot: Slot, tmp_path: Path) -> None:
    file, data = tmp_path / "new" / "folder" / "ü % file", os.urandom(1_000_000)
    written = ask(slot, "PUT", file, "x-hearth-mode: 750\r\n", data)
    assert (written.status, json.loads(written.body)) == (200, {"size": len(data)})
    assert file.read_bytes() == data and stat.S_IMODE(file.stat().st_mode) == 0o750
    read = ask(slot, "GET", file)
    assert (read.status, read.body, read.fields["x-hearth-mode"]) == (200, data, "750")
    assert ask(slot, "DELETE", file).status == 200
    assert list(file.parent.iterdir()) == []
    assert ask(slot, "DELETE", file.parent).status == 200 and not file.parent.exists()


def test_a_chunked_body_replaces_a_file_whole(slot: Slot, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    slot.send(f"PUT /files{file} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nnew\r\n".encode())
    slot.send(b"0\r\n\r\n")
    assert slot.answer().status == 200
    assert file.read_text() == "new" and stat.S_IMODE(file.stat().st_mode) == 0o644


def test_a_gateway_that_goes_away_leaves_the_old_file(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with InitProcess(program, ["--wait", "--calls", "1"]) as init:
        slot = init.slot()
        slot.send(f"PUT /files{file} HTTP/1.1\r\ncontent-length: 10\r\n\r\nnew".encode())
        slot.close()
        init.slot()
        assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("path", ["/proc/net/tcp", "/proc/self/status", "/proc/mounts"])
def test_files_of_the_kernel_are_read_to_their_end(slot: Slot, path: str) -> None:
    answer = ask(slot, "GET", path)
    assert (
        answer.status == 200
        and len(answer.body.splitlines()) >= len(Path(path).read_bytes().splitlines()) // 2
    )


def test_an_empty_file_is_read(slot: Slot, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    answer = ask(slot, "GET", tmp_path / "empty")
    assert (answer.status, answer.body) == (200, b"")


def test_a_folder_is_listed(slot: Slot, tmp_path: Path) -> None:
    names = {f"name {number} \"'\\ \n ü" for number in range(300)}
    for name in names:
        (tmp_path / name).write_text("four")
    (tmp_path / "link").symlink_to("/nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / os.fsdecode(b"bad \xff")).touch()
    os.mkfifo(tmp_path / "fifo")
    listed = json.loads(ask(slot, "GET", tmp_path).body)
    found = {entry["name"]: (entry["type"], entry["size"]) for entry in listed["entries"]}
    assert listed["complete"] and all(found.pop(name) == ("file", 4) for name in names)
    kinds = {"link": "link", "folder": "folder", "bad \ufffd": "file", "fifo": "other"}
    assert {name: kind for name, (kind, _) in found.items()} == kinds


def test_a_folder_is_listed_up_to_a_bound(slot: Slot, tmp_path: Path) -> None:
    for number in range(4097):
        (tmp_path / str(number)).touch()
    listed = json.loads(ask(slot, "GET", tmp_path).body)
    assert (len(listed["entries"]), listed["complete"]) == (4096, False)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/dev/null", 403),
        ("DELETE", "/nowhere", 404),
        ("DELETE", "/etc", 400),
        ("PUT", "/proc/nothing/of/this", 404),
        ("PUT", "/etc", 400),
        ("POST", "/etc", 400),
        ("GET", "/" + "x" * 5000, 400),
    ],
)
def test_what_cannot_be_done_is_said_and_the_connection_stays(
    slot: Slot, method: str, path: str, status: int
) -> None:
    for _ in range(2):
        answer = ask(slot, method, path)
        assert answer.status == status and json.loads(answer.body)["message"]


def test_files_over_the_limit_are_refused(slot: Slot, tmp_path: Path) -> None:
    file = tmp_path / "big"
    with file.open("wb") as big:
        big.truncate(LIMIT + 1)
    assert ask(slot, "GET", file).status == 413
    slot.send(f"PUT /files{file} HTTP/1.1\r\ncontent-length: {LIMIT + 1}\r\n\r\n".encode())
    assert slot.answer().status == 413 and slot.ended()


def test_a_file_of_the_largest_size_is_read(slot: Slot, tmp_path: Path) -> None:
    file = tmp_path / "big"
    with file.open("wb") as big:
        big.truncate(LIMIT)
    assert len(ask(slot, "GET", file).body) == LIMIT


@pytest.mark.parametrize("mode", ["", "8", "1777", "rw"])
def test_a_mode_must_be_octal(slot: Slot, tmp_path: Path, mode: str) -> None:
    assert ask(slot, "PUT", tmp_path / "file", f"x-hearth-mode: {mode}\r\n").status == 400


def test_a_volume_s_content_is_copied_before_the_program_starts(program: Program, tmp_path: Path) -> None:
    image, volume = tmp_path / "image", tmp_path / "volume"
    (image / "deep" / "er").mkdir(parents=True)
    volume.mkdir()
    files = {"file": 0o640, "deep/program": 0o4755, "deep/er/secret": 0o400}
    for name, mode in files.items():
        (image / name).write_text(name * 50_000)
        (image / name).chmod(mode)
        os.utime(image / name, (1, 1_000_000))
    (image / "link").symlink_to("deep/program")
    os.mkfifo(image / "fifo", 0o600)
    (image / "deep").chmod(0o700)
    if os.geteuid() == 0:
        for path in (image / "file", image / "link", image / "deep"):
            os.chown(path, 123, 456, follow_symlinks=False)
    with InitProcess(program, ["--serve", "--copy", f"{image}={volume}"], ["ls", str(volume)]) as init:
        assert init.printed_to_the_end() == b"deep\nfifo\nfile\nlink\n"
    for name in (*files, "link", "fifo", "deep", "deep/er", "."):
        before, after = (image / name).lstat(), (volume / name).lstat()
        assert (before.st_mode, before.st_uid, before.st_gid) == (
            after.st_mode,
            after.st_uid,
            after.st_gid,
        ), name
        assert before.st_mtime == after.st_mtime, name
    assert all((volume / name).read_text() == name * 50_000 for name in files)
    assert (volume / "link").readlink() == Path("deep/program")


def test_what_cannot_be_copied_is_said_and_the_rest_is_copied(program: Program, tmp_path: Path) -> None:
    image, volume = tmp_path / "image", tmp_path / "volume"
    for folder in (image, volume, volume / "taken"):
        folder.mkdir()
    (image / "taken").write_text("a file where a folder is")
    (image / "other").write_text("fine")
    flags = ["--serve", "--copy", f"/nowhere={volume}", "--copy", f"{image}={volume}"]
    with InitProcess(program, flags, ["true"]) as init:
        said = init.printed_to_the_end()
    assert b"hearth init: cannot copy /nowhere: no such file\n" in said
    assert b"hearth init: cannot copy taken: is a folder\n" in said
    assert (volume / "other").read_text() == "fine"
