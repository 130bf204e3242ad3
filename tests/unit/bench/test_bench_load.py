"""The benchmark's command line, its references' shape, and what it declares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.client import Address
from bench.gateways import declare
from bench.instances import container_of, specialise_request
from bench.load import main
from bench.runs import ON_ANY_GATEWAY, SCENARIOS, Choice, missing_programs, reasons_against
from bench.scenarios import QUICK, rotated
from pool.clock import LoopClock
from pool.contracts.handler import HANDLER
from pool.contracts.starter import InstanceReports, LaunchSettings
from pool.engine.base import ContainerSpec, EngineError, Mount
from pool.engine.memory import MemoryEngine
from pool.errors import StartFailed
from pool.host.egress import Egress
from pool.instance import Instance
from pool.launcher import Launcher
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from pool.workload import Workload
from scheduler.definitions.file import load


class NoteSpec(MemoryEngine):
    """Notes what container it is asked for, and makes none."""

    asked: ContainerSpec | None = None

    async def create(self, spec: ContainerSpec) -> str:
        self.asked = spec
        raise EngineError("none is made")


async def test_the_references_container_is_the_gateways(tmp_path: Path) -> None:
    engine = NoteSpec(LoopClock())
    prototype = ContainerSpec(name="", image="sha256:abc", memory=2**27, env={"A": "b"}, tmp_size=2**20)
    workload = Workload(function="hello", version="v", contract=HANDLER, container=prototype)
    launcher = Launcher(
        engine,
        LoopClock(),
        LaunchSettings(gateway_id="g", run_folder=tmp_path, etc_folder=tmp_path / "hosts"),
        Egress(engine, "g", LoopClock(), Supervisor(LoopClock(), Metrics())),
        InstanceReports(on_slots=lambda instance: None, on_output=lambda instance, data: None),
    )
    instance = Instance("i", "sha256:abc", prototype.memory, workload, 0.0)
    with pytest.raises(StartFailed):
        await launcher.launch(instance, prototype)
    await launcher.destroy(instance)
    theirs, ours = engine.asked, container_of(workload, tmp_path / "x", "run")
    assert theirs is not None
    assert theirs.mounts[-1].source != ours.mounts[-1].source

    def without_identity(spec: ContainerSpec) -> ContainerSpec:
        mounts = tuple(Mount("", mount.target, mount.read_only) for mount in spec.mounts)
        return replace(spec, name="", hostname="", labels={}, mounts=mounts)

    assert without_identity(ours) == without_identity(theirs)


def test_the_specialise_request_is_a_control_request() -> None:
    head, _, body = specialise_request(b'{"function": "hello"}').partition(b"\r\n\r\n")
    assert body == b'{"function": "hello"}'
    assert b"x-hearth-control: 1" in head
    assert b"content-length: %d" % len(body) in head


def test_what_is_declared_loads_and_its_functions_are_equal(tmp_path: Path) -> None:
    definitions = load(declare(tmp_path / "new", ["hello", "hello-000", "hello-001"], 3))
    assert definitions.prewarm == {"python": 3}
    assert list(definitions.functions) == ["hello", "hello-000", "hello-001"]
    shapes = {f.model_copy(update={"name": ""}).model_dump_json() for f in definitions.functions.values()}
    assert len(shapes) == 1
    assert all(f.shape_is_default() for f in definitions.functions.values())


def test_other_functions_are_declared_by_what_they_say(tmp_path: Path) -> None:
    others = {"once": "HELLO, reuse: false", "image": "image: some/image, port: 8000, max_body: 1GiB"}
    functions = load(declare(tmp_path / "new", ["hello"], 0, others)).functions
    assert not functions["once"].reuse
    assert functions["once"].handler == functions["hello"].handler
    assert functions["image"].max_body == 2**30


def test_declare_on_the_command_line_covers_every_scenario(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--declare", str(tmp_path), "--quick"])
    assert done.exit_code == 0
    assert len(load(Path(done.output.strip())).functions) == 1 + QUICK.fresh_functions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "http://example.org:8080"], "not a loopback address"),
        (["--url", "http://127.0.0.1:8080", "--start"], "exclude each other"),
        (["--samples", "900", "--burst", "256"], "1000 at most"),
        (["--samples", "0"], "is not in the range"),
        (["--scenario", "hot"], "is not one of"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_help_has_examples_and_every_scenario() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    assert "python bench/load.py --start --quick" in text
    assert all(name in text for name in SCENARIOS)


def choice(*wanted: str) -> Choice:
    return Choice(Address("127.0.0.1", 1), "hello", wanted, True, QUICK)


def test_what_a_running_gateway_does_not_allow() -> None:
    needed = QUICK.fresh_functions
    only_own = set(SCENARIOS) - set(ON_ANY_GATEWAY)
    assert reasons_against(choice("warm"), True, 0) == {}
    assert set(reasons_against(choice(*SCENARIOS), True, needed)) == {"cold"} | only_own
    assert set(reasons_against(choice(*SCENARIOS), False, needed)) == {"prewarmed"} | only_own
    assert set(reasons_against(choice(*SCENARIOS), True, needed - 1)) == {"cold", "burst"} | only_own
    assert set(reasons_against(choice(*SCENARIOS), True, 0)) == {"prewarmed", "cold", "burst"} | only_own


def test_scenarios_without_their_programs_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    needing = {"warm-nginx", "http-image", "http-connect", "async", "idle-clients", "stream"}
    assert set(missing_programs(SCENARIOS)) == needing
    assert "nginx is not installed" in missing_programs(["stream"])["stream"]
    assert missing_programs(["warm", "cold"]) == {}


def test_each_turn_another_one_is_first() -> None:
    turns = [rotated("abc", turn) for turn in range(4)]
    assert ["".join(turn) for turn in turns] == ["abc", "bca", "cab", "abc"]


def test_a_gateway_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    free = "http://127.0.0.1:9"
    done = CliRunner().invoke(main, ["--url", free, "--json", str(tmp_path / "r.json")])
    assert done.exit_code == 1
    assert not (tmp_path / "r.json").exists()
    assert json.dumps(done.output).count("Traceback") == 0
