"""The catalogue of hostile functions: what each attack must end in, for its caller and for the host.

The code of an attack is `attacks/NAME.py`; its docstring says what it tries. All run with default keys, except that
an attack that ends with its timeout has a shorter one: the default is 30 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from harness import Gateway, eventually, handler

from pool.host.uids import DEFAULT_UIDS

ATTACKS_FOLDER = Path(__file__).parent / "attacks"
LOG_LIMIT = 256 * 1024
MIB = 2**20
NOT_BY_CONTAINER = {"descriptors_in_flight", "message_queues", "pending_signals", "large_pipes", "inotify"}
"""What every kernel counts by user; newer engines forbid io_uring, whose locked memory is counted so, too."""

After = Callable[[Gateway, httpx.Response], None]


@dataclass(frozen=True)
class Attack:
    """One hostile function and how it must end.

    `slugs` are the problems that it may end in, empty if the function answers itself; `says` is part of the answer.
    An answer with the key `got` lists what the attack has won: it must be empty. `after` looks at what else must be
    true.
    """

    slugs: tuple[str, ...] = ()
    says: str = ""
    event: object = None
    keys: Mapping[str, object] = field(default_factory=dict)
    after: After | None = None


def log_is_cut_off(gateway: Gateway, response: httpx.Response) -> None:
    log = gateway.logs(response)
    assert len(log) < LOG_LIMIT + 100
    assert log.endswith("\n[output truncated]\n")


def next_log_is_its_own(gateway: Gateway, response: httpx.Response) -> None:
    log_is_cut_off(gateway, response)
    following = gateway.call("print-long-line", "next")
    assert following.headers["x-hearth-start"] == "warm"
    assert gateway.logs(following) == "next\n"


def no_more_than_its_tmp(gateway: Gateway, response: httpx.Response) -> None:
    assert response.json()["written"] <= 64 * MIB


def serves_on(gateway: Gateway, response: httpx.Response) -> None:
    again = gateway.call("open-descriptors", "close")
    assert (again.text, again.headers["x-hearth-start"]) == ("closed", "warm")


def stands_still(gateway: Gateway, response: httpx.Response) -> None:
    """Its counters go on until it is frozen, and then the kernel counts no nanosecond of it."""
    eventually(lambda: gateway.pool("thread-after-answer")["instances"] == {"frozen": 1})
    [instance] = gateway.instances("thread-after-answer")

    def no_time_passed() -> bool:
        used = gateway.engine.processor_time(instance["container"])
        for _ in range(20):
            gateway.call("neighbour", "time passes")
        return gateway.engine.processor_time(instance["container"]) == used

    # Where many want the processor, it takes its threads a moment to come to a stop.
    eventually(no_time_passed)
    before, after = (response.json(), gateway.call("thread-after-answer").json())
    assert all(later > earlier for earlier, later in zip(before, after, strict=True)), "it did not even run"


def nobody_reads_it(gateway: Gateway, response: httpx.Response) -> None:
    for number in range(3):
        assert gateway.call("late-answer", f"in time {number}").text == f"in time {number}"


def only_its_own_answers_are_forged(gateway: Gateway, response: httpx.Response) -> None:
    for number in range(20):
        answer = gateway.call("neighbour", number)
        assert answer.json() == number
        assert len(set(answer.headers["x-invocation-id"])) > 2
        assert gateway.call("forge-answers").headers["x-invocation-id"] != response.headers["x-invocation-id"]


def no_line_is_forged(gateway: Gateway, response: httpx.Response) -> None:
    own = gateway.call("forge-logs")
    assert own.headers["x-invocation-id"] not in ("0" * 32, response.headers["x-invocation-id"])
    assert "exec;dur" in own.headers["server-timing"]
    assert "forged" not in gateway.logs(gateway.call("neighbour", 1))
    assert "forged" in gateway.log
    assert not [line for line in gateway.log.splitlines() if line.startswith(("12:00:00", '{"level'))]
    assert "\x1b" not in gateway.log


def others_have_room(gateway: Gateway, response: httpx.Response) -> None:
    """What the attack keeps is its own, also when it is frozen with it."""
    used = response.json()["used"]
    assert set(response.json()["until"]) == set(used) >= NOT_BY_CONTAINER, "it did not come to an end of all"
    assert gateway.call("quota-neighbour", "probe").json() == {}
    eventually(lambda: gateway.pool("user-quotas")["instances"] == {"frozen": 1})
    assert gateway.call("quota-neighbour", "probe").json() == {}


def runs_as_a_uid_of_its_own(gateway: Gateway, response: httpx.Response) -> None:
    assert DEFAULT_UIDS.first <= response.json()["user"] <= DEFAULT_UIDS.last


ATTACKS: dict[str, Attack] = {
    # The limit of processes or that of memory, whichever it meets first.
    "fork-bomb": Attack(("handler-raised", "instance-died")),
    "memory-bomb": Attack(("instance-died",), says="want of memory (128 MiB"),
    "cpu-spin": Attack(("timeout",), keys={"timeout": "2s"}),
    "fill-tmp": Attack(says="No space left on device", after=no_more_than_its_tmp),
    "fill-memory-folders": Attack(("instance-died",), says="want of memory"),
    "fill-root": Attack(),
    "open-descriptors": Attack(("handler-raised",), says="Too many open files", after=serves_on),
    "print-gibibyte": Attack(says="printed", after=log_is_cut_off),
    "write-gibibyte": Attack(("timeout",), keys={"timeout": "3s"}, after=log_is_cut_off),
    "print-long-line": Attack(says="printed", after=next_log_is_its_own),
    "thread-after-answer": Attack(after=stands_still),
    "network": Attack(),
    "engine-socket": Attack(),
    "host-proc-sys": Attack(),
    "raise-privileges": Attack(after=runs_as_a_uid_of_its_own),
    "write-image": Attack(),
    "socket-folder": Attack(says='"seen":["calls.sock","log.sock"]'),
    "symlink": Attack(),
    "forge-answers": Attack(says="own", after=only_its_own_answers_are_forged),
    "forge-logs": Attack(("handler-raised",), event="raise", after=no_line_is_forged),
    "late-answer": Attack(("timeout",), event="late", keys={"timeout": "1s"}, after=nobody_reads_it),
    "dial-storm": Attack(says="stormed", event=2),
    "tiny-chunks": Attack(says="xxx", event=100),
    "user-quotas": Attack(after=others_have_room),
}


def code_of(attack: str) -> str:
    """The source of a hostile function."""
    return (ATTACKS_FOLDER / f"{attack.replace('-', '_')}.py").read_text()


def functions() -> dict[str, dict[str, object]]:
    """All of them, as functions.yaml declares them."""
    return {name: handler(code_of(name), **attack.keys) for name, attack in ATTACKS.items()}
