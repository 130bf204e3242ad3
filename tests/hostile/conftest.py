"""What all attacks share: somebody else who must not notice them, and the logs of gateways in reports."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("harness")

from harness import (  # noqa: E402  (a hook: pytest finds it here)
    Gateway,
    eventually,
    pytest_runtest_makereport,  # noqa: F401
)

MIB = 2**20
FEW_BYTES = 32 * MIB
"""By how much the gateway's memory may grow: the logs of the attacks are among it."""


@pytest.fixture
def nobody_notices(gateway: Gateway) -> Iterator[None]:
    """Somebody else calls a function all the time, and all answers are right; afterwards the books agree."""
    done, answers = threading.Event(), []

    def call() -> None:
        number = 0
        while not done.wait(0.02):
            number += 1
            response = gateway.call("neighbour", number)
            answers.append((response.status_code, response.text == str(number)))

    memory = gateway.memory()
    calling = threading.Thread(target=call)
    calling.start()
    yield
    done.set()
    calling.join()
    assert answers and set(answers) == {(200, True)}
    assert gateway.memory() - memory < FEW_BYTES
    eventually(gateway.books_agree)
    output = stored(gateway.data / "logs")
    assert output <= 4 * MIB, "it is bounded"
    assert stored(gateway.data) - output < MIB


def stored(folder: Path) -> int:
    """Bytes of all files below a folder; where a link leads does not count."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_symlink())
