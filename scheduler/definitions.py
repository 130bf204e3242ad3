"""functions.yaml: what a user declares. `load` gives all of it, or all that is wrong with it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from pool.workload import Kind
from scheduler import key_types as types
from scheduler import rules, sources
from scheduler.faults import DefinitionsError, Fault, shown
from scheduler.located_yaml import KeyPath, read
from scheduler.units import Duration, Size, duration_between, size_between

__all__ = ["Defaults", "Definitions", "DefinitionsError", "Fault", "FunctionDefinition", "Kind", "load"]

_RULE = "rule"
"""Type of the validation error that stands for the rules between keys."""
_TEXTS = ("env", "labels", "command")
"""Keys whose values are text, also where they look like numbers."""
KNOWN_RUNTIMES = frozenset({"python"})


class _Keys(BaseModel):
    """Immutable; refuses unknown keys. Durations and sizes are given as text with units."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        given = {key: value for key in self.model_fields_set if (value := getattr(self, key)) is not None}
        for _, message in self.rule_faults(given):
            raise PydanticCustomError(_RULE, "{message}", {"message": message})
        return self

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """What is wrong between these keys."""
        return rules.shared_faults(keys)


class Defaults(_Keys):
    """The keys that every kind of function has, and that `defaults` may set for all of them."""

    timeout: Annotated[Duration, duration_between("1ms", "24h")] = 30.0
    """Seconds that an invocation may execute; then its instance is destroyed."""
    queue_timeout: Annotated[Duration, duration_between("0s", "24h")] = 10.0
    """Seconds that an invocation may wait for an instance."""
    queue_size: Annotated[int, types.whole(1, 100_000)] = 1000
    """Invocations that may wait; the first call of a cold function does."""
    memory: Annotated[Size, size_between("6MiB", "1TiB")] = 128 * 2**20
    """Bytes of an instance; swap is off."""
    cpus: Annotated[float, types.number(0.01, 256)] = 1.0
    concurrency: Annotated[int, types.whole(1, 1000)] = 1
    """Invocations that one instance serves at once."""
    min_instances: Annotated[int, types.whole(0, 1000)] = 0
    max_instances: Annotated[int, types.whole(1, 1000)] = 16
    keep_alive: Annotated[Duration, duration_between("0s", "30d")] = 600.0
    """Seconds that an idle instance stays."""
    freeze_after: types.NeverOrDuration = 2.0
    """Seconds after which an idle instance is frozen; None: never."""
    max_age: Annotated[Duration, duration_between("1s", "365d")] = 86400.0
    """Seconds after which an instance is recycled."""
    max_invocations: types.NoneOrCount = None
    """Invocations after which an instance is recycled."""
    reuse: types.Switch = True
    """False: a fresh container for every invocation."""
    env: types.Environment = {}
    network: Literal["none", "egress"] = "none"
    tmp_size: Annotated[Size, size_between("64KiB", "64GiB")] = 64 * 2**20
    """Bytes of the tmpfs on /tmp."""
    writable: types.Writable = {}
    """Further tmpfs mounts: path to bytes."""
    volumes: types.Volumes = ()
    user: types.User = "65532:65532"
    """`uid:gid`, or `image` for the image's own user."""
    max_body: Annotated[Size, size_between("0B", "1TiB")] = 6 * 2**20
    """Bytes of a request's body."""
    max_response: Annotated[Size, size_between("0B", "1TiB")] = 64 * 2**20
    """Bytes of a response's body."""
    sandbox: types.Sandbox | None = None
    """Name of an OCI runtime of the engine."""
    web: types.Switch = False
    """Its HTML and cookies are for browsers, on our origin."""
    labels: types.Labels = {}
    retries: types.Retries = types.Retries()
    """Of calls that are accepted to be run later."""
    max_event_age: Annotated[Duration, duration_between("1s", "30d")] = 6 * 3600.0
    """Seconds after which an accepted call that has not succeeded is given up."""
    on_success: types.FunctionName | None = None
    """Function that is called when an accepted call has succeeded."""
    on_failure: types.FunctionName | None = None
    """Function that is called when an accepted call was given up."""


SHAPE = ("network", "tmp_size", "writable", "volumes", "user", "sandbox")
"""Keys that shape a container for good: they cannot be set when it is specialised."""


class FunctionDefinition(Defaults):
    """What a user declares of one function."""

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
    """Of a command's output; None is application/octet-stream."""

    @property
    def kind(self) -> Kind:
        """How the function is run, by which of `runtime`, `image` and `port` it has."""
        if self.image is None:
            return Kind.HANDLER
        return Kind.HTTP if self.port is not None else Kind.COMMAND

    def shape_is_default(self) -> bool:
        """Whether a prewarmed instance of the runtime can become this function, as far as its keys say.

        A requirements.txt makes an image of the function's own; that shows by the image and not here.
        """
        fields = FunctionDefinition.model_fields
        return self.kind is Kind.HANDLER and all(getattr(self, key) == fields[key].default for key in SHAPE)

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """What is wrong between these keys."""
        return rules.function_faults(keys)


