"""Where the engine listens, and what it says when it refuses. The standard library only: setting up uses it too."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pool.engine.access.docker_context import BadAddress as BadAddress
from pool.engine.access.docker_context import DockerContext, chosen_context, config_folder

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
PLAIN_PORT, TLS_PORT = 2375, 2376


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where an engine listens: a Unix socket (`path`), or a host with a port, with or without TLS."""

    text: str
    path: str | None = None
    host: str = "localhost"
    port: int = 0
    certificates: Path | None = None
    """Folder with ca.pem, cert.pem and key.pem, or None without TLS."""
    verify: bool = True
    """False if a docker context says that the engine's certificate is not to be checked."""

    @property
    def tls(self) -> bool:
        """Return whether the connection is encrypted."""
        return self.certificates is not None

    @property
    def remote(self) -> bool:
        """Return whether the engine may be on another machine, so that it shares no folder with us."""
        return self.path is None

    @property
    def origin(self) -> str:
        """Return the beginning of every URL of the API."""
        if self.path is not None:
            return "http://localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def engine_address(text: str | None = None) -> EngineAddress:
    """Read an address as `DOCKER_HOST` has it: `unix://PATH` or `tcp://HOST[:PORT]`.

    None takes what the docker command would: `DOCKER_HOST`, else the context that `DOCKER_CONTEXT` or its
    configuration names, else the default socket. `https://`, or `DOCKER_TLS_VERIFY` in the environment, means TLS.
    Raises `BadAddress`.
    """
    text = text or os.environ.get("DOCKER_HOST")
    if text:
        return _parsed(text, "DOCKER_HOST", None)
    context = chosen_context()
    if context is not None:
        return _parsed(context.host, f"docker context {context.name}", context)
    return _parsed(DEFAULT_ADDRESS, "DOCKER_HOST", None)


def is_chosen() -> bool:
    """Return whether somebody has named an engine, so that no other will do. Raises `BadAddress`."""
    return bool(os.environ.get("DOCKER_HOST")) or chosen_context() is not None


def _parsed(text: str, source: str, context: DockerContext | None) -> EngineAddress:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadAddress(f"{source}={text} cannot be used: {error}") from error
    if parts.scheme == "unix" and parts.path:
        return EngineAddress(text, path=parts.path)
    if parts.scheme == "ssh" and parts.hostname is not None:
        raise BadAddress(
            f"{source}={text} cannot be used: Hearth does not speak ssh; give unix:///PATH or tcp://HOST:PORT. "
            f"To go over ssh, forward the engine's socket with `ssh -nNT -L /run/user/{os.getuid()}/engine.sock:"
            f"/var/run/docker.sock {parts.netloc}`, and set DOCKER_HOST=unix:///run/user/{os.getuid()}/engine.sock "
            "and HEARTH_ENGINE_FILES=apart"
        )
    if parts.scheme not in ("tcp", "http", "https") or parts.hostname is None:
        raise BadAddress(f"{source}={text} cannot be used; give unix:///PATH or tcp://HOST:PORT")
    if context is not None:
        certificates = context.certificates
    elif parts.scheme == "https" or os.environ.get("DOCKER_TLS_VERIFY"):
        certificates = Path(os.environ.get("DOCKER_CERT_PATH") or config_folder())
    else:
        certificates = None
    return EngineAddress(
        text,
        host=parts.hostname,
        port=port or (PLAIN_PORT if certificates is None else TLS_PORT),
        certificates=certificates,
        verify=context is None or context.verify,
    )


def refusal(body: bytes) -> str:
    """Return the message of an error's body: the API's JSON, or the text as it is."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace").strip()
        if "HTTP request to an HTTPS server" in text:
            return (
                f"{text} Set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder with the certificates."
            )
        return text
