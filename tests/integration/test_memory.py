"""What a Python instance holds before somebody's code comes into it, and the program that measures it."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Gateway, handler

from bench import memory

pytestmark = pytest.mark.engine

MIB = 2**20
PREWARMED = 5.2 * MIB
AFTER_A_CALL = 5.8 * MIB
"""Bytes of its own, in no file: 1.3 times what was measured."""
PREWARMED_RESIDENT = 12.5 * MIB

MODULES = """
import sys
loaded = sorted(sys.modules)

def handle(event, context):
    return [loaded, sorted(sys.modules)]
"""
OF_PYTHON = {
    *(
        "__main__",
        "_abc",
        "_codecs",
        "_frozen_importlib",
        "_frozen_importlib_external",
        "_imp",
        "_io",
        "_signal",
    ),
    *("_thread", "_warnings", "_weakref", "abc", "builtins", "codecs", "encodings", "encodings.aliases"),
    *("encodings.utf_8", "io", "marshal", "posix", "sys", "time", "zipimport"),
}
"""Loaded in any `python -I -S`."""
BEFORE_THE_DIAL = {
    *("__future__", "_collections_abc", "_socket", "_stat", "_struct", "genericpath", "os", "os.path"),
    *("posixpath", "stat", "struct"),
}
BEFORE_THE_CODE = {
    *(
        "_collections",
        "_functools",
        "_json",
        "_operator",
        "_sre",
        "binascii",
        "collections",
        "copyreg",
        "enum",
        "fcntl",
    ),
    *("functools", "importlib", "importlib._bootstrap", "importlib._bootstrap_external", "itertools", "json"),
    *(
        "json.decoder",
        "json.encoder",
        "json.scanner",
        "keyword",
        "operator",
        "re",
        "re._casefix",
        "re._compiler",
    ),
    *("re._constants", "re._parser", "reprlib", "signal", "types", "warnings"),
}
"""json, and what it brings along: most handlers would import it on their first call."""


def test_the_shim_imports_no_more_than_it_needs(tmp_path: Path):
    with Gateway(tmp_path, {"modules": handler(MODULES)}, prewarm={"python": 1}) as gateway:
        at_import, at_call = map(set, gateway.call("modules").json())
    assert {"json", "_socket"} <= at_import
    assert at_import - OF_PYTHON - BEFORE_THE_DIAL - BEFORE_THE_CODE == {"handler"}
    assert at_call == at_import, "the first call must import nothing of the shim's"


def test_an_instance_holds_little_and_the_program_that_says_so_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    held: list[memory.Held] = []

    async def measured(*arguments: object) -> list[memory.Held]:
        held.extend(await measure(*arguments))  # type: ignore[arg-type]
        return held

    measure = memory.measure
    monkeypatch.setattr(memory, "measure", measured)
    assert memory.main(["--functions", "20", "--code", "16KiB"]) == 0
    shown = capsys.readouterr().out
    prewarmed, called, *_ = held
    assert prewarmed.anonymous < PREWARMED, shown
    assert prewarmed.resident < PREWARMED_RESIDENT, shown
    assert called.anonymous < AFTER_A_CALL, shown
    assert [line[:44].rstrip() for line in shown.splitlines()[1:5]] == [h.what for h in held[:4]]
    assert shown.splitlines()[-1].startswith("20 functions / 1: ")
