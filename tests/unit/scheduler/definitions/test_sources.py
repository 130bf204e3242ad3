"""Source folders: what is taken, what is refused, and what makes a version."""

import os
from pathlib import Path

import pytest

from scheduler.definitions import source_folder
from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.function_schema import FunctionSchema
from scheduler.definitions.source_folder import SourceCode, SourceError, check, collect
from scheduler.deploy import revision_digest
from scheduler.deploy.revision_digest import version_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "package").mkdir(parents=True)
    (source / "handler.py").write_bytes(b"code")
    (source / "package" / "__init__.py").write_bytes(b"")
    return source


def refusal(source: Path) -> str:
    """What `collect` says; `check` must say the same."""
    with pytest.raises(SourceError) as collected:
        collect(source)
    with pytest.raises(SourceError) as checked:
        check(source)
    assert str(collected.value) == str(checked.value)
    return str(collected.value)


def test_names_and_contents_sorted(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"\xff\0")
    check(folder)
    assert collect(folder).files == (
        ("a.txt", b"\xff\0"),
        ("handler.py", b"code"),
        ("package/__init__.py", b""),
    )


def test_by_products_are_skipped(folder: Path) -> None:
    before = collect(folder)
    for name in ("__pycache__", ".git", ".hearth", "package/__pycache__"):
        (folder / name).mkdir()
        (folder / name / "file").write_bytes(b"x")
    (folder / "handler.pyc").write_bytes(b"x")
    assert collect(folder) == before


def test_requirements(folder: Path) -> None:
    assert collect(folder).requirements is None
    (folder / "requirements.txt").write_bytes(b"Pillow\n")
    assert collect(folder).requirements == b"Pillow\n"


def test_a_link_inside_the_folder_is_read_as_a_file(folder: Path) -> None:
    (folder / "alias.py").symlink_to("handler.py")
    (folder / "package" / "up.py").symlink_to("../handler.py")
    assert dict(collect(folder).files)["alias.py"] == b"code"
    assert dict(collect(folder).files)["package/up.py"] == b"code"


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert collect(tmp_path / "link") == collect(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    for target in ("../../secret", str(tmp_path / "secret"), "../..", "/etc/passwd"):
        link = folder / "package" / "link"
        link.symlink_to(target)
        assert refusal(folder) == "package/link is a link that leaves the folder; replace it by a copy"
        link.unlink()


def test_a_link_out_by_way_of_another_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "source-two").mkdir()
    (tmp_path / "source-two" / "secret").write_bytes(b"x")
    (folder / "first").symlink_to("second")
    (folder / "second").symlink_to("../source-two/secret")
    assert "is a link that leaves the folder" in refusal(folder)


@pytest.mark.parametrize("target", ["nothing", "link"])
def test_a_link_to_nothing_or_to_itself_is_refused(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target)
    assert refusal(folder) == "link is a link that leads nowhere; remove it"


def test_a_link_to_a_folder_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("package")
    assert refusal(folder) == "link is a link to a folder; replace it by a copy"


def test_a_pipe_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert refusal(folder) == "pipe is neither a file nor a folder; remove it"


def test_a_name_that_is_not_utf8_is_refused(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff.py"))).write_bytes(b"")
    assert refusal(folder) == r"'\udcff.py' is not a name in UTF-8; rename it"


def test_a_folder_that_is_too_large_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_folder, "MAX_SOURCE_BYTES", 8 * 1024)
    (folder / "large").write_bytes(bytes(8 * 1024 - 4))
    assert len(collect(folder).files) == 3
    (folder / "more").write_bytes(b"x")
    assert refusal(folder).startswith("is larger than 8KiB, the largest size allowed; remove files")


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_folder, "MAX_FILES", 1)
    assert refusal(folder) == "has 2 files, more than 1; remove files that the code does not need"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "nowhere")


def test_the_digest_is_of_names_and_contents_only(folder: Path, tmp_path: Path) -> None:
    before = collect(folder).digest()
    os.utime(folder / "handler.py", (0, 0))
    (folder / "handler.py").chmod(0o755)
    folder.rename(tmp_path / "moved")
    assert collect(tmp_path / "moved").digest() == before
    (tmp_path / "moved" / "handler.py").write_bytes(b"code.")
    assert collect(tmp_path / "moved").digest() != before


def test_no_part_of_a_digest_lends_to_the_next() -> None:
    codes = [
        SourceCode((("ab", b"c"),)),
        SourceCode((("a", b"bc"),)),
        SourceCode((("ab", b""), ("c", b""))),
        SourceCode((("a", b"b"), ("c", b""))),
        SourceCode(()),
    ]
    assert len({code.digest() for code in codes}) == len(codes)


def handler(**keys: object) -> FunctionDefinition:
    given = {"name": "f", "runtime": "python", "source": Path("/src"), "handler": "m:f"} | keys
    return FunctionDefinition.model_validate(given)


def test_what_shapes_a_version() -> None:
    code = SourceCode((("m.py", b""),))
    digests = [
        version_digest(handler(), code, "sha256:1"),
        version_digest(handler(), code, "sha256:2"),
        version_digest(handler(), SourceCode((("m.py", b"x"),)), "sha256:1"),
        version_digest(handler(name="g"), code, "sha256:1"),
        version_digest(handler(handler="m:g"), code, "sha256:1"),
        version_digest(handler(memory="64MiB"), code, "sha256:1"),
        version_digest(handler(env={"A": "1"}), code, "sha256:1"),
        version_digest(handler(queue_size=1), code, "sha256:1"),
        version_digest(handler(), None, "sha256:1"),
    ]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 64 for digest in digests)


def test_what_does_not_shape_a_version() -> None:
    code = SourceCode((("m.py", b""),))
    same = [
        handler(source=Path("/elsewhere")),
        handler(memory="131072KiB", timeout="0.5m"),
        handler(env={}),
        handler(schema=FunctionSchema(input={"type": "object"}, check=True)),
    ]
    assert {version_digest(one, code, "i") for one in same} == {version_digest(handler(), code, "i")}
    ways = [handler(env={"A": "1", "B": "2"}), handler(env={"B": "2", "A": "1"})]
    assert len({version_digest(one, code, "i") for one in ways}) == 1


def test_a_version_is_the_same_in_every_process() -> None:
    image = FunctionDefinition(name="w", image="busybox:latest", command=("wc", "-w"))
    first = version_digest(image, None, "sha256:1")
    assert first == version_digest(
        FunctionDefinition.model_validate_json(image.model_dump_json(by_alias=True)), None, "sha256:1"
    )


def test_the_version_of_a_default_user_is_that_of_releases_where_all_containers_shared_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a restart after an update would remove everything that is warm."""
    now = version_digest(handler(), None, "sha256:1")
    assert version_digest(handler(user="65532:65532"), None, "sha256:1") != now
    monkeypatch.setattr(revision_digest, "SAME_VERSION_USERS", {})
    assert version_digest(handler(user="65532:65532"), None, "sha256:1") == now
