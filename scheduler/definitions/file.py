"""The definitions file, functions.yaml. `load` returns all that it declares, or raises with all its faults."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pool.contracts.base import Contract
from pool.contracts.registry import CONTRACTS
from scheduler.definitions import source_folder
from scheduler.definitions.brokers import BrokerDefinition, read_brokers
from scheduler.definitions.container_keys import FIXED_AT_CREATION, ContainerKeys
from scheduler.definitions.function_schema import FunctionSchema, read_schema
from scheduler.definitions.input_check import MOST_BYTES
from scheduler.definitions.jobs import JobDefinition, read_jobs
from scheduler.definitions.language import key_types as types
from scheduler.definitions.language import rules
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.definitions.language.capabilities import GRANTABLE
from scheduler.definitions.language.faults import DefinitionsError, Fault, shown
from scheduler.definitions.language.located_model import Reader, listed, no_such
from scheduler.definitions.language.located_yaml import Document, KeyPath, Parse, parse, read
from scheduler.definitions.language.units import Duration, Size, duration_between, size_between
from scheduler.definitions.triggers import TriggerDefinition, read_triggers
from scheduler.definitions.workflows import WorkflowDefinition, read_workflows

__all__ = ["Defaults", "Definitions", "DefinitionsError", "Fault", "FunctionDefinition", "Kind", "load"]


class Kind(StrEnum):
    """Kind of a function, by its keys, as the API names it. The contract of the same name runs it."""

    HANDLER = "handler"
    HTTP = "http"
    COMMAND = "command"


KNOWN_RUNTIMES = frozenset({"python"})


class Defaults(ContainerKeys):
    """The keys that every kind of function has. `defaults` may set them for all functions."""

    timeout: Annotated[Duration, duration_between("1ms", "24h")] = 30.0
    """Seconds that an invocation may execute; after that its instance is destroyed."""
    queue_timeout: Annotated[Duration, duration_between("0s", "24h")] = 10.0
    """Seconds that an invocation may wait for an instance."""
    queue_size: Annotated[int, types.whole(1, 100_000)] = 1000
    """Invocations that may wait, the first call of a cold function among them."""
    concurrency: Annotated[int, types.whole(1, 1000)] = 1
    """Invocations that one instance serves at the same time."""
    min_instances: Annotated[int, types.whole(0, 1000)] = 0
    max_instances: Annotated[int, types.whole(1, 1000)] = 16
    keep_alive: Annotated[Duration, duration_between("0s", "30d")] = 600.0
    """Seconds that an idle instance is kept."""
    freeze_after: types.NeverOrDuration = 2.0
    """Seconds after which an idle instance is frozen, or None for never."""
    max_age: Annotated[Duration, duration_between("1s", "365d")] = 86400.0
    """Seconds after which an instance is recycled."""
    max_invocations: types.NoneOrCount = None
    """Invocations after which an instance is recycled, or None for no limit."""
    reuse: types.Switch = True
    """False gives every invocation a fresh container. A command that does not say it has False."""
    max_body: Annotated[Size, size_between("0B", "1TiB")] = 6 * 2**20
    """Largest body of a request, bytes."""
    web: types.Switch = False
    """True lets its HTML and cookies reach browsers on the gateway's origin."""
    labels: types.Labels = {}
    retries: types.RetryKeys = types.RetryKeys()
    """Rules for repeating accepted calls that fail."""
    max_event_age: Annotated[Duration, duration_between("1s", "30d")] = 6 * 3600.0
    """Seconds after which an accepted call that has not succeeded is given up."""
    on_success: types.FunctionName | None = None
    """Function that is called when an accepted call has succeeded."""
    on_failure: types.FunctionName | None = None
    """Function that is called when an accepted call has been given up."""
    callback: types.CallbackUrl | None = None
    """URL that is notified when an accepted call has ended."""

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """Yield the faults between these keys."""
        return rules.shared_faults(keys)


