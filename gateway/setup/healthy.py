"""The health check of the gateway's image, which has no curl. It runs as a script, and imports nothing of ours."""

import os
import socket
import sys

TIMEOUT_SECONDS = 4.0
"""Bounds the wait for an answer: less than the engine's own five seconds, so that it can read why."""


def main() -> None:
    """End with status 0 if the gateway of this container answers on /healthz, else with a message.

    It sends bytes over a socket. The engine runs this every ten seconds, and a library for HTTP takes longer to
    import than all of this.
    """
    host = os.environ.get("HEARTH_HOST", "127.0.0.1")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    port = os.environ.get("HEARTH_PORT", "8080")
    try:
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = connection.recv(4096).partition(b"\r\n")[0].decode(errors="replace")
    except OSError as error:
        sys.exit(f"no gateway answers at {host}:{port}: {error}")
    if answer != "HTTP/1.1 200 OK":
        sys.exit(f"the gateway at {host}:{port} answers {answer}")


if __name__ == "__main__":
    main()
