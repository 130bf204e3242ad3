"""Runs in a container: answers calls as the shim does, but on a socket that it listens on.

nginx, and the gateway for an HTTP image, dial; the shim dials by itself. So this takes the shim's own code to read a
request, call the handler and answer, and adds only a wait for whichever connection has something to read.

    python3 -I -S -E bench/responder.py unix:/sockets/calls.sock
    PORT=8000 python3 -I -S -E bench/responder.py tcp
"""

from __future__ import annotations

import os
import select
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.python import shim

ROOT = Path(__file__).parent.parent
"""Of this checkout, or of what of it lies in the container."""


def listen(address: str) -> socket.socket:
    """A listening socket: `unix:PATH`, open to every user, or `tcp` on the loopback port in $PORT."""
    kind, _, path = address.partition(":")
    if kind == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        Path(path).chmod(0o666)
    else:
        listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
    listener.listen(128)
    return listener


def serve(listener: socket.socket, instance: shim.Instance, function: shim.Function) -> None:
    """Answer one request after the other, whichever connection it comes on, for ever."""
    from runtimes.python import shim

    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections: dict[int, shim.Connection] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                accepted, _ = listener.accept()
                if accepted.family == socket.AF_INET:
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[accepted.fileno()] = shim.Connection(accepted)
                poll.register(accepted, select.EPOLLIN)
                continue
            connection = connections[descriptor]
            try:
                instance.invoke(connection, shim.read_request(connection), function)
            except (shim.DisconnectedError, shim.OutcomeError, ValueError):
                poll.unregister(descriptor)
                connections.pop(descriptor).close()


def main(address: str) -> None:
    """Become the example function `hello`, as the shim would, and serve it."""
    os.environ["HEARTH_CODE_DIR"] = str(ROOT / "functions/hello")
    sys.path.insert(0, str(ROOT))
    from runtimes.python import shim

    function = shim.Function({"function": "hello", "version": "bench", "handler": "handler:handle"})
    function.load()
    instance = shim.Instance()
    instance.function = function
    shim.prepare()
    serve(listen(address), instance, function)


if __name__ == "__main__":
    main(sys.argv[1])
