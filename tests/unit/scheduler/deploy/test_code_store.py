"""Where code lies between its deployment and an instance: kept once, off the memory, whatever the source becomes."""

from __future__ import annotations

import json
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pool.clock import LoopClock
from pool.contracts.handler import HANDLER
from pool.contracts.starter import InstanceReports, LaunchSettings
from pool.engine.base import ContainerSpec
from pool.engine.memory import MemoryEngine
from pool.errors import StartFailed
from pool.host.egress import Egress
from pool.instance import Instance
from pool.launcher import Launcher
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from pool.workload import Order, Workload
from scheduler.definitions.source_folder import SourceCode, SourceError
from scheduler.deploy.code_store import CodeStore

CODE = SourceCode(
    (("handler.py", b"def handle(event, context): return 1\n"), ('a "b"/\u00fc.bin', bytes(256)))
)
OTHER = SourceCode((("handler.py", b"def handle(event, context): return 2\n"),))


def files_of(order: Order) -> tuple[tuple[str, bytes], ...]:
    """The files as the shim reads them."""
    return tuple((name, b64decode(data, validate=True)) for name, data in json.loads(order.read())["files"])


@pytest.mark.parametrize("source", [CODE, OTHER, SourceCode(())])
def test_an_order_has_its_head_and_the_code(tmp_path: Path, source: SourceCode):
    order = Order(b'{"function": "f", "env": {}}', CodeStore(tmp_path / "code").keep(source))
    assert files_of(order) == source.files
    assert json.loads(order.read()).keys() == {"function", "env", "files"}


def test_equal_code_is_kept_once_and_other_code_beside_it(tmp_path: Path):
    store = CodeStore(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        kept = list(threads.map(store.keep, [CODE, SourceCode(CODE.files), OTHER] * 20))
    assert len(set(kept)) == 2
    assert set(tmp_path.iterdir()) == set(kept)
    assert files_of(Order(b'{"function": "f"}', kept[0])) == CODE.files


def test_what_nothing_uses_is_removed_and_can_come_again(tmp_path: Path):
    (tmp_path / "of an earlier process").touch()
    store = CodeStore(tmp_path)
    old, new = store.keep(CODE), store.keep(OTHER)
    store.prune({new})
    assert set(tmp_path.iterdir()) == {new}
    assert store.keep(CODE) == old
    assert set(tmp_path.iterdir()) == {old, new}


def test_what_an_earlier_process_has_left_is_not_believed(tmp_path: Path):
    CodeStore(tmp_path).keep(CODE).write_bytes(b"torn")
    assert files_of(Order(b'{"function": "f"}', CodeStore(tmp_path).keep(CODE))) == CODE.files


def test_a_data_folder_that_takes_no_code_is_named(tmp_path: Path):
    (tmp_path / "code").write_text("a file, where a folder should be")
    with pytest.raises(
        SourceError, match=f"cannot be kept in the data folder .{tmp_path}/code.: File exists"
    ):
        CodeStore(tmp_path / "code").keep(CODE)


def test_code_that_somebody_has_removed_is_written_again(tmp_path: Path):
    store = CodeStore(tmp_path)
    store.keep(CODE).unlink()
    assert files_of(Order(b'{"function": "f"}', store.keep(CODE))) == CODE.files


async def test_code_that_is_gone_is_a_failed_start_of_the_platform(tmp_path: Path):
    engine = MemoryEngine(LoopClock())
    launcher = Launcher(
        engine,
        LoopClock(),
        LaunchSettings(gateway_id="g", run_folder=tmp_path, etc_folder=tmp_path / "hosts"),
        Egress(engine, "g", LoopClock(), Supervisor(LoopClock(), Metrics())),
        InstanceReports(on_slots=lambda _: None, on_output=lambda _, __: None),
    )
    container = ContainerSpec(name="", image="i")
    order = Order(b'{"function": "f"}', tmp_path / "gone")
    workload = Workload(function="f", version="1", contract=HANDLER, container=container, order=order)
    with pytest.raises(StartFailed, match=f"code is not in the data folder any more: .*{tmp_path}/gone"):
        await launcher.specialise(Instance("one", "i", 10, workload, 0.0), workload)
