"""Functions as attackers: each attack ends in the right answer for its caller, and nobody else notices."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from catalogue import ATTACKS, ATTACKS_FOLDER, code_of, functions
from harness import Gateway, eventually, handler

from gateway.http.problems import TYPES

pytestmark = pytest.mark.engine

ECHO = "def handle(event, context):\n    return event\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    others = {"neighbour": handler(ECHO), "quota-neighbour": handler(code_of("user-quotas"))}
    folder, settings = tmp_path_factory.mktemp("hostile"), {"log_disk": "4MiB"}
    with Gateway(folder, functions() | others, prewarm={"python": 1}, settings=settings) as running:
        running.call("neighbour", 0)
        yield running


def places(gateway: Gateway) -> list[tuple[str, int]]:
    """Where the gateway and this host can be reached from outside of a container."""
    port = int(gateway.url.rpartition(":")[2])
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    return [(address, port) for address in sorted(addresses | {"127.0.0.1", "127.0.1.1"})]


def event_of(attack: str, gateway: Gateway) -> object:
    """What an attack is told about this host."""
    if attack == "network":
        return {"places": places(gateway)}
    if attack == "engine-socket":
        others = [str(path) for path in (gateway.data / "run").glob("*/*.sock")]
        return {"paths": ["/var/run/docker.sock", "/run/containerd/containerd.sock", *others]}
    return ATTACKS[attack].event


# How an instance died, the engine has a second to notice: nothing else shall keep it from that.
CASES = [
    pytest.param(name, marks=pytest.mark.alone) if attack.slugs == ("instance-died",) else name
    for name, attack in ATTACKS.items()
]


@pytest.mark.usefixtures("nobody_notices")
@pytest.mark.parametrize("name", CASES)
def test_attack(gateway: Gateway, name: str):
    attack = ATTACKS[name]
    before = gateway.metric("hearth_invocations_total", function=name)
    response = gateway.call(name, event_of(name, gateway))
    outcome, blame = "ok", "none"
    if attack.slugs:
        problem = response.json()
        outcome, blame = problem["type"].removeprefix("urn:hearth:problem:"), problem["blame"]
        assert (outcome in attack.slugs, blame) == (True, "function"), problem
        assert response.status_code == TYPES[outcome][0]
    else:
        assert response.status_code == 200, response.text
    assert attack.says in response.text[:10_000]
    if response.text.startswith('{"got"'):
        assert response.json()["got"] == []

    def counted(**labels: str) -> float:
        return gateway.metric("hearth_invocations_total", function=name, **labels)

    eventually(lambda: counted() == before + 1)
    assert counted(outcome=outcome, blame=blame) >= 1
    if attack.after is not None:
        attack.after(gateway, response)


def test_the_catalogue_is_whole():
    files = {file.stem.replace("_", "-") for file in ATTACKS_FOLDER.glob("*.py")}
    assert files == {*ATTACKS, "slow-import"}
    for name in files:
        assert code_of(name).startswith('"""'), f"{name} does not say what it tries"
