"""Build init, the first process of containers that run an image unchanged.

python -m gateway.setup.native.init_build             for this machine, if missing or outdated
python -m gateway.setup.native.init_build --release   for every machine, with zig: for the wheels of a release
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pool.host.init_program import INSTALLED, MACHINES, file_name

SOURCES = INSTALLED.parent
ZIG = "ziglang>=0.13,<0.17"
"""A compiler as a package: some 80 MB, so it is fetched only where there is no other, and not kept."""
FLAGS = (
    *(
        "-std=c11",
        "-Os",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-ffreestanding",
        "-fno-builtin",
        "-fno-stack-protector",
    ),
    *("-fno-asynchronous-unwind-tables", "-ffunction-sections", "-fdata-sections"),
    *("-static", "-nostdlib", "-no-pie", "-s"),
    *("-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,norelro"),
)
"""Without a libc: a compiler is all that is needed."""
LOOP_FLAG = "-fno-tree-loop-distribute-patterns"
"""Keeps gcc from making a call of memcpy out of the loop that is memcpy. clang knows it under `-fno-builtin`."""


class InitBuildError(Exception):
    """init could not be built; the message says why, and what to do."""


def is_current(machine: str, folder: Path = INSTALLED) -> bool:
    """Return whether the program for a machine is there, and was made from these sources."""
    program, made_of = folder / file_name(machine), folder / f"{file_name(machine)}.sources"
    return program.is_file() and made_of.is_file() and made_of.read_text().strip() == sources_digest()


def sources_digest() -> str:
    """Return the digest of all that the program is made of but the compiler."""
    digest = hashlib.sha256(repr(FLAGS).encode())
    for path in [*_sources("*.h"), *_sources("*.c")]:
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:32]


def own_compiler() -> list[str] | None:
    """Return the command of the machine's C compiler, or None if it has none. CC names another one."""
    for name in filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")):
        if found := shutil.which(name):
            return [found]
    return None


def build(machine: str | None = None, folder: Path = INSTALLED, release: bool = False) -> Path:
    """Build the program for a machine, by default this one, and return it.

    The machine's own compiler makes it; where there is none, and for a release, zig does. Raises `InitBuildError`.
    """
    machine = machine or platform.machine()
    if machine not in MACHINES:
        raise InitBuildError(f"init runs on {' and '.join(MACHINES)}, not on {machine}")
    own = None if release or machine != platform.machine() else own_compiler()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="hearth-init-", dir=folder) as scratch:
            made = Path(scratch) / "init"
            if own:
                compile_with([*own, LOOP_FLAG], FLAGS, made)
            else:
                compile_with(_zig(Path(scratch), machine), FLAGS, made)
            made.chmod(0o755)
            program = made.rename(folder / file_name(machine))
    except OSError as error:
        raise InitBuildError(f"cannot write to {folder}: {error.strerror}; run this as its owner") from error
    (folder / f"{program.name}.sources").write_text(sources_digest() + "\n")
    return program


def compile_with(compiler: Sequence[str], flags: Sequence[str], target: Path) -> None:
    """Compile all sources with a command into `target`. Raises `InitBuildError`."""
    command = [*compiler, *flags, "-o", str(target), *map(str, _sources("*.c"))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise InitBuildError(f"{compiler[0]} cannot compile init:\n{done.stderr[-2000:]}")


def _sources(pattern: str) -> list[Path]:
    return sorted(SOURCES.glob(pattern))


def _zig(scratch: Path, machine: str) -> list[str]:
    """Fetch zig, unless this Python has it, and return its command for a machine."""
    target = ["-m", "ziglang", "cc", f"--target={machine}-linux-musl"]
    if subprocess.run([sys.executable, "-c", "import ziglang"], capture_output=True).returncode == 0:
        return [sys.executable, *target]
    place = scratch / "zig"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "--only-binary=:all:",
    ]
    done = subprocess.run([*pip, f"--target={place}", ZIG], capture_output=True, text=True)
    if done.returncode != 0:
        raise InitBuildError(
            "this machine has no C compiler, and pip could not fetch one (ziglang):\n"
            f"{done.stderr[-1000:]}\nInstall gcc or clang, then run `hearth setup` again."
        )
    return [
        "env",
        f"PYTHONPATH={place}",
        f"ZIG_GLOBAL_CACHE_DIR={scratch / 'cache'}",
        sys.executable,
        *target,
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway.setup.native.init_build", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--release", action="store_true", help="build for every machine, with zig")
    release = parser.parse_args(arguments).release
    try:
        for machine in MACHINES if release else (platform.machine(),):
            if release or not is_current(machine):
                print(build(machine, release=release))
    except InitBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
