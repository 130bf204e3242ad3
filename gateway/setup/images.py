"""Build the images that are missing or whose inputs have changed.

python -m gateway.setup.images             base, runtimes, busybox; from a checkout the image of functions/api too
python -m gateway.setup.images --check     only list what is missing or outdated; exit status 1 if anything is
python -m gateway.setup.images --gateway   the gateway's own image as well
python -m gateway.setup.images --rebuild   everything anew, for example after security updates of the base
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gateway.setup import gateway_image
from gateway.setup.engine_api import EngineApi, EngineApiError
from gateway.setup.gateway_image import DependenciesError
from gateway.setup.native.init_build import InitBuildError, is_current
from gateway.setup.native.init_build import build as build_init
from gateway.setup.packages import PackagesError, install, is_debian
from gateway.setup.record import RecordError, SetupRecord
from pool import __version__
from scheduler.deploy.images.runtimes import (
    BASE_IMAGE,
    EXAMPLE_IMAGES,
    GATEWAY_IMAGE,
    INPUTS,
    PYTHON_LABEL,
    RUNTIMES,
)

VERSION_LABEL = "org.opencontainers.image.version"
ROOM = Path(__file__).resolve().parent
RECIPES = ROOM / "recipes"
ROOT = ROOM.parents[1]
"""Folder of our packages: a checkout, or where they are installed."""
API_FOLDER = ROOT / "functions" / "api"
"""An example of functions.yaml. Only a checkout has it."""
BUSYBOX_IMAGE, API_IMAGE = EXAMPLE_IMAGES
REGISTRY_TIMEOUT_SECONDS = 10.0
"""Time for a registry to answer before Debian packages take its place. A machine without one waits this long."""

Show = Callable[[str, float | None], None]
Files = dict[str, Path]


@dataclass(frozen=True)
class Recipe:
    """The inputs of one image: files, and the image that it stands on."""

    tag: str
    files: Files
    """Files by their name in the build context. One is the Dockerfile, unless `foundation` has it."""
    base: str | None = None
    arguments: dict[str, str] = field(default_factory=dict)
    """Values of the Dockerfile's ARGs."""
    foundation: RootImage | None = None
    """Set if the image stands on no other image of ours."""


@dataclass(frozen=True)
class RootImage:
    """An official image, and the folder that builds one in its place if no registry answers."""

    official: tuple[str, str]
    folder: Path
    python: str | None
    """Version of Python in the official image, or None if it has none."""
    made_by: tuple[Path, ...] = field(default=(ROOM / "rootfs.py",))


class BuildError(Exception):
    """An image could not be built; the message says why."""


def recipes(with_gateway: bool = False) -> list[Recipe]:
    """Return the recipe of every image that can be built here, each after the one that it stands on."""
    python, busybox = RECIPES / "base", RECIPES / "busybox"
    found = [
        Recipe(
            BASE_IMAGE, _folder(python), foundation=RootImage(("python", "3.11-slim"), python, python="3.11")
        ),
        Recipe(
            RUNTIMES["python"],
            {"Dockerfile": RECIPES / "python/Dockerfile", "shim.py": ROOT / "runtimes/python/shim.py"},
            base=BASE_IMAGE,
        ),
        Recipe(
            BUSYBOX_IMAGE, _folder(busybox), foundation=RootImage(("busybox", "1.36"), busybox, python=None)
        ),
    ]
    if (ROOT / "pyproject.toml").is_file():
        found.append(Recipe(API_IMAGE, _folder(API_FOLDER), base=BASE_IMAGE, arguments={"BASE": BASE_IMAGE}))
    if with_gateway:
        found.append(
            Recipe(GATEWAY_IMAGE, gateway_image.code(ROOT), base=BASE_IMAGE, arguments={"BASE": BASE_IMAGE})
        )
    return found


def state(engine: EngineApi, recipe: Recipe) -> Literal["present", "missing", "outdated"]:
    """Return how the engine's image of this name compares with the recipe."""
    image = engine.image(recipe.tag)
    if image is None:
        return "missing"
    labels = image["Config"].get("Labels") or {}
    return "present" if labels.get(INPUTS) == inputs_digest(engine, recipe) else "outdated"


def needed(engine: EngineApi, wanted: Iterable[Recipe], rebuild: bool = False) -> list[Recipe]:
    """Return the recipes whose images must be built, those that stand on one of these included."""
    found: list[Recipe] = []
    for recipe in wanted:
        stale = any(recipe.base == below.tag for below in found)
        if rebuild or stale or state(engine, recipe) != "present":
            found.append(recipe)
    return found


def inputs_digest(engine: EngineApi, recipe: Recipe) -> str:
    """Return the digest of all inputs of an image: names, bytes, arguments, and the image that it stands on."""
    digest = hashlib.sha256()
    files = dict(recipe.files)
    if recipe.foundation:
        files.update({path.name: path for path in recipe.foundation.made_by})
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    digest.update(repr(sorted(recipe.arguments.items())).encode())
    if recipe.base:
        base = engine.image(recipe.base)
        digest.update((base["Id"] if base else "absent").encode())
    return digest.hexdigest()[:32]


