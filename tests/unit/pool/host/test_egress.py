"""The networks of a gateway and their rules, whatever the engine and `iptables` do. The command is a small script."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pool.clock import VirtualClock
from pool.engine.base import EngineError
from pool.engine.memory import Latency, MemoryEngine
from pool.errors import StartFailed
from pool.host import firewall
from pool.host.egress import NETWORK_LABEL, RULES_CHECK_SECONDS, Egress
from pool.host.firewall import FirewallError
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor

IPTABLES = """\
#!/bin/sh
# Keeps its rules in a file. A file named after an action makes that action fail, with the file's text. With a file
# named "hangs" no command ends.
home=$(dirname "$0")
[ "$1" = -w ] && shift 2
action=$1
shift
[ -e "$home/hangs" ] && { echo $$ > "$home/pid"; exec sleep 600; }
[ -e "$home/$action" ] && { cat "$home/$action" >&2; exit 4; }
case $action in
-S) sed 's/^/-A /' "$home/rules" ;;
-C) grep -Fxq -e "$*" "$home/rules" ;;
-I) echo "$*" >> "$home/rules" ;;
-D) awk -v rule="$*" '$0 == rule && !gone { gone = 1; next } { print }' "$home/rules" > "$home/new"
    mv "$home/new" "$home/rules" ;;
esac
"""
BRIDGE = "hthgateway-e"
INSIDE = "hthgateway-i"


class Command:
    """The script, under both names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "rules"
        self.file.touch()
        for name in (firewall.V4, firewall.V6):
            script = folder / name
            script.write_text(IPTABLES)
            script.chmod(0o755)

    def fails(self, action: str, complaint: str = "no luck") -> None:
        """From now on this action fails."""
        (self.folder / action).write_text(complaint)

    def works(self, action: str) -> None:
        """It does not any more."""
        (self.folder / action).unlink()

    @property
    def rules(self) -> list[str]:
        return self.file.read_text().splitlines()

    def rules_of(self, bridge: str) -> int:
        """How many rules are about a bridge."""
        return sum(f"-i {bridge} " in rule for rule in self.rules)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(firewall, "BRIDGE_FILTER", tmp_path / "no such switch")
    return Command(folder)


@pytest.fixture
async def engine() -> AsyncIterator[MemoryEngine]:
    engine = MemoryEngine(VirtualClock(), latency=Latency(0, 0, 0, 0))
    yield engine
    await engine.close()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def new(engine: MemoryEngine, clock: VirtualClock) -> AsyncIterator[Callable[[str], Egress]]:
    """Makes the networks of a gateway, as one process of it knows them."""
    made: list[Egress] = []
    supervisor = Supervisor(clock, Metrics())

    def new(gateway: str) -> Egress:
        made.append(Egress(engine, gateway, clock, supervisor))
        return made[-1]

    yield new
    for egress in made:
        await egress.close()


@pytest.fixture
def egress(new: Callable[[str], Egress]) -> Egress:
    return new("gateway-1")


async def names(engine: MemoryEngine) -> list[str]:
    return sorted(network.name for network in await engine.networks({NETWORK_LABEL: "gateway-1"}))


EGRESS, INSIDE_NETWORK = "hearth-gateway--egress", "hearth-gateway--inside"
"""The second one was made by releases up to 0.5."""


# -- the networks -------------------------------------------------------------------------------------------


async def test_a_network_is_made_once_and_protected(
    command: Command, engine: MemoryEngine, egress: Egress
) -> None:
    assert await egress.ensure() == await egress.ensure() == EGRESS
    assert await names(engine) == [EGRESS]
    assert command.rules_of(BRIDGE) == len(firewall.RULES) + 1
    assert engine.calls["create_network"] == 1


