"""Which capability a program lacks, by what it prints."""

from __future__ import annotations

import pytest

from pool.contracts.http import HTTP
from pool.contracts.missing_rights import missing_right
from pool.engine.base import ContainerSpec
from pool.instance import Instance
from pool.workload import Workload


def instance(*capabilities: str) -> Instance:
    spec = ContainerSpec(name="", image="i", capabilities=capabilities)
    return Instance("a", "i", 1, Workload(function="f", version="1", contract=HTTP, container=spec), 0.0)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('nginx: [emerg] chown("/var/lib/nginx/body", 33) failed (1: Operation not permitted)', "chown"),
        ("chown: changing ownership of '/data': Operation not permitted", "chown"),
        ("chown: /data: Operation not permitted", "chown"),
        ("2026/11/29 07:00:00 [emerg] 7#7: setgid(33) failed (1: Operation not permitted)", "setgid"),
        ("initgroups(www-data, 33) failed (1: Operation not permitted)", "setgid"),
        ("PermissionError: os.setuid: [Errno 1] Operation not permitted", "setuid"),
        ("setpriv: setresuid failed: Operation not permitted", "setuid"),
        ('error: failed switching to "redis": operation not permitted', "setuid"),
    ],
)
def test_the_capability_of_a_refused_call(line: str, name: str) -> None:
    advice = missing_right(f"starting\n{line}\nbye", instance())
    assert advice == (
        f"; it lacks the capability {name}, so write `user: image` and `capabilities: [chown, setgid, setuid]`, "
        "and set HEARTH_ALLOWED_CAPABILITIES=chown,setgid,setuid, or start the program as a user of its own"
    )
    assert missing_right(line, instance(name)) == ""


@pytest.mark.parametrize(
    "printed",
    ["", "chown is nice\nOperation not permitted", "mkdir: /x: Read-only file system", "setuid: ok"],
)
def test_other_words_are_no_advice(printed: str) -> None:
    assert missing_right(printed, instance()) == ""
