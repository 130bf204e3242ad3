"""Whether what the gateway has counted is what its clients saw, and whether it holds anything that it should not."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

from callers import Seen
from harness import Gateway, eventually
from mix import SLOTS
from prometheus_client.parser import text_string_to_metric_families


def differences(metrics: str, seen: Seen) -> list[str]:
    """Where a page of metrics is not what the clients of this life of the gateway saw; empty if it agrees.

    It must agree exactly but for calls whose end their client did not see. Of those that were sent whole each is
    counted once, under any outcome; of those that were not, at most once.
    """
    ended, starts = _counted(metrics, "hearth_invocations_total", "outcome"), Counter[tuple[str, str]]()
    starts.update(_counted(metrics, "hearth_starts_total", "kind"))
    found = []
    for function in sorted({name for name, _ in ended | seen.ended}):
        beyond = Counter({key: n for key, n in ended.items() if key[0] == function})
        beyond.subtract({key: n for key, n in seen.ended.items() if key[0] == function})
        unseen = seen.cut[function] + seen.left[function]
        if any(n < 0 for n in beyond.values()):
            found.append(f"{function}: fewer are counted than seen: {dict(beyond)}")
        if not unseen <= beyond.total() <= unseen + seen.left_early[function]:
            found.append(
                f"{function}: {beyond.total()} are counted that no client saw, {dict(beyond)}; {unseen} were sent "
                f"whole and not waited for, {seen.left_early[function]} were sent in part"
            )
        gone = ended[function, "client-gone"]
        if gone > seen.left[function] + seen.left_early[function]:
            found.append(f"{function}: {gone} clients are said to have left")
        answered = ended[function, "ok"] + ended[function, "function-error"]
        kinds = Counter({kind: n for (name, kind), n in starts.items() if name == function})
        if kinds.total() != answered:
            found.append(f"{function}: {answered} are answered, and had {dict(kinds)} starts")
        seen_kinds = {kind: n for (name, kind), n in seen.starts.items() if name == function}
        if any(kinds[kind] < n for kind, n in seen_kinds.items()):
            found.append(
                f"{function}: {dict(kinds)} starts are counted, {seen_kinds} were seen; {dict(beyond)} no client saw"
            )
    return found


def _counted(metrics: str, name: str, label: str) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == name:
                found[sample.labels["function"], sample.labels[label]] += int(sample.value)
    return found


def unexplained(seen: Seen, hurt: Counter[str]) -> list[str]:
    """Answers that are no 200 and that no fault explains. `hurt` is how many calls of each function faults can have
    hurt: an instance that is hit has at most as many as it has slots; for one that is not ready yet all may wait."""
    found = []
    for function in SLOTS:
        ended = {
            outcome: n for (name, outcome), n in seen.ended.items() if name == function and outcome != "ok"
        }
        died = seen.cut[function] + sum(
            ended.pop(outcome, 0) for outcome in ("instance-died", "timeout", "no-capacity", "not-ready")
        )
        if function == "cat":
            died += ended.pop("command-failed", 0)
        if died > hurt[function]:
            found.append(f"{function}: {died} calls were hurt, faults explain {hurt[function]}")
        if ended:
            found.append(f"{function}: {ended}")
    return found


class Holdings:
    """What a gateway's process holds, when it is at rest and has no instance but the prewarmed ones."""

    def __init__(self, gateway: Gateway, prewarmed: int) -> None:
        eventually(lambda: only_prewarmed(gateway, prewarmed), 60)
        eventually(gateway.books_agree, 30)
        self.tasks = tasks_of(gateway)
        self.files = files_of(gateway)

    def __repr__(self) -> str:
        return f"{self.tasks.total()} tasks, {self.files.total()} file descriptors"


def only_prewarmed(gateway: Gateway, count: int) -> bool:
    """Remove what has a function, and return whether nothing had. Spares come back for what was called lately."""
    used = [instance for instance in gateway.instances() if instance["function"] is not None]
    for instance in used:
        gateway.http.delete(f"/pool/instances/{instance['id']}")
    return not used and len(gateway.instances()) == count == gateway.prewarmed()


def files_of(gateway: Gateway) -> Counter[str]:
    """The file descriptors of the gateway's process by what they are, but for the file of functions' output.

    That one is open from the first line that a function prints until the segment is full.
    """
    found: Counter[str] = Counter()
    for file in Path(f"/proc/{gateway.process.pid}/fd").iterdir():
        try:
            found[os.readlink(file).partition(":[")[0]] += 1
        except FileNotFoundError:
            continue
    segments = str(gateway.data / "logs")
    return Counter({name: count for name, count in found.items() if not name.startswith(segments)})


def tasks_of(gateway: Gateway) -> Counter[str]:
    """The tasks of its event loop by the name of their coroutine. It was started by `watched_gateway.py`."""
    file = gateway.folder / "tasks"
    file.unlink(missing_ok=True)
    gateway.process.send_signal(signal.SIGUSR1)
    eventually(file.exists)
    return Counter(file.read_text().splitlines())
