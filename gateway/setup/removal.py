"""Takes away what setup has brought, and nothing that was there before."""

from __future__ import annotations

import shutil
from pathlib import Path

from gateway.setup import engine as engines
from gateway.setup import packages, service
from gateway.setup.engine import Places
from gateway.setup.engine_api import EngineApi, EngineForbiddenError, EngineSilentError
from gateway.setup.progress import step
from gateway.setup.record import SetupRecord
from pool.data_folder import look_at
from pool.engine.access.address import is_chosen

Part = tuple[str, str]
"""A kind of thing, and the names of those that go or stay, as text for people."""


class SetupRemoval:
    """One removal of all that the record names, on the engine that DOCKER_HOST or a docker context names."""

    def __init__(self, record: SetupRecord, places: Places, data_dir: Path | None) -> None:
        self._record = record
        self._places = places
        self._data_dir = data_dir
        """Data folder of the service, if it shall go too."""
        chosen = is_chosen()
        self._engine = EngineApi(None if chosen else f"unix://{places.socket}")
        self._own_engine = not chosen
        """True for the default engine, which setup may have brought."""
        self.left: list[Part] = []
        """Everything that stays, and why. Filled by `run`."""

    def look(self) -> list[Part]:
        """Return all that would go. Changes nothing."""
        record = self._record
        parts = [
            ("services", [f"{name}.service" for name in record.services]),
            ("images", record.images.get(self._engine.host, [])),
            ("engine", engines.started(self._places) if self._own_engine else []),
            ("packages", packages.installed(record.packages) if record.packages else []),
            ("files", [path for path in record.files if record.is_ours(path)]),
            ("data", [str(self._data_dir)] if self._data_dir and look_at(self._data_dir).known else []),
        ]
        return [(kind, ", ".join(names)) for kind, names in parts if names]

    def run(self) -> None:
        """Take it away, with progress.

        Raises `EngineApiError`, `EngineSetupError`, `PackagesError`, `ServiceError` or `RecordError`. What was not
        reached stays in the record.
        """
        if service.NAME in self._record.services:
            self._disable(service.NAME)
        self._remove_images()
        if self._own_engine:
            self._remove_engine()
        for path in list(self._record.files):
            self._remove_file(path)
        if self._data_dir:
            self._remove_data(self._data_dir)
        self._record.save()

    def _disable(self, name: str) -> None:
        with step(f"Stopping {name}.service"):
            service.disable(name)
        self._record.services.remove(name)
        self._record.save()

    def _remove_images(self) -> None:
        tags = self._record.images.get(self._engine.host, [])
        for tag in reversed(tags.copy()):
            try:
                gone = self._engine.discard(tag)
            except EngineSilentError:
                self.left.append(("images", f"{', '.join(tags)}: no engine answers at {self._engine.host}"))
                return
            if gone:
                tags.remove(tag)
                self._record.save()
            else:
                self.left.append(
                    ("image", f"{tag}: in use. Stop the gateways, run hearth prune, then this again")
                )
        self._record.images.pop(self._engine.host, None) if not tags else None

    def _remove_engine(self) -> None:
        # Packages alone do not tell: mmdebstrap comes to machines with an engine of their own, too.
        ours = "docker" in self._record.services or engines.started(self._places)
        if ours or engines.PACKAGES[0] in self._record.packages:
            if reason := self._why_engine_stays():
                self.left.append(("engine", reason))
                return
            if "docker" in self._record.services:
                self._disable("docker")
            engines.stop(self._places)
        self._remove_packages()

    def _remove_packages(self) -> None:
        if not self._record.packages:
            return  # only Debian can be asked
        names = packages.installed(self._record.packages)
        if names and (others := packages.needed_by_others(names)):
            self.left.append(("packages", f"{', '.join(names)}: needed by {', '.join(others)}"))
            return
        if names:
            with step("Removing packages") as progress:
                packages.purge(names, progress.show)
        self._record.packages.clear()
        self._record.save()

    def _why_engine_stays(self) -> str | None:
        """Return why the engine cannot be stopped, or None if nobody needs it. Raises `EngineApiError`."""
        try:
            users = self._engine.containers()
        except EngineForbiddenError:
            raise
        except EngineSilentError as error:
            if "dockerd" in engines.started(self._places):
                return f"it runs, but does not say whether it has containers: {error}"
            return None  # it does not run, so nothing runs on it
        return f"it has containers: {', '.join(users)}. Remove them, then run this again" if users else None

    def _remove_file(self, path: str) -> None:
        if str(engines.DAEMON_SETTINGS) == path and any(
            kind in ("engine", "packages") for kind, _ in self.left
        ):
            return  # settings of an engine that stays
        if self._record.is_ours(path):
            Path(path).unlink()
            if path.endswith(".service"):
                service.reload()
        elif Path(path).exists():
            self.left.append(("file", f"{path}: it was changed since"))
        del self._record.files[path]
        self._record.save()

    def _remove_data(self, folder: Path) -> None:
        use = look_at(folder)
        if use.started_ns is not None:
            self.left.append(("data", f"{folder}: a gateway runs in it. Stop it, then run this again"))
        elif use.known:
            shutil.rmtree(folder)
        elif folder.exists():
            self.left.append(("data", f"{folder}: no gateway has ever used it"))
