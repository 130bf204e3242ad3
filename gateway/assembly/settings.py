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
from scheduler.definitions.language.capabilities import checked_capabilities
from scheduler.definitions.language.units import Duration, Size, duration_between, format_size, size_between
from scheduler.triggers.secret_names import SecretNames


def default_memory_budget() -> int:
    """Return 75 % of this machine's RAM, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


FEWEST_BODY_BYTES, MOST_BODY_BYTES = 64 * 2**20, 2**30
"""Bounds of the default of `body_memory`. Four bodies of 16 MiB fit the lower; more than the upper is of no use."""


def default_body_memory() -> int:
    """Return a sixteenth of this machine's RAM, from 64 MiB to 1 GiB, in bytes: a quarter of what instances leave."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(max(ram // 16, FEWEST_BODY_BYTES), MOST_BODY_BYTES)


def parts(separator: str) -> BeforeValidator:
    """Return a validator that splits text from a variable or an option into a list, without empty parts."""

    def split(value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(separator) if part.strip()]

    return BeforeValidator(split)


def keys_of(value: object) -> object:
    """Return the keys that text holds. Only their hashes are kept."""
    return parse_keys(value) if isinstance(value, str) else value


def allow_list(entries: list[str]) -> list[str]:
    """Return the hosts of callbacks, checked. Raises ValueError."""
    Allowed(entries)
    return entries


def secret_names(entries: list[str]) -> list[str]:
    """Return the names of variables, checked. Raises ValueError."""
    SecretNames(tuple(entries))
    return entries


def capability_names(entries: list[str]) -> list[str]:
    """Return names of capabilities, checked. Raises ValueError."""
    return list(checked_capabilities(entry.lower() for entry in entries))


def uids_of(value: object) -> object:
    """Return the range that text names. Raises ValueError."""
    return UidRange.parse(value) if isinstance(value, str) else value


def secret_of(value: object) -> object:
    """Return the secret that text holds. Raises ValueError."""
    return parse_secret(value) if isinstance(value, str) else value


LEAST_LOG_DISK_BYTES = 4 * 2**20
"""Least disk space for output: sixteen files of 256 KiB."""


def log_disk_size(size: int) -> int:
    """Return the disk space for output, checked. Raises ValueError."""
    if size and size < LEAST_LOG_DISK_BYTES:
        least = format_size(LEAST_LOG_DISK_BYTES)
        raise ValueError(f"must be at least {least}, or 0B to keep nothing, not {format_size(size)}")
    return size


def is_apart(files: Literal["shared", "apart"] | None) -> bool | None:
    """Return whether the setting says that the engine shares no folders with us, or None if its address decides."""
    return None if files is None else files == "apart"


class Settings(BaseSettings):
    """Settings of one gateway. Each field is also the variable HEARTH_<FIELD>."""

    model_config = SettingsConfigDict(
        env_prefix="HEARTH_", extra="ignore", validate_default=False, hide_input_in_errors=True
    )

    functions: Path = Field(Path("functions.yaml"), description="File that declares the functions")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on. 0 takes a free one")
    data_dir: Path = Field(
        Path(".hearth"),
        description="Folder for the gateway's identity, its sockets, the code of its functions and its store",
    )
    memory_budget: Size = Field(
        default_factory=default_memory_budget, description="Memory that all instances may declare together"
    )
    keep_alive_policy: Literal["gdsf", "lru", "ttl"] = Field(
        "gdsf", description="Which idle instances are evicted first when memory is needed"
    )
    spare_memory: float = Field(
        0.25,
        ge=0.0,
        le=1.0,
        description="Share of memory_budget for instances that are kept ready ahead of calls. 0 keeps none",
    )
    spare_time: Duration = Field(
        3600.0,
        description="Time after its last call or deployment for which a function is kept ready",
    )
    allowed_volumes: Annotated[list[Path], NoDecode, parts(":")] = Field(
        default_factory=list, description="Host folders that functions may mount, separated by colons"
    )
    allowed_capabilities: Annotated[list[str], NoDecode, parts(","), AfterValidator(capability_names)] = (
        Field(
            default_factory=list,
            description="Capabilities that functions may be given, separated by commas, like chown,setuid,setgid",
        )
    )
    uids: Annotated[UidRange, NoDecode, BeforeValidator(uids_of)] = Field(
        DEFAULT_UIDS, description="Uids for containers, one for each, as FIRST-LAST"
    )
    allowed_hosts: Annotated[list[str], NoDecode, parts(","), AfterValidator(host_names)] = Field(
        default_factory=list,
        description="Additional Host names of a gateway on loopback, separated by commas",
    )
    allowed_secrets: Annotated[list[str], NoDecode, parts(","), AfterValidator(secret_names)] = Field(
        default_factory=lambda: list(SecretNames().entries),
        description="Variables that triggers made over the API may name as secrets, separated by commas",
    )
    api_keys: Annotated[list[Key], NoDecode, BeforeValidator(keys_of)] = Field(
        default_factory=list, description="Keys and their scopes, in addition to those of `hearth keys`"
    )
    drain_timeout: Duration = Field(
        30.0, description="Time that calls in flight get to finish when the gateway stops"
    )
    keep_warm: bool = Field(
        False, description="Leave warm containers when the gateway stops. Its next start adopts them"
    )
    start_timeout: Duration = Field(60.0, description="Time in which an instance must become ready")
    client_timeout: Duration = Field(
        20.0,
        description="Time in which a client must send a request's head, and again the first 64 KiB of its body",
    )
    body_memory: Annotated[Size, size_between("8MiB", "1TiB")] = Field(
        default_factory=default_body_memory,
        description="Memory for incoming requests and unread answers of all clients together",
    )
    async_retention: Duration = Field(
        7 * 86400.0,
        description="Time for which accepted calls and their answers are remembered after their end",
    )
    async_size: Size = Field(
        2**30,
        description="Size of the store of accepted calls. When it is full, it forgets the calls that ended first",
    )
    callback_allow: Annotated[list[str], NoDecode, parts(","), AfterValidator(allow_list)] = Field(
        default_factory=list,
        description="Hosts that callbacks may go to, separated by commas: names, addresses, networks",
    )
    callback_secret: Annotated[SecretBytes | None, BeforeValidator(secret_of)] = Field(
        None,
        description="Secret that signs callbacks: whsec_ and base64. Without it, the data folder keeps one",
    )
    package_size: Annotated[Size, size_between("1MiB", "1TiB")] = Field(
        2**30, description="Disk space for the packages of one requirements.txt while they are fetched"
    )
    engine_files: Literal["shared", "apart"] | None = Field(
        None,
        description="apart if the engine shares no folders with the gateway. By its address: tcp:// is apart",
    )
    log_limit: Size = Field(256 * 1024, description="Output that is kept for each invocation")
    log_disk: Annotated[Size, AfterValidator(log_disk_size)] = Field(
        256 * 2**20, description="Disk space for the output of all functions. 0B keeps none of it on disk"
    )
    log_age: Annotated[Duration, duration_between("1m", "3650d")] = Field(
        7 * 86400.0, description="Time for which output is kept on disk"
    )
    quiet: bool = Field(False, description="Do not show what functions print")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged"
    )
    log_format: Literal["text", "json"] | None = Field(
        None, description="text for people, or json with one object a line"
    )