class FunctionDefinition(Defaults):
    """One function as functions.yaml declares it."""

    name: types.FunctionName
    runtime: types.Runtime | None = None
    source: types.Source | None = None
    """Absolute after `load`."""
    handler: types.Handler | None = None
    """module:callable"""
    image: types.ImageReference | None = None
    port: types.Port | None = None
    command: types.Command | None = None
    """Replaces the image's CMD; its ENTRYPOINT stays."""
    health: types.Health | None = None
    content_type: types.ContentType | None = None
    """Content type of a command's output; None means application/octet-stream."""
    stream: types.Switch = False
    """True sends a command's output as it comes. Its exit status can then no longer change the answer."""
    schemas: FunctionSchema | None = Field(default=None, alias="schema")
    """JSON Schemas of its input and output."""

    @model_validator(mode="before")
    @classmethod
    def _a_command_is_fresh(cls, keys: Any) -> Any:
        """Set `reuse` of a command that does not say it: a program is not made to run twice in one container."""
        if isinstance(keys, dict) and "image" in keys and keys.get("port") is None and "reuse" not in keys:
            return {**keys, "reuse": False}
        return keys

    @property
    def kind(self) -> Kind:
        """Return how the function is run: it follows from its `runtime`, `image` and `port`."""
        if self.image is None:
            return Kind.HANDLER
        return Kind.HTTP if self.port is not None else Kind.COMMAND

    @property
    def contract(self) -> Contract:
        """Return how the gateway speaks with the function's containers."""
        return CONTRACTS[self.kind]

    @property
    def checks_input(self) -> bool:
        """Return whether input that does not fit the function's schema is refused."""
        return self.schemas is not None and self.schemas.check

    @property
    def body_limit(self) -> int:
        """Return the largest body of a request, bytes: `max_body`, or less if input is checked."""
        return min(self.max_body, MOST_BYTES) if self.checks_input else self.max_body

    def shape_is_default(self) -> bool:
        """Return whether the keys allow a prewarmed instance of the runtime to become this function.

        A function with a requirements.txt has an image of its own. That is not visible in the keys.
        """
        fields = FunctionDefinition.model_fields
        return self.kind is Kind.HANDLER and all(
            getattr(self, key) == fields[key].default for key in FIXED_AT_CREATION
        )

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """Yield the faults between these keys."""
        return rules.function_faults(keys)


