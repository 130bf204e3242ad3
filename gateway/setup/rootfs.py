"""Root file systems made of Debian packages: what images stand on where no registry answers.

Packages come from the apt sources that this machine is configured with, so that a mirror or an air-gapped
archive serves as well as the internet. Packages are unpacked, not installed: no maintainer script runs, and there is
no package manager or init in the result.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections import deque
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

NOT_WANTED = (
    "dev/*",
    "etc/*",
    "var/*",
    "usr/share/*",
    "usr/sbin/*",
    "usr/bin/perl*",
    "usr/bin/openssl",
    "usr/bin/debconf*",
    "usr/bin/dpkg*",
    "usr/bin/tar",
    "usr/lib/python3*/sitecustomize.py",
    "usr/lib/*/gconv*",
    "usr/lib/*/perl*",
    "usr/lib/python3*/test/*",
)
"""Paths that are left out. All of /etc: it would carry this machine's own settings into the image."""
TIME_ZONES = "usr/share/zoneinfo*"
"""Paths that stay, although they are below /usr/share."""
OTHER_TIME_ZONES = ("usr/share/zoneinfo/posix*", "usr/share/zoneinfo/right*")
"""The same zones once more, and once with leap seconds. Nothing looks for them there."""
PYTHON_PACKAGES = (
    *("python3", "python3-minimal", "libpython3-stdlib", "ca-certificates", "libstdc++6"),
    *("dash", "coreutils", "tzdata"),
)
"""libstdc++ because wheels for manylinux rely on it. The second line is what programs expect of any system: /bin/sh
with its commands, and time zones."""
STAGES = (
    "running apt-get update",
    "downloading packages",
    "extracting archives",
    "cleaning",
    "creating tarball",
)
CERTIFICATES = "usr/share/ca-certificates/mozilla/*.crt"
CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
OPENSSL_BUNDLE = "usr/lib/ssl/cert.pem"
"""Where Debian's OpenSSL looks first."""
MERGED_USR = Path("/usr/share/mmdebstrap/hooks/merged-usr")

Show = Callable[[str, float | None], None]


class RootfsError(Exception):
    """A root file system could not be made; the message says why and what to do."""


def python_rootfs(target: Path, show: Show) -> str:
    """Write a tar of a small Debian with Python to `target` and return that Python's version, as `3.11`."""
    raw = target.with_suffix(".raw")
    _mmdebstrap(PYTHON_PACKAGES, raw, show)
    version, certificates = None, bytearray()
    with tarfile.open(raw) as source, tarfile.open(target, "w") as result:
        for entry in source:
            entry.name = entry.name.removeprefix("./")
            if fnmatch(entry.name, CERTIFICATES):
                certificates += _content(source, entry)
            if found := re.fullmatch(r"usr/bin/python(3\.\d+)", entry.name):
                version = found[1]
            _copy(source, entry, result)
        _add_folder(result, "tmp", 0o1777)
        _add_file(result, CA_BUNDLE, bytes(certificates))
        _add_link(result, OPENSSL_BUNDLE, f"/{CA_BUNDLE}")
    raw.unlink()
    if version is None:
        raise RootfsError("Debian's python3 package brought no python3.X program")
    return version


def busybox_rootfs(target: Path, show: Show) -> None:
    """Write a tar of Debian's static busybox, with a link for each of its commands, to `target`."""
    raw, program = target.with_suffix(".raw"), target.with_name("busybox")
    _mmdebstrap(("busybox-static",), raw, show)
    with tarfile.open(raw) as source, tarfile.open(target, "w") as result:
        for entry in source:
            if entry.isfile() and entry.name.endswith("bin/busybox"):
                program.write_bytes(_content(source, entry))
        program.chmod(0o755)
        _add_folder(result, "tmp", 0o1777)
        _add_file(result, "bin/busybox", program.read_bytes(), 0o755)
        for command in _output([str(program), "--list"]).split():
            if command != "busybox":
                _add_link(result, f"bin/{command}", "busybox")
    raw.unlink()
    program.unlink()


