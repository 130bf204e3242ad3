"""The health check of the gateway's image, against servers that are well and that are not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.setup import healthy


@contextmanager
def server(answer: bytes) -> Iterator[int]:
    """Give one answer on a port, as a gateway would."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                assert connection.recv(4096).startswith(b"GET /healthz HTTP/1.1\r\n")
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_a_gateway_that_answers_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_HOST", "0.0.0.0")
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as port:
        monkeypatch.setenv("HEARTH_PORT", str(port))
        healthy.main()


def test_any_other_answer_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") as port:
        monkeypatch.setenv("HEARTH_PORT", str(port))
        with pytest.raises(SystemExit, match=r"answers HTTP/1\.1 503 Service Unavailable"):
            healthy.main()


def test_silence_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    monkeypatch.setenv("HEARTH_PORT", str(port))
    with pytest.raises(SystemExit, match=f"no gateway answers at 127\\.0\\.0\\.1:{port}"):
        healthy.main()
