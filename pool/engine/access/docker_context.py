"""Docker contexts: named engines in the configuration of the docker command. The standard library only."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT = "default"
"""The context that is none: it means the default socket."""


class BadAddress(ValueError):
    """An engine's address that cannot be used; the message says what would be one."""


@dataclass(frozen=True, slots=True)
class DockerContext:
    """One context, as far as its engine goes."""

    name: str
    host: str
    """Address, as in `DOCKER_HOST`."""
    certificates: Path | None
    """Folder with its certificates, or None if it has none."""
    verify: bool
    """False if the engine's certificate is not to be checked."""


def config_folder() -> Path:
    """Return the folder with the configuration of the docker command."""
    folder = os.environ.get("DOCKER_CONFIG")
    return Path(folder) if folder else Path.home() / ".docker"


def chosen_context() -> DockerContext | None:
    """Return the context that `DOCKER_CONTEXT` or `docker context use` has chosen, or None for the default.

    Raises `BadAddress` if there is no such context.
    """
    name = os.environ.get("DOCKER_CONTEXT") or _current()
    return None if name in ("", DEFAULT) else read_context(name)


def _current() -> str:
    """Return the name that `docker context use` has written, or an empty string."""
    try:
        config = json.loads((config_folder() / "config.json").read_bytes())
    except (OSError, RuntimeError, ValueError):  # RuntimeError: this user has no home
        return ""
    name = config.get("currentContext") if isinstance(config, dict) else None
    return name if isinstance(name, str) else ""


def read_context(name: str) -> DockerContext:
    """Return a context. Raises `BadAddress` if it does not exist or names no engine."""
    contexts = config_folder() / "contexts"
    folder = hashlib.sha256(name.encode()).hexdigest()
    file = contexts / "meta" / folder / "meta.json"
    try:
        found: Any = json.loads(file.read_bytes())
        endpoint = found["Endpoints"]["docker"]
        host, verify = endpoint["Host"], not endpoint.get("SkipTLSVerify", False)
    except OSError as error:
        raise BadAddress(
            f"docker context {name} cannot be read ({file}: {error.strerror}); "
            "see `docker context ls`, or set DOCKER_HOST"
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadAddress(f"docker context {name} names no engine ({file}); set DOCKER_HOST") from error
    certificates = contexts / "tls" / folder / "docker"
    return DockerContext(name, str(host), certificates if certificates.is_dir() else None, verify)