def _copy(source: tarfile.TarFile, entry: tarfile.TarInfo, result: tarfile.TarFile) -> None:
    if is_wanted(entry.name):
        result.addfile(entry, source.extractfile(entry) if entry.isreg() else None)


def is_wanted(path: str) -> bool:
    """Return whether a path of the packages belongs into a root file system."""
    if fnmatch(path, TIME_ZONES):
        return not any(fnmatch(path, pattern) for pattern in OTHER_TIME_ZONES)
    return not any(fnmatch(path, pattern) for pattern in NOT_WANTED)


def _content(source: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    stream = source.extractfile(entry)
    return stream.read() if stream else b""


def _add_file(result: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    result.addfile(entry, io.BytesIO(content))


def _add_folder(result: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    result.addfile(entry)


def _add_link(result: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
    result.addfile(entry)


def _mmdebstrap(packages: Sequence[str], target: Path, show: Show) -> None:
    distribution = _distribution()
    _ensure_tool(show)
    command = [
        "mmdebstrap",
        "--variant=extract",
        "--format=tar",
        f"--include={','.join(packages)}",
        *([f"--hook-dir={MERGED_USR}"] if MERGED_USR.is_dir() else []),
        *_apt_settings(),
        distribution["VERSION_CODENAME"],
        str(target),
        "-",
    ]
    sources = _apt_sources(distribution["ID"].capitalize(), show)
    tail: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(sources)
        process.stdin.close()
        for line in process.stderr:
            tail.append(line.rstrip())
            text = line.removeprefix("I: ").strip()
            stage = next((i for i, name in enumerate(STAGES) if text.startswith(name)), None)
            if stage is not None:
                show(text.rstrip("."), stage / len(STAGES))
    if process.returncode != 0:
        raise RootfsError("mmdebstrap failed:\n" + "\n".join(tail))


def _distribution() -> dict[str, str]:
    release = Path("/etc/os-release")
    lines = release.read_text().splitlines() if release.exists() else []
    facts = dict(line.replace('"', "").split("=", 1) for line in lines if "=" in line)
    if facts.get("ID") not in ("debian", "ubuntu") or "VERSION_CODENAME" not in facts:
        raise RootfsError(
            "No registry answers, and this is neither Debian nor Ubuntu, whose packages could take its place. "
            "Make a registry reachable, or build the images on a Debian machine and carry them over: "
            "docker save | docker load."
        )
    return facts


def _ensure_tool(show: Show) -> None:
    if shutil.which("mmdebstrap"):
        return
    if os.geteuid() != 0:
        raise RootfsError("mmdebstrap is missing. As root: apt-get install mmdebstrap")
    show("installing mmdebstrap", None)
    _apt_get("update")
    _apt_get("install", "-y", "--no-install-recommends", "mmdebstrap")


def _apt_sources(origin: str, show: Show) -> str:
    """The distribution's own sources as this machine has them, in apt's one-line form."""
    command = ["apt-get", "indextargets", "--format", "deb $(SITE) $(RELEASE) $(COMPONENT)"]
    command += ["Created-By: Packages", f"Origin: {origin}"]
    found = _output(command)
    if not found and os.geteuid() == 0:
        show("fetching the package lists", None)
        _apt_get("update")
        found = _output(command)
    if not found:
        raise RootfsError(f"apt knows no source of {origin} packages. As root: apt-get update")
    return found


def _apt_settings() -> list[str]:
    """This machine's proxy and TLS settings for apt, which mmdebstrap does not take over by itself."""
    lines = _output(["apt-config", "dump", "Acquire::http", "Acquire::https"]).splitlines()
    wanted = [line for line in lines if line.startswith(("Acquire::http::", "Acquire::https::"))]
    return [f"--aptopt={line}" for line in wanted if not line.endswith(' "";')]


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _apt_get(*arguments: str) -> None:
    done = subprocess.run(
        ["apt-get", "-q", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RootfsError(f"apt-get {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