class Definitions(BaseModel):
    """All that a functions.yaml declares."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    defaults: Defaults = Defaults()
    """Already part of each function."""
    prewarm: types.Prewarm = {}
    """Generic instances kept ready, by runtime."""
    functions: dict[str, FunctionDefinition] = {}


def load(
    path: Path, *, runtimes: Collection[str] = KNOWN_RUNTIMES, allowed_volumes: Sequence[Path] = ()
) -> Definitions:
    """Read and check a definitions file.

    `runtimes` are those that functions may name. Host folders of `volumes` must be in one of
    `allowed_volumes`, links resolved. Raises `DefinitionsError`, and nothing else, with every fault of the
    file by position.
    """
    return _Loader(path, runtimes, allowed_volumes).load()


_ROOT_KEYS = ("version", "defaults", "prewarm", "functions")
_FUNCTION_KEYS = tuple(key for key in FunctionDefinition.model_fields if key != "name")
_MAY_BE_NULL = frozenset({"max_invocations"})
_PREWARM = TypeAdapter(types.Prewarm)
_Model = TypeVar("_Model", bound=_Keys)


class _Loader:
    """One run of `load`: notes a fault and goes on."""

    def __init__(self, file: Path, runtimes: Collection[str], allowed_volumes: Sequence[Path]) -> None:
        self.file = file
        self.runtimes = sorted(runtimes)
        self.allowed_volumes = [Path(os.path.realpath(folder)) for folder in allowed_volumes]
        self.document = read(file)
        self.faults = list(self.document.faults)

    def load(self) -> Definitions:
        definitions = self._root(self.document.data)
        if self.faults or definitions is None:
            raise DefinitionsError(self.faults)
        return definitions

    def _root(self, data: object) -> Definitions | None:
        if not isinstance(data, dict):
            self._fault((), f"must be a mapping with {_listed(_ROOT_KEYS)}, not {shown(data)}")
            return None
        root = self._known(data, _ROOT_KEYS, ())
        for key, example in (("version", "1"), ("functions", "{}")):
            if key not in root:
                self._fault((), f"`{key}` is missing; write `{key}: {example}`")
        version = root.get("version", 1)
        if version != 1 or isinstance(version, bool):
            self._fault(("version",), f"must be 1, not {shown(version)}")

        own = self._known(self._mapping(root, "defaults"), tuple(Defaults.model_fields), ("defaults",))
        defaults, faulty = self._model(Defaults, own, own, ("defaults",))
        # A faulty default is told once, and not again for every function.
        shared = {key: value for key, value in own.items() if key not in faulty}
        given = self._mapping(root, "functions")
        functions = {name: self._function(name, keys, shared) for name, keys in given.items()}
        self._destinations(("defaults",), own, functions)
        for name, keys in given.items():
            self._destinations(("functions", name), keys, functions)
        prewarm = self._prewarm(self._mapping(root, "prewarm"))
        if self.faults or defaults is None:
            return None
        sound = {name: function for name, function in functions.items() if function is not None}
        return Definitions(defaults=defaults, prewarm=prewarm, functions=sound)

    def _destinations(self, path: KeyPath, keys: object, functions: Collection[str]) -> None:
        for key in ("on_success", "on_failure"):
            name = keys.get(key) if isinstance(keys, dict) else None
            if isinstance(name, str) and re.fullmatch(types.NAME, name) and name not in functions:
                self._fault((*path, key), _no_such("function", name, sorted(functions)))

    def _prewarm(self, counts: dict[str, Any]) -> dict[str, int]:
        for runtime in counts:
            if runtime not in self.runtimes:
                self._fault(("prewarm", runtime), _no_such("runtime", runtime, self.runtimes))
        try:
            return _PREWARM.validate_python(counts)
        except ValidationError as error:
            self._validation_faults(error, ("prewarm",))
            return {}

    def _function(self, name: str, keys: object, shared: dict[str, Any]) -> FunctionDefinition | None:
        path: KeyPath = ("functions", name)
        if not isinstance(keys, dict):
            self._fault(path, f"must be a mapping with the function's keys, not {shown(keys)}")
            return None
        own = self._known(keys, _FUNCTION_KEYS, path)
        merged = {**shared, **own, "name": name}
        runtime = own.get("runtime")
        if isinstance(runtime, str) and runtime not in self.runtimes:
            self._fault((*path, "runtime"), _no_such("runtime", runtime, self.runtimes))
        folder = own.get("source")
        if isinstance(folder, str) and folder and "\0" not in folder:
            merged["source"] = self._source(folder, own.get("handler"), path)
        return self._model(FunctionDefinition, merged, own, path)[0]

    def _source(self, folder: str, handler: object, path: KeyPath) -> Path:
        """The source folder as an absolute path, looked through."""
        # os.path, for Path's own verbs raise for a name that is too long; links stay as they are.
        source = Path(os.path.abspath(self.file.parent / folder))  # noqa: PTH100
        if not os.path.isdir(source):  # noqa: PTH112
            self._fault(
                (*path, "source"),
                f"there is no folder {shown(folder)} beside this file; make it or name another",
            )
            return source
        try:
            sources.check(source)
        except sources.SourceError as error:
            self._fault((*path, "source"), f"{shown(folder)} cannot be a function's code: {error}")
        if isinstance(handler, str) and re.fullmatch(types.HANDLER, handler):
            module = handler.partition(":")[0].replace(".", "/")
            files = (source / f"{module}.py", source / module / "__init__.py")
            if not any(os.path.isfile(file) for file in files):  # noqa: PTH113
                self._fault((*path, "handler"), f"there is no {shown(module + '.py')} in {shown(folder)}")
        return source

    def _model(
        self, model: type[_Model], keys: dict[str, Any], own: dict[str, Any], path: KeyPath
    ) -> tuple[_Model | None, set[object]]:
        """The model of `keys`, or None, and the keys at fault. `own` are those that stand at `path`."""
        self._volume_faults(own.get("volumes"), path)
        made = None
        faulty: set[object] = {
            key for key, value in keys.items() if value is None and key not in _MAY_BE_NULL
        }
        for key in faulty:
            self._fault((*path, str(key)), "has no value; write one, or take the key out")
        try:
            made = model.model_validate({key: value for key, value in keys.items() if key not in faulty})
        except ValidationError as error:
            faulty |= self._validation_faults(error, path)
        for key, message in model.rule_faults(keys):
            from_defaults = " (it comes from `defaults`)" if key in keys and key not in own else ""
            self._fault((*path, key) if key else path, message + from_defaults)
            faulty.add(key)
        return made, faulty

    def _validation_faults(self, error: ValidationError, path: KeyPath) -> set[object]:
        blamed: set[object] = set()
        for detail in error.errors():
            if detail["type"] != _RULE:  # rules are told one by one, with their keys
                where = tuple(part for part in detail["loc"] if part != "[key]")
                self._fault((*path, *where), _message(detail))
                blamed |= set(where[:1])
        return blamed

    def _volume_faults(self, volumes: object, path: KeyPath) -> None:
        for index, volume in enumerate(volumes if isinstance(volumes, list) else []):
            try:
                host = types.parse_volume(volume).source
            except ValueError:
                continue
            if not any(
                Path(os.path.realpath(host)).is_relative_to(folder) for folder in self.allowed_volumes
            ):
                allowed = _listed(self.allowed_volumes) or "no folder"
                advice = f"HEARTH_ALLOWED_VOLUMES has {allowed}"
                self._fault((*path, "volumes", index), f"{shown(host)} may not be mounted; {advice}")

    def _mapping(self, root: dict[str, Any], key: str) -> dict[str, Any]:
        """The mapping at a root key, empty if the key is absent or at fault."""
        value = root.get(key, {})
        if isinstance(value, dict):
            return value
        self._fault((key,), f"must be a mapping, {{}} if it is to be empty, not {shown(value)}")
        return {}

    def _known(self, keys: dict[str, Any], allowed: Sequence[str], path: KeyPath) -> dict[str, Any]:
        """The keys that are allowed here, with text instead of numbers where text is wanted."""
        for key in keys:
            if key not in allowed:
                self._fault((*path, key), _no_such("key", key, allowed))
        known = {key: value for key, value in keys.items() if key in allowed}
        return {
            key: self._as_written(value, (*path, key)) if key in _TEXTS else value
            for key, value in known.items()
        }

    def _as_written(self, value: object, path: KeyPath) -> object:
        """`1.10` in `env` is the text 1.10, not the number 1.1."""
        if isinstance(value, dict):
            return {key: self._as_written(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._as_written(item, (*path, index)) for index, item in enumerate(value)]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return self.document.place(path).text if is_number else value

    def _fault(self, path: KeyPath, message: str) -> None:
        if self.document.is_broken(path):
            return
        place = self.document.place(path)
        named = ".".join(
            part if re.fullmatch(r"[\w/-]+", str(part)) else shown(part) for part in map(str, path)
        )
        self.faults.append(
            Fault(self.file, place.line, place.column, f"{named}: {message}" if path else message)
        )


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "literal_error":
        return f"must be {detail['ctx']['expected']}, not {shown(detail['input'])}"
    if detail["type"] == "extra_forbidden":
        return "is no key that is known here; take it out"
    if detail["type"] in ("dict_type", "model_type"):
        return f"must be a mapping, like {{key: value}}, not {shown(detail['input'])}"
    return detail["msg"]


def _no_such(what: str, name: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, allowed, n=1)
    advice = f"did you mean `{near[0]}`?" if near else f"allowed: {_listed(allowed)}"
    return f"there is no {what} {shown(name)}; {advice}"


def _listed(names: Collection[object]) -> str:
    return ", ".join(map(str, names))
