"""What is left of installed packages in the gateway's image."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import multidict
import pytest

from gateway.setup.slim import slim, without_symbols


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Return a folder with a package that has a compiled part."""
    shutil.copytree(Path(multidict.__file__).parent, tmp_path / "multidict")
    return tmp_path


def test_a_library_without_its_symbols_is_smaller_and_works(packages: Path) -> None:
    (library,) = (packages / "multidict").glob("_multidict*.so")
    before = library.stat().st_size
    slim(packages)
    assert library.stat().st_size < before
    program = (
        "import multidict, multidict._multidict as c; d = multidict.MultiDict(a=1); d.add('a', 2); "
        "assert type(d).__module__ == 'multidict._multidict', type(d); print(d.getall('a'), c.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["[1,", "2]", str(library)], done.stderr
    assert without_symbols(library.read_bytes()) == library.read_bytes()


def test_files_that_serving_never_reads_go(packages: Path) -> None:
    for name in ("pygments/lexers/c.py", "multidict/tests/test_a.py", "multidict/a.pyx", "bin/redis"):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    slim(packages)
    left = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()}
    assert "multidict/__init__.py" in left
    assert not [
        name for name in left if name.endswith((".pyi", ".pyx")) or "tests/" in name or "pygments" in name
    ]
    assert "bin/redis" not in left


def test_what_is_no_library_of_this_kind_stays_as_it_is() -> None:
    for content in (b"", b"text", b"\x7fELF\x01\x01" + bytes(100)):
        assert without_symbols(content) == content