class Definitions(BaseModel):
    """Everything that a functions.yaml declares."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    defaults: Defaults = Defaults()
    """The keys under `defaults`; each function has them already."""
    prewarm: types.Prewarm = {}
    """Number of prewarmed instances to keep ready, by runtime."""
    functions: dict[str, FunctionDefinition] = {}
    workflows: dict[str, WorkflowDefinition] = {}
    jobs: dict[str, JobDefinition] = {}
    triggers: dict[str, TriggerDefinition] = {}
    sources: dict[str, BrokerDefinition] = {}
    """Brokers whose messages become events."""


def load(
    path: Path,
    *,
    runtimes: Collection[str] = KNOWN_RUNTIMES,
    allowed_volumes: Sequence[Path] = (),
    allowed_capabilities: Collection[str] = (),
    allowed_callbacks: Allowed | None = None,
    parse: Parse = parse,
) -> Definitions:
    """Read and check a definitions file.

    Functions may name the `runtimes` given. Host folders of `volumes` must be inside one of `allowed_volumes`, links
    resolved. `capabilities` must be in `allowed_capabilities`. A `callback` must be allowed by `allowed_callbacks`.
    Raises only `DefinitionsError`, with every fault of the file by position.
    """
    allowed = allowed_callbacks or Allowed()
    return _Loader(read(path, parse), runtimes, allowed_volumes, allowed_capabilities, allowed).load()


_ROOT_KEYS = ("version", "defaults", "prewarm", "functions", "workflows", "jobs", "triggers", "sources")
FUNCTION_KEYS = tuple(
    field.alias or key for key, field in FunctionDefinition.model_fields.items() if key != "name"
)
INSTEAD = {
    "env_file": "write its variables under `env`, like env: {NAME: value}",
    "environment": "write the variables under `env`, as a mapping: env: {NAME: value}",
    "secrets": "write each as a variable under `env`, or mount a folder that holds them with `volumes`",
    "schedule": 'write a trigger beside `functions`: triggers: {NAME: {schedule: "0 3 * * *", function: NAME}}',
    "description": "write it as a label: labels: {description: what it does}",
}
"""Advice by key: its words in place of a key that other tools have for functions and services."""
_PREWARM = TypeAdapter(types.Prewarm)


class _Loader(Reader):
    """One pass of `load` over one file."""

    def __init__(
        self,
        document: Document,
        runtimes: Collection[str],
        allowed_volumes: Sequence[Path],
        allowed_capabilities: Collection[str],
        allowed_callbacks: Allowed,
    ) -> None:
        super().__init__(document)
        self.runtimes = sorted(runtimes)
        self.allowed_callbacks = allowed_callbacks
        self.allowed_capabilities = allowed_capabilities
        self.allowed_volumes = [Path(os.path.realpath(folder)) for folder in allowed_volumes]

    def load(self) -> Definitions:
        definitions = self._root(self.document.data)
        if self.faults or definitions is None:
            raise DefinitionsError(self.faults)
        return definitions

    def _root(self, data: object) -> Definitions | None:
        if not isinstance(data, dict):
            self.fault((), f"must be a mapping with {listed(_ROOT_KEYS)}, not {shown(data)}")
            return None
        root = self.known(data, _ROOT_KEYS, ())
        for key, example in (("version", "1"), ("functions", "{}")):
            if key not in root:
                self.fault((), f"`{key}` is missing; write `{key}: {example}`")
        version = root.get("version", 1)
        if version != 1 or isinstance(version, bool):
            self.fault(("version",), f"must be 1, not {shown(version)}")

        given = self.mapping(root, "defaults")
        own = self.known(given, tuple(Defaults.model_fields), ("defaults",), INSTEAD)
        self._grant_faults(own, ("defaults",))
        self._callback_faults(own.get("callback"), ("defaults",))
        defaults, faulty = self.model(Defaults, own, own, ("defaults",))
        # A faulty default is reported once, not for every function.
        shared = {key: value for key, value in own.items() if key not in faulty}
        given = self.mapping(root, "functions")
        functions = {name: self._function(name, keys, shared) for name, keys in given.items()}
        self._destinations(("defaults",), own, functions)
        for name, keys in given.items():
            self._destinations(("functions", name), keys, functions)
        workflows = read_workflows(self, self.mapping(root, "workflows"), functions)
        given_jobs = self.mapping(root, "jobs")
        jobs = read_jobs(self, given_jobs, functions)
        for name, keys in given_jobs.items():
            self._grant_faults(keys, ("jobs", name))
        prewarm = self._prewarm(self.mapping(root, "prewarm"))
        startable: dict[str, Collection[str]] = {"function": functions, "workflow": workflows, "job": jobs}
        triggers = read_triggers(self, self.mapping(root, "triggers"), startable)
        message_sources = read_brokers(self, self.mapping(root, "sources"), functions)
        if self.faults or defaults is None:
            return None
        sound = {name: function for name, function in functions.items() if function is not None}
        return Definitions(
            defaults=defaults,
            prewarm=prewarm,
            functions=sound,
            workflows=workflows,
            jobs=jobs,
            triggers=triggers,
            sources=message_sources,
        )

    def _destinations(self, path: KeyPath, keys: object, functions: Collection[str]) -> None:
        for key in ("on_success", "on_failure"):
            name = keys.get(key) if isinstance(keys, dict) else None
            if isinstance(name, str) and re.fullmatch(types.NAME, name) and name not in functions:
                self.fault((*path, key), no_such("function", name, sorted(functions)))

    def _prewarm(self, counts: dict[str, Any]) -> dict[str, int]:
        for runtime in counts:
            if runtime not in self.runtimes:
                self.fault(("prewarm", runtime), no_such("runtime", runtime, self.runtimes))
        try:
            return _PREWARM.validate_python(counts)
        except ValidationError as error:
            self.validation_faults(error, ("prewarm",))
            return {}

    def _function(self, name: str, keys: object, shared: dict[str, Any]) -> FunctionDefinition | None:
        path: KeyPath = ("functions", name)
        if not isinstance(keys, dict):
            self.fault(path, f"must be a mapping with the function's keys, not {shown(keys)}")
            return None
        own = self.known(keys, FUNCTION_KEYS, path, INSTEAD)
        merged = {**shared, **own, "name": name}
        runtime = own.get("runtime")
        if isinstance(runtime, str) and runtime not in self.runtimes:
            self.fault((*path, "runtime"), no_such("runtime", runtime, self.runtimes))
        folder = own.get("source")
        if isinstance(folder, str) and folder and "\0" not in folder:
            merged["source"] = self._source(folder, own.get("handler"), path)
        if "schema" in own:
            merged["schema"] = self._schema(own, merged.get("source"), path)
        self._grant_faults(own, path)
        self._callback_faults(own.get("callback"), path)
        return self.model(FunctionDefinition, merged, own, path)[0]

    def _source(self, folder: str, handler: object, path: KeyPath) -> Path:
        """Return the source folder as an absolute path; record the faults that it has as code."""
        # os.path: Path's methods raise for a name that is too long. Links are not resolved.
        source = Path(os.path.abspath(self.file.parent / folder))  # noqa: PTH100
        if not os.path.isdir(source):  # noqa: PTH112
            self.fault(
                (*path, "source"),
                f"there is no folder {shown(folder)} beside this file; make it or name another",
            )
            return source
        try:
            source_folder.check(source)
        except source_folder.SourceError as error:
            self.fault((*path, "source"), f"{shown(folder)} cannot be a function's code: {error}")
        if isinstance(handler, str) and re.fullmatch(types.HANDLER, handler):
            module = handler.partition(":")[0].replace(".", "/")
            files = (source / f"{module}.py", source / module / "__init__.py")
            if not any(os.path.isfile(file) for file in files):  # noqa: PTH113
                self.fault((*path, "handler"), f"there is no {shown(module + '.py')} in {shown(folder)}")
        return source

    def _schema(self, own: dict[str, Any], source: object, path: KeyPath) -> FunctionSchema:
        """Return the key `schema`; record its faults."""
        folder = source if isinstance(source, Path) else None
        schema = read_schema(self, own["schema"], folder, (*path, "schema"))
        if schema is not None and schema.check and "port" in own:
            advice = "a function that serves HTTP has many paths, and checks requests itself; remove it"
            self.fault((*path, "schema", "check"), advice)
        return schema or FunctionSchema()

    def _callback_faults(self, url: object, path: KeyPath) -> None:
        if (
            isinstance(url, str)
            and types.is_callback(url)
            and (fault := self.allowed_callbacks.fault_of(url))
        ):
            self.fault((*path, "callback"), fault)

    def _grant_faults(self, keys: object, path: KeyPath) -> None:
        """Record what a container would get of the host although no setting allows it."""
        given = keys if isinstance(keys, dict) else {}
        self._volume_faults(given.get("volumes"), path)
        wanted = given.get("capabilities")
        for index, name in enumerate(wanted if isinstance(wanted, list) else []):
            if name in GRANTABLE and name not in self.allowed_capabilities:
                has = listed(self.allowed_capabilities) or "none"
                advice = f"HEARTH_ALLOWED_CAPABILITIES has {has}; add it there, or remove it here"
                self.fault((*path, "capabilities", index), f"{name} is not allowed; {advice}")

    def _volume_faults(self, volumes: object, path: KeyPath) -> None:
        for index, volume in enumerate(volumes if isinstance(volumes, list) else []):
            try:
                host = types.parse_volume(volume).source
            except ValueError:
                continue
            if not any(
                Path(os.path.realpath(host)).is_relative_to(folder) for folder in self.allowed_volumes
            ):
                allowed = listed(self.allowed_volumes) or "no folder"
                advice = f"HEARTH_ALLOWED_VOLUMES has {allowed}"
                self.fault((*path, "volumes", index), f"{shown(host)} may not be mounted; {advice}")