async def test_a_network_that_is_there_costs_a_start_no_command(
    command: Command, egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands block, or wait for each other: a start of a function with `network: egress` needs none."""
    await egress.ensure()
    monkeypatch.setattr(asyncio, "create_subprocess_exec", None)
    monkeypatch.setattr(subprocess, "run", None)
    assert await egress.ensure() == EGRESS


async def test_rules_that_a_reload_has_removed_are_set_again(
    command: Command, egress: Egress, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await egress.ensure()
    rules = command.rules
    command.file.write_text("")
    await pass_time(clock, lambda: "5 were missing" in caplog.text)
    assert sorted(command.rules) == sorted(rules)
    command.file.write_text("\n".join(rules[1:]) + "\n")
    await pass_time(clock, lambda: len(command.rules) == len(rules))


async def test_a_network_whose_rules_cannot_be_set_again_gets_no_container_until_they_are(
    command: Command, egress: Egress, caplog: pytest.LogCaptureFixture
) -> None:
    await egress.ensure()
    command.file.write_text("")
    command.fails("-I", "out of memory")
    await egress.restore_rules()
    assert "Cannot restore the firewall rules" in caplog.text
    with pytest.raises(StartFailed, match="out of memory"):
        await egress.ensure()
    command.works("-I")
    assert await egress.ensure() == EGRESS
    assert command.rules_of(BRIDGE) == len(firewall.RULES) + 1


async def test_rules_of_a_network_with_containers_are_tried_again_after_a_failure(
    command: Command, egress: Egress, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload can remove Docker's chain for a moment. Containers that run then need the rules once it is back."""
    await egress.ensure()
    command.file.write_text("")
    command.fails("-I", "No chain/target/match by that name")
    for _ in range(3):
        await egress.restore_rules()
    assert caplog.text.count("Cannot restore the firewall rules") == 1, "not at each attempt"
    command.works("-I")
    await pass_time(clock, lambda: "5 were missing" in caplog.text)
    assert command.rules_of(BRIDGE) == len(firewall.RULES) + 1
    assert await egress.ensure() == EGRESS


async def test_a_start_that_cannot_complete_the_rules_leaves_those_that_are_there(
    command: Command, engine: MemoryEngine, egress: Egress, new: Callable[[str], Egress]
) -> None:
    """Else containers that run already would reach the host."""
    await egress.ensure()
    kept = command.rules[:-1]
    command.file.write_text("\n".join(kept) + "\n")
    command.fails("-I", "out of memory")
    await egress.restore_rules()
    for each in (egress, new("gateway-1")):
        with pytest.raises(StartFailed, match="out of memory"):
            await each.ensure()
        assert command.rules == kept


async def test_a_network_that_containers_still_hold_keeps_its_rules(
    command: Command, engine: MemoryEngine, egress: Egress
) -> None:
    """A function was removed from functions.yaml while a call of it runs."""
    await egress.ensure()
    engine.fail_next("remove_network", EngineError("it has endpoints"))
    with pytest.raises(EngineError):
        await egress.remove()
    command.file.write_text("")
    await egress.restore_rules()
    assert command.rules_of(BRIDGE) == len(firewall.RULES) + 1
    await egress.remove()
    await egress.restore_rules()
    assert command.rules == []


async def test_no_way_out_where_the_rules_have_become_impossible_meanwhile(
    command: Command, engine: MemoryEngine, egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's rules were reloaded while the engine made the network: Docker's chain is gone."""
    create_network = engine.create_network

    async def create_and_reload(*arguments: object) -> object:
        made = await create_network(*arguments)  # type: ignore[arg-type]
        command.fails("-S", "No chain")
        command.fails("-I", "No chain")
        return made

    monkeypatch.setattr(engine, "create_network", create_and_reload)
    with pytest.raises(StartFailed, match="cannot protect the host"):
        await egress.ensure()


async def pass_time(clock: VirtualClock, until: Callable[[], bool]) -> None:
    """Let the clock go on, and commands run, until something is so; the test's own time-out bounds it."""
    while not until():
        await clock.advance(RULES_CHECK_SECONDS)
        await asyncio.sleep(0.01)


async def test_one_that_an_earlier_process_has_left_is_used_and_protected_anew(
    command: Command, engine: MemoryEngine, egress: Egress, new: Callable[[str], Egress]
) -> None:
    await new("gateway-1").ensure()
    command.file.write_text("")
    await egress.ensure()
    assert engine.calls["create_network"] == 1
    assert command.rules_of(BRIDGE) == len(firewall.RULES) + 1


async def test_no_way_out_where_the_host_cannot_be_protected(
    command: Command, engine: MemoryEngine, egress: Egress
) -> None:
    command.fails("-S", "iptables: No chain/target/match by that name.")
    with pytest.raises(StartFailed, match=r"not available: .* DOCKER-USER .*No chain"):
        await egress.ensure()
    assert await names(engine) == []


async def test_a_network_whose_rules_cannot_be_set_is_not_used(
    command: Command, engine: MemoryEngine, egress: Egress
) -> None:
    command.fails("-I", "out of memory")
    with pytest.raises(StartFailed, match=r"cannot protect the host from network .*: .*out of memory"):
        await egress.ensure()
    command.works("-I")
    await egress.ensure()
    assert engine.calls["create_network"] == 1, "it is there already"
    assert command.rules_of(BRIDGE) == len(firewall.RULES) + 1


async def test_an_engine_that_cannot_make_a_network_is_asked_again(
    command: Command, engine: MemoryEngine, egress: Egress
) -> None:
    engine.fail_next("create_network", EngineError("all addresses are used up"))
    with pytest.raises(EngineError, match="used up"):
        await egress.ensure()
    await egress.ensure()
    assert await names(engine) == [EGRESS]


async def test_removing_takes_away_all_networks_and_rules_of_this_gateway_and_no_others(
    command: Command, engine: MemoryEngine, egress: Egress, new: Callable[[str], Egress]
) -> None:
    other = new("another-one")
    for made in (egress, other):
        await made.ensure()
    await engine.create_network(INSIDE_NETWORK, INSIDE, True, {NETWORK_LABEL: "gateway-1"})
    await firewall.protect(INSIDE)
    await new("gateway-1").remove()  # by a later process, that made none of it
    assert await names(engine) == []
    assert command.rules_of(BRIDGE) == command.rules_of(INSIDE) == 0
    assert len(command.rules) == len(firewall.RULES) + 1
    assert await egress.ensure() == EGRESS, "made anew"


async def test_rules_that_cannot_be_removed_keep_no_gateway_from_stopping(
    command: Command, engine: MemoryEngine, egress: Egress
) -> None:
    await egress.ensure()
    command.fails("-D")
    await egress.remove()
    assert await names(engine) == []
    assert command.rules_of(BRIDGE) == len(firewall.RULES) + 1


async def test_when_networks_may_be_removed(command: Command, engine: MemoryEngine, egress: Egress) -> None:
    assert egress.removable(wanted=False), "an earlier process may have left some"
    assert not egress.removable(wanted=True)
    await egress.remove()
    assert not egress.removable(wanted=False)
    await egress.ensure()
    assert egress.removable(wanted=False)
    engine.fail_next("remove_network", EngineError("it has endpoints"))
    with pytest.raises(EngineError):
        await egress.remove()
    assert egress.removable(wanted=False), "it was not removed"


# -- the rules ----------------------------------------------------------------------------------------------


async def test_protecting_twice_sets_no_rule_twice(command: Command) -> None:
    await firewall.protect("bridge0")
    once = command.rules
    await firewall.protect("bridge0")
    assert command.rules == once
    await firewall.unprotect("bridge0")
    await firewall.unprotect("bridge0")
    assert command.rules == []


async def test_half_a_protection_is_taken_back(command: Command) -> None:
    """The rules of IPv6 cannot be set."""
    six = command.folder / "six"
    six.mkdir()
    (command.folder / firewall.V6).rename(six / firewall.V6)
    (six / "rules").touch()
    (six / "-I").write_text("no IPv6 here")
    (command.folder / firewall.V6).write_text(f'#!/bin/sh\nexec {six}/{firewall.V6} "$@"\n')
    (command.folder / firewall.V6).chmod(0o755)
    with pytest.raises(FirewallError, match="no IPv6 here"):
        await firewall.protect("bridge0")
    assert command.rules == []


async def test_a_host_without_the_command_for_ipv6_has_the_rules_of_ipv4(command: Command) -> None:
    (command.folder / firewall.V6).unlink()
    await firewall.protect("bridge0")
    assert command.rules_of("bridge0") == 3
    assert await firewall.protected_bridges("bridge") == ["bridge0"]
    await firewall.unprotect("bridge0")
    assert await firewall.protected_bridges("bridge") == []


async def test_only_rules_of_ours_count(command: Command) -> None:
    command.file.write_text(
        f"INPUT -i hthaaa -j DROP\nINPUT -m comment --comment {firewall.COMMENT} -j DROP\n"
        f"INPUT -i hthbbb -m comment --comment {firewall.COMMENT} -j DROP\n"
    )
    assert await firewall.protected_bridges("hth") == ["hthbbb"]


async def test_a_rule_that_is_there_and_cannot_be_removed_is_a_fault(command: Command) -> None:
    await firewall.protect("bridge0")
    command.fails("-D", "permission denied")
    with pytest.raises(FirewallError, match=r"iptables .*bridge0.*: permission denied"):
        await firewall.unprotect("bridge0")


async def test_whether_a_host_can_be_protected(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await firewall.why_unavailable() is None
    switch = tmp_path / "switch"
    monkeypatch.setattr(firewall, "BRIDGE_FILTER", switch)
    switch.write_text("1\n")
    assert await firewall.why_unavailable() is None
    switch.write_text("0\n")
    assert "does not filter traffic within a bridge" in str(await firewall.why_unavailable())
    (command.folder / firewall.V4).write_text("#!/no/such/program\n")
    assert "cannot be run" in str(await firewall.why_unavailable())
    (command.folder / firewall.V4).unlink()
    assert await firewall.why_unavailable() == "there is no iptables command; install the package iptables"


async def test_a_command_that_hangs_is_killed_and_holds_no_start_up(
    command: Command, egress: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firewall, "COMMAND_SECONDS", 0.2)
    command.fails("hangs")
    with pytest.raises(StartFailed, match=r"iptables -w 5 -S DOCKER-USER: did not end within 0\.2 s"):
        await egress.ensure()
    hung = int((command.folder / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        while True:
            os.kill(hung, 0)
            await asyncio.sleep(0.01)
    with pytest.raises(FirewallError, match="did not end"):
        await firewall.protected_bridges("hth")
    command.works("hangs")
    assert await egress.ensure() == EGRESS
