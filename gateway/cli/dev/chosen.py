"""The one function that `hearth dev` serves: found in a folder, and read again when its file changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scheduler.definitions.container_keys import FIXED_AT_CREATION
from scheduler.definitions.file import Definitions, DefinitionsError, Fault, FunctionDefinition, Kind, load
from scheduler.definitions.language.key_types import NAME
from scheduler.definitions.language.located_yaml import Parse, remembering_parse

FILE, MODULE = "functions.yaml", "handler.py"
HANDLER = "handler:handle"
PREWARMED = 2
"""Prewarmed instances: one for a save, and one for a save while the first is replaced."""
PLAIN_TIMEOUT_SECONDS = 86400.0
"""Time limit of a call in a plain process: whoever looks around in a debugger needs hours."""


class ChoiceError(Exception):
    """No function can be served. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A function, and the file that declares it. The file need not exist: it is watched."""

    definition: FunctionDefinition
    file: Path


@dataclass(frozen=True, slots=True)
class Choice:
    """The words of the command line that choose a function."""

    folder: Path
    """Absolute."""
    name: str | None
    plain: bool
    """True without containers."""
    allowed_volumes: Sequence[Path] = ()
    allowed_capabilities: Sequence[str] = ()
    parse: Parse = field(default_factory=remembering_parse)
    """Most saves change code, and functions.yaml takes longer to parse than all else that a save needs."""

    def find(self) -> Chosen:
        """Return the function that is meant. Raises `ChoiceError` and `DefinitionsError`."""
        file = self.folder / FILE
        if file.is_file():
            return Chosen(self._pick(self._load(file).functions, file), file)
        if (declared := self._declared_above()) is not None:
            return declared
        if not (self.folder / MODULE).is_file():
            raise ChoiceError(
                f"there is neither a {MODULE} nor a {FILE} in {self.folder}; "
                "write a function with `hearth new NAME`, or name the folder of one"
            )
        definition = FunctionDefinition(
            name=self.name or name_of(self.folder), runtime="python", source=self.folder, handler=HANDLER
        )
        return Chosen(definition, file)

    def read(self) -> Definitions:
        """Return what the gateway shall serve. Raises `DefinitionsError`."""
        try:
            return self.alone(self.find().definition)
        except ChoiceError as error:
            raise DefinitionsError([Fault(self.folder / FILE, 1, 1, str(error))]) from error

    def alone(self, definition: FunctionDefinition) -> Definitions:
        """Return definitions with one function and prewarmed instances for it. Raises `ChoiceError`."""
        changes: dict[str, object] = {"on_success": None, "on_failure": None}
        if self.plain:
            if definition.kind is not Kind.HANDLER:
                raise ChoiceError(
                    f"{definition.name} has an image, and --no-container runs Python handlers only; leave it out"
                )
            fields = FunctionDefinition.model_fields
            changes |= {key: fields[key].default for key in FIXED_AT_CREATION}
            changes["timeout"] = PLAIN_TIMEOUT_SECONDS
        alone = definition.model_copy(update=changes)
        prewarm = {alone.runtime: PREWARMED} if alone.runtime and alone.shape_is_default() else {}
        return Definitions(prewarm=prewarm, functions={alone.name: alone})

    def _load(self, file: Path) -> Definitions:
        return load(
            file,
            allowed_volumes=self.allowed_volumes,
            allowed_capabilities=self.allowed_capabilities,
            parse=self.parse,
        )

    def _pick(self, functions: Mapping[str, FunctionDefinition], file: Path) -> FunctionDefinition:
        names = ", ".join(functions)
        if self.name is not None:
            if self.name not in functions:
                raise ChoiceError(f"{file} has no function {self.name}; it has {names or 'none'}")
            return functions[self.name]
        if len(functions) != 1:
            raise ChoiceError(
                f"{file} has {len(functions)} functions; choose one with --function NAME: {names}"
                if functions
                else f"{file} has no function; add one with `hearth new NAME`"
            )
        return next(iter(functions.values()))

    def _declared_above(self) -> Chosen | None:
        """Return the function whose source is the folder, if the next functions.yaml above has one."""
        file = next((parent / FILE for parent in self.folder.parents if (parent / FILE).is_file()), None)
        if file is None:
            return None
        found = {
            name: function
            for name, function in self._load(file).functions.items()
            if function.source is not None and Path(function.source).resolve() == self.folder.resolve()
        }
        return Chosen(self._pick(found, file), file) if found else None


def name_of(folder: Path) -> str:
    """Return a function's name that is as much like the folder's as may be."""
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.name.lower()).strip("-_")[:63]
    return name if re.fullmatch(NAME, name) else "function"
