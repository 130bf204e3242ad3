"""The data folder of `hearth dev`: one for each folder that is developed in, below the folder for temporary files.

It is the same the next time. So a gateway that starts there removes what a killed one has left.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path


class UnsafeFolder(Exception):
    """The folder cannot be used. The message says why."""


def temporary_folder(developed: Path) -> Path:
    """Return the data folder for developing in a folder. Its parent is made, for this user alone.

    Raises `UnsafeFolder` and OSError.
    """
    parent = Path(tempfile.gettempdir()) / f"hearth-dev-{os.geteuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    found = parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UnsafeFolder(
            f"{parent} is not a folder of yours alone; remove it, or set TMPDIR to another place"
        )
    return parent / hashlib.sha256(os.fsencode(developed)).hexdigest()[:12]
