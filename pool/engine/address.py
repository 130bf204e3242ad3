"""Where the engine listens, and what it says when it refuses. The standard library only: setting up uses it too."""

from __future__ import annotations

import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
PLAIN_PORT, TLS_PORT = 2375, 2376


class BadAddress(ValueError):
    """An engine's address that cannot be used; the message says what would be one."""


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where an engine listens: a Unix socket (`path`), or a host with a port, with or without TLS."""

    text: str
    path: str | None = None
    host: str = "localhost"
    port: int = 0
    tls: bool = False

    @property
    def origin(self) -> str:
        """Return the beginning of every URL of the API."""
        if self.path is not None:
            return "http://localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def engine_address(text: str | None = None) -> EngineAddress:
    """Read an address as `DOCKER_HOST` has it: `unix://PATH` or `tcp://HOST[:PORT]`; None: the environment's, or
    else the default socket. `https://`, or `DOCKER_TLS_VERIFY` in the environment, means TLS. Raises `BadAddress`."""
    text = text or os.environ.get("DOCKER_HOST") or DEFAULT_ADDRESS
    parts = urlsplit(text)
    if parts.scheme == "unix" and parts.path:
        return EngineAddress(text, path=parts.path)
    if parts.scheme not in ("tcp", "http", "https") or parts.hostname is None:
        raise BadAddress(f"DOCKER_HOST={text} cannot be used; give unix:///PATH or tcp://HOST:PORT")
    tls = parts.scheme == "https" or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    return EngineAddress(
        text, host=parts.hostname, port=parts.port or (TLS_PORT if tls else PLAIN_PORT), tls=tls
    )


def client_tls() -> ssl.SSLContext:
    """Return the TLS settings that ca.pem, cert.pem and key.pem in `DOCKER_CERT_PATH` (or ~/.docker) hold.

    Raises `BadAddress`.
    """
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(str(folder / "cert.pem"), str(folder / "key.pem"))
    except OSError as error:
        raise BadAddress(
            f"DOCKER_HOST asks for TLS, but ca.pem, cert.pem and key.pem cannot be read from {folder}: "
            f"{error.strerror}; set DOCKER_CERT_PATH to the folder that has them"
        ) from error
    return context


def refusal(body: bytes) -> str:
    """Return the message of an error's body: the API's JSON, or the text as it is."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()
