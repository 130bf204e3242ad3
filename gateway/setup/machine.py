"""Everything that a machine lacks before functions can run, and how it is brought."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.setup import engine as engines
from gateway.setup.engine import DEFAULT_PLACES, EngineNeed
from gateway.setup.engine_api import EngineApi
from gateway.setup.images import ImageBuilder, Recipe, needed, recipes
from gateway.setup.native.init_build import build, is_current
from gateway.setup.record import SetupRecord
from pool.engine.access.address import is_chosen


@dataclass(frozen=True)
class MissingParts:
    """The engine's need, recipes of the images that must be built, and whether init must be."""

    engine: EngineNeed
    images: Sequence[Recipe]
    init: bool = False

    def __bool__(self) -> bool:
        return self.engine != "nothing" or bool(self.images) or self.init


class Machine:
    """This machine, with the engine that DOCKER_HOST or a docker context names, or else the default one."""

    def __init__(self, record: SetupRecord) -> None:
        self.engine = EngineApi()
        self.record = record

    def look(self, with_images: bool = True, rebuild: bool = False) -> MissingParts:
        """Return all that is missing. Changes nothing.

        Raises `EngineSetupError` if no engine answers and setup cannot bring one, `EngineApiError` and `BadAddress`.
        """
        need = engines.look(self.engine, chosen=is_chosen())
        wanted: Iterable[Recipe] = recipes() if with_images else ()
        images = needed(self.engine, wanted, rebuild) if need == "nothing" else list(wanted)
        return MissingParts(need, images, with_images and not is_current(platform.machine()))

    def bring(self, missing: MissingParts, rebuild: bool = False) -> None:
        """Bring what is missing, with progress.

        Raises `EngineSetupError`, `InitBuildError`, `BuildError`, `EngineApiError` or `RecordError`.
        """
        if missing.init:
            # Imported here, because rich takes a tenth of a second and mostly there is nothing to build.
            from gateway.setup.progress import step

            with step("Building init"):
                build()
        engines.bring(missing.engine, self.engine, DEFAULT_PLACES, record=self.record)
        wanted: Iterable[Recipe] = missing.images
        if missing.engine != "nothing":  # only now can it say which images it has
            wanted = needed(self.engine, wanted, rebuild)
        ImageBuilder(self.engine, self.record).build_all(wanted)
