"""Rules that keep containers on a bridge away from this host, from link-local addresses and from each other.

Docker's own switch between containers (`enable_icc`) covers neither the host nor the metadata address at
169.254.169.254. The rules go into INPUT and into Docker's chain for users, at the top, so that nothing before
them can let the traffic in. Reloading the host's firewall removes them: `restore` puts them back."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

COMMENT = "hearth: containers stay off this host"
LINK_LOCAL = "169.254.0.0/16"
LOCK_WAIT = "5"
"""Seconds to wait for another program that changes the rules."""
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
V4, V6 = "iptables", "ip6tables"


class FirewallError(Exception):
    """A rule could not be set or removed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule for one bridge, as the arguments of `iptables`."""

    program: str
    chain: str
    match: tuple[str, ...]

    def arguments(self, action: str, bridge: str) -> list[str]:
        """The whole command; `action` is -I, -C or -D."""
        comment = ("-m", "comment", "--comment", COMMENT)
        return [
            *(self.program, "-w", LOCK_WAIT, action, self.chain),
            *("-i", bridge, *self.match, *comment, "-j", "DROP"),
        ]


_REPLY_TO_US = ("-m", "conntrack", "!", "--ctstate", "ESTABLISHED,RELATED")

RULES = (
    Rule(V4, "INPUT", _REPLY_TO_US),
    Rule(V4, "DOCKER-USER", ("-d", LINK_LOCAL)),
    Rule(V6, "INPUT", ()),
    Rule(V6, "FORWARD", ()),
)
"""What a protected bridge has, beside the rule between its own containers. The networks have no IPv6."""


def _rules(bridge: str) -> list[Rule]:
    # Beside `enable_icc=false`, which says the same: so that it also holds on a network that lacks it.
    among_themselves = Rule(V4, "DOCKER-USER", ("-o", bridge))
    return [rule for rule in (*RULES, among_themselves) if rule.program == V4 or shutil.which(V6)]


async def available() -> str | None:
    """Return why bridges cannot be protected here, or None if they can."""
    if shutil.which(V4) is None:
        return "there is no iptables command; install the package iptables"
    try:
        complaint = await _run([V4, "-w", LOCK_WAIT, "-S", "DOCKER-USER"])
    except OSError as error:
        return f"iptables cannot be run: {error}"
    if complaint is not None:
        return f"iptables has no chain DOCKER-USER that we may change: {complaint}"
    if not BRIDGE_FILTER.exists():
        return None  # the engine loads br_netfilter with the first network without traffic between containers
    if BRIDGE_FILTER.read_text().strip() != "1":
        return f"traffic between containers of one bridge passes no rules: {BRIDGE_FILTER} is not 1"
    return None


async def protect(bridge: str) -> None:
    """Keep containers on this bridge from the host, link-local addresses and each other; idempotent.

    What they reply to a connection from the host passes. Raises `FirewallError`, and then no rule is left."""
    try:
        await restore(bridge)
    except BaseException:
        await unprotect(bridge)
        raise


async def restore(bridge: str) -> int:
    """Set the rules of a bridge that are missing, and return how many were. Raises `FirewallError`."""
    missing = [rule for rule in _rules(bridge) if await _run(rule.arguments("-C", bridge)) is not None]
    for rule in missing:
        await _must(rule.arguments("-I", bridge))
    return len(missing)


async def unprotect(bridge: str) -> None:
    """Remove the bridge's rules, however often they are there; none is fine. Raises `FirewallError`."""
    for rule in _rules(bridge):
        while await _run(rule.arguments("-C", bridge)) is None:
            await _must(rule.arguments("-D", bridge))


async def protected_bridges(prefix: str) -> list[str]:
    """Bridges with rules of ours whose names start so, theirs included whose gateway died or left half."""
    found: set[str] = set()
    for program in (V4, V6):
        if shutil.which(program) is None:
            continue
        for line in (await _output([program, "-w", LOCK_WAIT, "-S"])).splitlines():
            words = line.split()
            if COMMENT in line and "-i" in words:
                found.add(words[words.index("-i") + 1])
    return sorted(bridge for bridge in found if bridge.startswith(prefix))


async def _run(command: list[str]) -> str | None:
    """None when the command succeeded, else what it complained of."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await process.communicate()
    return None if process.returncode == 0 else complaint.decode(errors="replace").strip()


async def _must(command: list[str]) -> None:
    if (complaint := await _run(command)) is not None:
        raise FirewallError(f"{' '.join(command)}: {complaint}")


async def _output(command: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return output.decode(errors="replace")
