"""Exit with status 0 if the gateway of this container answers on /healthz. The image has no curl.

Raw bytes over a socket: Docker runs this every ten seconds, and an HTTP library takes longer to import than all this.
"""

import os
import socket
import sys

host = os.environ.get("HEARTH_HOST", "127.0.0.1")
host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
port = int(os.environ.get("HEARTH_PORT", "8080"))
try:
    with socket.create_connection((host, port), timeout=4) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = connection.recv(4096).partition(b"\r\n")[0].decode(errors="replace")
except OSError as error:
    sys.exit(f"no gateway answers at {host}:{port}: {error}")
if answer != "HTTP/1.1 200 OK":
    sys.exit(f"the gateway at {host}:{port} answers {answer}")