class ImageBuilder:
    """Builds images on one engine, and tells the record of setup what is new."""

    def __init__(self, engine: EngineApi, record: SetupRecord) -> None:
        self._engine = engine
        self._record = record

    def build_all(self, wanted: Iterable[Recipe]) -> None:
        """Build these images, with progress, and remove those whose names they take.

        Raises `BuildError`, `EngineApiError` or `RecordError`.
        """
        superseded = []
        for recipe in wanted:
            # Imported here, because rich takes a tenth of a second and mostly there is nothing to build.
            from gateway.setup.progress import step
            from gateway.setup.rootfs import RootfsError

            if earlier := self._engine.image(recipe.tag):
                superseded.append(earlier["Id"])
            try:
                with step(f"Building {recipe.tag}") as progress:
                    self.build(recipe, progress.show)
            except (EngineApiError, RootfsError, PackagesError, DependenciesError) as error:
                raise BuildError(f"{recipe.tag}: {error}") from error
        for image in reversed(superseded):
            self._engine.discard(image)

    def build(self, recipe: Recipe, show: Show) -> None:
        """Build one image. Raises `BuildError`, `EngineApiError`, `PackagesError` or `RootfsError`."""
        labels = {INPUTS: inputs_digest(self._engine, recipe)}
        with tempfile.TemporaryDirectory(prefix="hearth-image-") as folder:
            files = dict(recipe.files)
            if recipe.foundation:
                python = self._lay_foundation(recipe.foundation, files, Path(folder) / "rootfs.tar", show)
                if python:
                    labels[PYTHON_LABEL] = python
            if recipe.tag == GATEWAY_IMAGE:
                labels[VERSION_LABEL] = __version__
                show("installing its dependencies", None)
                files.update(gateway_image.dependencies(ROOT, _python_of_base(self._engine)))
            show("packing", None)
            context = Path(folder) / "context.tar"
            _pack(files, context)
            with context.open("rb") as body:
                self._engine.build(
                    body,
                    context.stat().st_size,
                    recipe.tag,
                    labels,
                    recipe.arguments,
                    lambda line: show(line, None),
                )
        self._record.add_image(self._engine.host, recipe.tag)

    def _lay_foundation(self, foundation: RootImage, files: Files, rootfs: Path, show: Show) -> str | None:
        """Get the official image, or add a root file system to the files; return the version of its Python."""
        name, tag = foundation.official
        official, debian = files.pop("official.Dockerfile"), files.pop("debian.Dockerfile")
        try:
            if self._engine.image(f"{name}:{tag}") is None:
                show(f"asking a registry for {name}:{tag}", None)
                self._engine.pull(name, tag, REGISTRY_TIMEOUT_SECONDS, lambda line: show(line, None))
                self._record.add_image(self._engine.host, f"{name}:{tag}")
        except EngineApiError:
            show("no registry answers: taking Debian packages", None)
        else:
            files["Dockerfile"] = official
            return foundation.python
        files["Dockerfile"], files["rootfs.tar"] = debian, rootfs
        return self._make_rootfs(rootfs, foundation.python is not None, show)

    def _make_rootfs(self, rootfs: Path, with_python: bool, show: Show) -> str | None:
        """Make a root file system of Debian packages; return the version of its Python."""
        from gateway.setup.rootfs import busybox_rootfs, python_rootfs

        if shutil.which("mmdebstrap") is None and os.geteuid() == 0 and is_debian():
            show("installing mmdebstrap", None)
            install(["mmdebstrap"], show, self._record.add_packages)
        if with_python:
            return python_rootfs(rootfs, show)
        busybox_rootfs(rootfs, show)
        return None


def _python_of_base(engine: EngineApi) -> str:
    base = engine.image(BASE_IMAGE)
    python = ((base or {}).get("Config", {}).get("Labels") or {}).get(PYTHON_LABEL)
    if python is None:
        raise BuildError(f"{BASE_IMAGE} has no label {PYTHON_LABEL}: build it anew with --rebuild")
    return str(python)


def _folder(folder: Path) -> Files:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if not paths:
        raise BuildError(f"{folder} has no files to build an image of")
    return {str(path.relative_to(folder)): path for path in paths}


def _pack(files: Files, target: Path) -> None:
    """Write a build context as a tar without owners and times, so that equal inputs give equal layers."""
    with tarfile.open(target, "w") as tar:
        for name, path in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as content:
                tar.addfile(entry, content)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway.setup.images", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--check", action="store_true", help="list what is missing or outdated, build nothing"
    )
    parser.add_argument("--gateway", action="store_true", help="include the gateway's own image")
    parser.add_argument("--rebuild", action="store_true", help="build even what is present")
    options = parser.parse_args(arguments)
    engine = EngineApi()
    try:
        if options.check:
            return _check(engine, recipes(options.gateway))
        if options.gateway and not is_current(platform.machine()):
            build_init()  # the image has it
        builder = ImageBuilder(engine, SetupRecord.load())
        builder.build_all(needed(engine, recipes(options.gateway), options.rebuild))
    except (BuildError, EngineApiError, InitBuildError, RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check(engine: EngineApi, wanted: Iterable[Recipe]) -> int:
    faults = [(recipe.tag, found) for recipe in wanted if (found := state(engine, recipe)) != "present"]
    for tag, found in faults:
        print(f"{tag}: {found}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
