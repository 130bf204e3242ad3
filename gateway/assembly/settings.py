"""Settings of the gateway: `HEARTH_…` variables, and the options of `hearth serve` above them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretBytes
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gateway.access.guard import host_names
from gateway.access.keys import Key, parse_keys
from gateway.callbacks.signing import parse_secret
from pool.host.uids import DEFAULT_UIDS, UidRange
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.definitions.language.units import Duration, Size, size_between
from scheduler.triggers.secret_names import SecretNames


def default_memory_budget() -> int:
    """75 % of this machine's RAM, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


FEWEST_BODY_BYTES, MOST_BODY_BYTES = 64 * 2**20, 2**30
"""The default of `body_memory` is never less than what four bodies of 16 MiB need, nor more than is ever of use."""


def default_body_memory() -> int:
    """A sixteenth of this machine's RAM within 64 MiB and 1 GiB, in bytes: a quarter of what instances leave."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(max(ram // 16, FEWEST_BODY_BYTES), MOST_BODY_BYTES)


def parts(separator: str) -> BeforeValidator:
    """Takes text apart, as a variable or an option gives a list; empty parts count for nothing."""

    def split(value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(separator) if part.strip()]

    return BeforeValidator(split)


def keys_of(value: object) -> object:
    """Keys of their text form; only hashes are kept of it."""
    return parse_keys(value) if isinstance(value, str) else value


def allow_list(entries: list[str]) -> list[str]:
    """Checked; raises ValueError."""
    Allowed(entries)
    return entries


def secret_names(entries: list[str]) -> list[str]:
    """Return the names of variables, checked. Raises ValueError."""
    SecretNames(tuple(entries))
    return entries


def uids_of(value: object) -> object:
    """Return the range that text names. Raises ValueError."""
    return UidRange.parse(value) if isinstance(value, str) else value


def secret_of(value: object) -> object:
    """A secret of its text form."""
    return parse_secret(value) if isinstance(value, str) else value


class Settings(BaseSettings):
    """How a gateway runs. Each field is also the variable HEARTH_<FIELD>."""

    model_config = SettingsConfigDict(
        env_prefix="HEARTH_", extra="ignore", validate_default=False, hide_input_in_errors=True
    )

    functions: Path = Field(Path("functions.yaml"), description="The file that declares the functions")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    data_dir: Path = Field(
        Path(".hearth"),
        description="Folder for the gateway's identity, its sockets and the code of its functions",
    )
    memory_budget: Size = Field(
        default_factory=default_memory_budget, description="Memory that all instances may declare together"
    )
    keep_alive_policy: Literal["gdsf", "lru", "ttl"] = Field(
        "gdsf", description="Which idle instances are evicted first when memory is wanted"
    )
    allowed_volumes: Annotated[list[Path], NoDecode, parts(":")] = Field(
        default_factory=list, description="Host folders that functions may mount, separated by colons"
    )
    uids: Annotated[UidRange, NoDecode, BeforeValidator(uids_of)] = Field(
        DEFAULT_UIDS, description="Uids for containers, one each, as FIRST-LAST"
    )
    allowed_hosts: Annotated[list[str], NoDecode, parts(","), AfterValidator(host_names)] = Field(
        default_factory=list, description="Further Host names that a loopback gateway answers to, by commas"
    )
    allowed_secrets: Annotated[list[str], NoDecode, parts(","), AfterValidator(secret_names)] = Field(
        default_factory=lambda: list(SecretNames().entries),
        description="Variables that triggers made over the API may name for secrets, by commas",
    )
    api_keys: Annotated[list[Key], NoDecode, BeforeValidator(keys_of)] = Field(
        default_factory=list, description="Keys and what they may do, beside those of `hearth keys`"
    )
    allow_network_fallback: bool = Field(
        False, description="Give HTTP images an internal network where namespaces cannot be entered"
    )
    drain_timeout: Duration = Field(
        30.0, description="How long calls in flight may take to finish when the gateway stops"
    )
    keep_warm: bool = Field(
        False, description="Leave warm containers when the gateway stops, for its next start to adopt"
    )
    start_timeout: Duration = Field(60.0, description="How long an instance may take to become ready")
    client_timeout: Duration = Field(
        20.0,
        description="How long a client may take to send a request's head, and again for the first 64 KiB of its body",
    )
    body_memory: Annotated[Size, size_between("8MiB", "1TiB")] = Field(
        default_factory=default_body_memory,
        description="Memory for requests on their way and answers that are not read, of all clients together",
    )
    async_retention: Duration = Field(
        7 * 86400.0, description="How long accepted calls that have ended are remembered, with their answers"
    )
    async_size: Size = Field(
        2**30,
        description="Size of the store of accepted calls: the oldest that have ended are forgotten first",
    )
    callback_allow: Annotated[list[str], NoDecode, parts(","), AfterValidator(allow_list)] = Field(
        default_factory=list,
        description="Hosts that callbacks may go to, by commas: names, addresses, networks",
    )
    callback_secret: Annotated[SecretBytes | None, BeforeValidator(secret_of)] = Field(
        None,
        description="What callbacks are signed with, as whsec_ and base64; made and kept in the data folder",
    )
    log_limit: Size = Field(256 * 1024, description="Output that is kept of one invocation")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is less grave than this is not logged"
    )
    log_format: Literal["text", "json"] | None = Field(
        None, description="Lines for people, or one JSON object a line; text on a terminal, else json"
    )
