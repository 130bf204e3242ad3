"""Images for handler functions with a requirements.txt: the runtime image with their packages on top.

pip installs the packages on the host into a folder, from wheels only, so that none of their code runs. The build
copies that folder into the image; it has no network and runs nothing.
"""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import hashlib
import io
import os
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from py_compile import PycInvalidationMode

from pool.clock import Clock
from pool.engine.base import Engine, Image, NotFound
from pool.engine.labels import GATEWAY_LABEL
from scheduler.definitions.language.units import format_size
from scheduler.deploy.images.image_look import add_file
from scheduler.deploy.images.pip_wheels import pip_arguments
from scheduler.deploy.images.runtimes import PYTHON_LABEL
from scheduler.deploy.images.shared_builds import SharedBuilds

REQUIREMENTS_LABEL = "org.hearth.requirements"
PACKAGES_FOLDER = "opt/deps"
REQUIREMENTS_FILE = "requirements.txt"
PIP_TIMEOUT_SECONDS = 300.0
"""Time in which pip must find, fetch and unpack the packages."""
SIZE_CHECK_SECONDS = 0.1
"""Pause between two measurements of that disk space."""
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*\s*(\[[\w\s,.-]*\])?\s*\(?([<>=!~][^/@]*)?")
"""One package: its name, its extras and its versions."""


class ImageBuildError(Exception):
    """A function's image could not be built. The message may be shown to the function's owner."""


@dataclass(frozen=True, slots=True)
class PackageRoom:
    """Room on the disk in which pip fetches and unpacks packages."""

    folder: Path
    most_bytes: int = 2**30
    """Bound of the packages of one function: a wheel is an archive, and can be a bomb."""


async def ensure_requirements_image(
    engine: Engine,
    runtime_image: Image,
    requirements: bytes,
    gateway_id: str,
    room: PackageRoom,
    clock: Clock,
    builds: SharedBuilds | None = None,
    on_build: Callable[[], None] = lambda: None,
) -> Image:
    """Return the image with these requirements (the content of a requirements.txt) on this runtime image.

    It is built unless the engine has it, or one of `builds` makes it now. `on_build` is called before a build;
    `room` holds the packages during it. Raises `ImageBuildError` for requirements that are refused or not found,
    and `EngineError`.
    """
    check_requirements(requirements)
    digest = hashlib.sha256(canonical(requirements) + b"\0" + runtime_image.id.encode()).hexdigest()[:16]
    tag = f"hearth-built/{gateway_id[:8]}:{digest}"

    async def build() -> Image:
        with contextlib.suppress(NotFound):  # another build may have ended since
            return await engine.image(tag)
        labels = {GATEWAY_LABEL: gateway_id, REQUIREMENTS_LABEL: digest}
        return await _build(engine, runtime_image, requirements, room, clock, tag, labels)

    with contextlib.suppress(NotFound):
        return await engine.image(tag)
    on_build()
    return await (builds or SharedBuilds()).once(tag, build)


async def _build(
    engine: Engine,
    runtime_image: Image,
    requirements: bytes,
    room: PackageRoom,
    clock: Clock,
    tag: str,
    labels: dict[str, str],
) -> Image:
    """Fetch the packages and build the image."""
    python = runtime_image.labels.get(PYTHON_LABEL)
    if python is None:
        raise ImageBuildError(f"the runtime image has no label {PYTHON_LABEL}; run hearth setup --rebuild")
    machine = MACHINES.get((await engine.info()).architecture)
    if machine is None:
        raise ImageBuildError("requirements.txt is supported on x86_64 and aarch64 engines only")
    with tempfile.TemporaryDirectory(dir=room.folder, prefix="packages-") as folder:
        packages = Path(folder) / "packages"
        arguments = pip_arguments(Path(folder) / REQUIREMENTS_FILE, packages, python, machine)
        await _install(requirements, replace(room, folder=Path(folder)), arguments, clock)
        context = await asyncio.to_thread(_context, runtime_image.id, packages, python)
    return await engine.build(context, tag, labels)


async def prune_function_images(
    engine: Engine, gateway_id: str, keep: set[str], label: str = REQUIREMENTS_LABEL
) -> list[str]:
    """Remove the images built for this gateway's functions, except those whose id or a tag is in `keep`.

    `label` is that of the images with requirements, or of those with content for volumes.
    Returns the ids that were removed. Raises `EngineError`, also if a container still uses one of them.
    """
    built = await engine.images({GATEWAY_LABEL: gateway_id, label: ""})
    unused = [image for image in built if image.id not in keep and not keep.intersection(image.tags)]
    for image in unused:
        # By id: asked by tag, the engine untags an image that is still in use, without an error.
        await engine.remove_image(image.id)
    return [image.id for image in unused]


def check_requirements(requirements: bytes) -> None:
    """Raise `ImageBuildError`, with the line, for anything but names and versions of packages.

    pip builds from a path or a URL even when told to take wheels only. That would run foreign code on the host. An
    option could undo the arguments that we give to pip.
    """
    for number, stated in enumerate(stated_lines(requirements), start=1):
        named = re.sub(r"(\s+--hash[= ]\S+)*$", "", stated).split(";")[0].strip()
        if stated and (not REQUIREMENT.fullmatch(named) or re.search(r"\s-", named) or "${" in stated):
            raise ImageBuildError(
                f"requirements.txt:{number}: {stated!r} is refused; write a name with versions, like "
                "Pillow>=11, and no options, paths or URLs. "
                "To choose a package index, set PIP_INDEX_URL for the gateway."
            )


def stated_lines(requirements: bytes) -> Iterator[str]:
    """Yield each line without its comment and outer spaces; a line that is continued is one with the next."""
    text = requirements.decode("utf-8-sig", errors="replace")
    for line in re.sub(r"\\\r?\n", lambda _: "  ", text).splitlines():
        yield re.sub(r"(^|\s)#.*", "", line).strip()


def canonical(requirements: bytes) -> bytes:
    """Return requirements in one form: equal ones differ only in order, spaces and comments."""
    stated = {" ".join(line.split()) for line in stated_lines(requirements)} - {""}
    return "".join(f"{line}\n" for line in sorted(stated)).encode()


async def _install(requirements: bytes, room: PackageRoom, arguments: list[str], clock: Clock) -> None:
    """Have pip fetch and unpack the packages, with these arguments."""
    folder = room.folder
    await asyncio.to_thread((folder / REQUIREMENTS_FILE).write_bytes, requirements)
    pip = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pip", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        # pip unpacks there; files that it leaves when killed are removed with the folder.
        env={**os.environ, "TMPDIR": str(folder)},
    )
    output = asyncio.create_task(pip.communicate())
    try:
        async with clock.timeout(PIP_TIMEOUT_SECONDS):
            while not output.done():
                with contextlib.suppress(TimeoutError):
                    async with clock.timeout(SIZE_CHECK_SECONDS):
                        await asyncio.wait((output,))
                await _check_size(room)
    except TimeoutError:
        raise ImageBuildError(f"pip did not finish within {PIP_TIMEOUT_SECONDS:.0f} s") from None
    finally:
        if pip.returncode is None:
            pip.kill()
        said, _ = await output
    if pip.returncode != 0:
        raise ImageBuildError(_reason(said.decode(errors="replace")))


