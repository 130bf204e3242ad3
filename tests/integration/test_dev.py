"""`hearth dev` on the real engine: a save is answered, a broken one is shown, and nothing stays."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator

import pytest
from harness import GATEWAY_LABEL, EngineView, eventually

from tests.support.dev_run import HEARTH, DevRun

pytestmark = pytest.mark.engine

FIRST = "def handle(event, context):\n    print('heard', event)\n    return 1\n"
SECOND = FIRST.replace("return 1", "return 2")
RAISES = "def handle(event, context):\n    raise ValueError('no ' + str(event))\n"


def containers(run: DevRun) -> list[object]:
    """The containers of the run's gateway."""
    [data] = run.data
    identity = (data / "identity").read_text().strip()
    return list(EngineView().containers(f"{GATEWAY_LABEL}={identity}"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevRun]:
    place = tmp_path_factory.mktemp("dev")
    folder = place / "hello"
    folder.mkdir()
    (folder / "handler.py").write_text(FIRST)
    with DevRun(folder, place) as running:
        yield running


def test_a_call_is_printed_with_what_the_function_prints(run: DevRun) -> None:
    run.write(FIRST)
    run.until("hello", 1)
    eventually(
        lambda: re.search(
            r"  \| heard 1\n\d\d:\d\d:\d\d POST /invoke/hello  200  [\d.]+ ms  \w+\n", run.printed
        )
    )


def test_a_save_is_answered_by_the_new_code(run: DevRun) -> None:
    run.write(FIRST)
    run.until("hello", 1)
    run.write(SECOND)
    run.until("hello", 2)
    eventually(lambda: run.says("hello reloaded in "))


def test_a_broken_save_keeps_the_code_before_and_shows_file_and_line(run: DevRun) -> None:
    run.write(SECOND)
    run.until("hello", 2)
    run.write("x = 1\ndef handle(event, context) return 1\n")
    eventually(lambda: run.says("SyntaxError: "))
    eventually(lambda: run.says("(handler.py, line 2); the version before it stays in service"))
    assert f'File "{run.folder}/handler.py", line 2' in run.printed
    assert run.call("hello").json() == 2
    run.write(FIRST)
    run.until("hello", 1)


def test_an_exception_is_shown_with_its_place_in_the_source(run: DevRun) -> None:
    run.write(RAISES)
    eventually(lambda: run.call("hello", "so").status_code == 500)
    eventually(lambda: run.says("ValueError: no so\n"))
    assert f'File "{run.folder}/handler.py", line 2, in handle' in run.printed
    assert re.search(r"POST /invoke/hello  500  .*\n\S+ ValueError: no so\n", run.printed)


def test_a_second_one_in_the_same_folder_is_refused(run: DevRun) -> None:
    environment = {"TMPDIR": str(run.temporary), "PATH": "/usr/bin:/bin"}
    second = subprocess.run([HEARTH, "dev", run.folder], env=environment, capture_output=True, text=True)
    assert second.returncode == 2
    assert f"already (process {run.process.pid}); stop it first" in second.stderr


def test_ctrl_c_leaves_nothing_and_a_killed_one_is_cleared_by_the_next(run: DevRun) -> None:
    run.call("hello")
    [data] = run.data
    identity = (data / "identity").read_text().strip()
    left = eventually(lambda: containers(run))
    run.stop(signal.SIGKILL)
    assert len(containers(run)) == len(left)
    with run:
        assert (data / "identity").read_text().strip() == identity
        run.call("hello")
        assert run.stop() == 0
    assert EngineView().containers(f"{GATEWAY_LABEL}={identity}") == []
    assert run.data == []
