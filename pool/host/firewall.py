"""Rules that keep containers on a bridge away from this host, from link-local addresses and from each other.

Docker's own switch between containers (`enable_icc`) covers neither the host nor the metadata address at
169.254.169.254. The rules go to the top of INPUT and of Docker's chain for users, so that no earlier rule can let the
traffic in. A reload of the host's firewall removes them; `restore` puts them back.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from pool.clock import LoopClock

COMMENT = "hearth: containers stay off this host"
LINK_LOCAL = "169.254.0.0/16"
LOCK_WAIT_SECONDS = "5"
"""Bounds how long iptables waits for another program that changes the rules. Such a change takes milliseconds."""
COMMAND_SECONDS = 10.0
"""Bounds a command, which else takes no longer than its wait. One that hangs is killed: starts wait for it."""
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
"""Holds 1 if traffic between two containers of one bridge passes the rules."""
V4, V6 = "iptables", "ip6tables"


class FirewallError(Exception):
    """A rule could not be read, set or removed. The message has the command and its complaint."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule for one bridge, as the arguments of `iptables`."""

    program: str
    chain: str
    match: tuple[str, ...]

    def arguments(self, action: str, bridge: str) -> list[str]:
        """Return the whole command. `action` is -I (insert), -C (check) or -D (delete)."""
        comment = ("-m", "comment", "--comment", COMMENT)
        return [
            *(self.program, "-w", LOCK_WAIT_SECONDS, action, self.chain),
            *("-i", bridge, *self.match, *comment, "-j", "DROP"),
        ]


_REPLY_TO_US = ("-m", "conntrack", "!", "--ctstate", "ESTABLISHED,RELATED")

RULES = (
    Rule(V4, "INPUT", _REPLY_TO_US),
    Rule(V4, "DOCKER-USER", ("-d", LINK_LOCAL)),
    Rule(V6, "INPUT", ()),
    Rule(V6, "FORWARD", ()),
)
"""Rules of each protected bridge, beside the one between its own containers. The networks have no IPv6."""


def _rules(bridge: str) -> list[Rule]:
    # `enable_icc=false` does the same. The rule also covers a network that was created without that option.
    between_containers = Rule(V4, "DOCKER-USER", ("-o", bridge))
    return [rule for rule in (*RULES, between_containers) if rule.program == V4 or shutil.which(V6)]


async def why_unavailable() -> str | None:
    """Return why bridges cannot be protected here, or None if they can."""
    if shutil.which(V4) is None:
        return "there is no iptables command; install the package iptables"
    try:
        complaint = await _run([V4, "-w", LOCK_WAIT_SECONDS, "-S", "DOCKER-USER"])
    except (FirewallError, OSError) as error:
        return f"iptables cannot be run: {error}"
    if complaint is not None:
        return f"iptables cannot read the chain DOCKER-USER that Docker creates: {complaint}"
    if not BRIDGE_FILTER.exists():
        return None  # the engine loads br_netfilter when it creates the first network with enable_icc=false
    if BRIDGE_FILTER.read_text().strip() != "1":
        return f"the kernel does not filter traffic within a bridge; write 1 to {BRIDGE_FILTER}"
    return None


async def protect(bridge: str) -> None:
    """Keep containers on this bridge from the host, link-local addresses and each other. Safe to repeat.

    Their replies to connections from the host pass. Raises `FirewallError`, and then no rule is left.
    """
    try:
        await restore(bridge)
    except BaseException:
        await unprotect(bridge)
        raise


async def restore(bridge: str) -> int:
    """Set the rules of a bridge that are missing, and return how many were. Raises `FirewallError`."""
    missing = [rule for rule in _rules(bridge) if await _run(rule.arguments("-C", bridge)) is not None]
    for rule in missing:
        await _run_or_raise(rule.arguments("-I", bridge))
    return len(missing)


async def unprotect(bridge: str) -> None:
    """Remove the bridge's rules, each as often as it was set. Harmless without rules. Raises `FirewallError`."""
    for rule in _rules(bridge):
        while await _run(rule.arguments("-C", bridge)) is None:
            await _run_or_raise(rule.arguments("-D", bridge))


async def protected_bridges(prefix: str) -> list[str]:
    """Return the bridges with rules of ours whose names start with `prefix`, sorted.

    Bridges of a gateway that died, or that set only some of the rules, are among them. Raises `FirewallError`.
    """
    found: set[str] = set()
    for program in (V4, V6):
        if shutil.which(program) is None:
            continue
        _, listed, _ = await _finish([program, "-w", LOCK_WAIT_SECONDS, "-S"])
        for line in listed.decode(errors="replace").splitlines():
            words = line.split()
            if COMMENT in line and "-i" in words:
                found.add(words[words.index("-i") + 1])
    return sorted(bridge for bridge in found if bridge.startswith(prefix))


async def _run(command: list[str]) -> str | None:
    """Run a command, and return its complaint, or None if it succeeded. Raises as `_finish` does."""
    status, _, complaint = await _finish(command)
    return None if status == 0 else complaint.decode(errors="replace").strip()


async def _run_or_raise(command: list[str]) -> None:
    if (complaint := await _run(command)) is not None:
        raise FirewallError(f"{' '.join(command)}: {complaint}")


async def _finish(command: list[str]) -> tuple[int | None, bytes, bytes]:
    """Run a command, and return its exit status, output and complaint.

    Raises OSError if it cannot be run, and `FirewallError` if it does not end in time.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        # A command runs in real time, whatever clock its caller has.
        async with LoopClock().timeout(COMMAND_SECONDS):
            output, complaint = await process.communicate()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise FirewallError(f"{' '.join(command)}: did not end within {COMMAND_SECONDS:g} s") from None
        raise
    return process.returncode, output, complaint