async def _check_size(room: PackageRoom) -> None:
    """Raise `ImageBuildError` if the packages in a room are larger than allowed."""
    if await asyncio.to_thread(_size, room.folder) > room.most_bytes:
        raise ImageBuildError(
            f"requirements.txt: the packages are larger than {format_size(room.most_bytes)}; raise "
            "HEARTH_PACKAGE_SIZE, or name fewer packages"
        )


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder. Files that vanish during the walk do not count."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += (Path(place) / name).lstat().st_size
    return size


def _reason(output: str) -> str:
    """Return pip's error without its prefixes and without the places where it looked."""
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    if missing := re.search(r"^ERROR: (No matching distribution found for .+)", output, re.MULTILINE):
        there = re.search(r"\(from versions: (?!none\))([^)]+)\)", output)
        versions = f"There are wheels of: {there[1]}" if there else "Look whether the name is right"
        return (
            f"requirements.txt: {missing[1]}. Only wheels for the runtime's Python are installed, nothing is built "
            f"from source. {versions}. A package without wheels can go into an image of your own (`image`)"
        )
    tail = errors or [line for line in output.splitlines() if line.strip()][-5:]
    return "requirements.txt: " + ("\n".join(tail) or "pip failed without a word")


def _context(runtime_image: str, packages: Path, python: str) -> bytes:
    """Return the build's context as a tar: the packages, and a Dockerfile that copies them. Blocks."""
    packages.mkdir(exist_ok=True)  # pip makes no folder for a requirements.txt without packages
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        # A function's root is read-only: modules that are not compiled now are compiled at every cold start.
        # By hash, because the copies get other times. The prefixes put the image's paths into tracebacks.
        compileall.compile_dir(
            packages,
            quiet=2,
            stripdir=str(packages),
            prependdir=f"/{PACKAGES_FOLDER}",
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        dockerfile = f"FROM {runtime_image}\nCOPY packages /{PACKAGES_FOLDER}\n".encode()
        add_file(tar, "Dockerfile", dockerfile)
        tar.add(packages, "packages", filter=_anonymous)
    return buffer.getvalue()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    entry.mode |= 0o444 if entry.isfile() else 0o555
    return entry
