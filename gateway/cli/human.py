"""Times, durations and sizes as people read them. JSON keeps the API's own times, which are UTC."""

from __future__ import annotations

from datetime import datetime


def human_time(text: str | None) -> str:
    """Return a time of the API in this machine's zone, as `2026-11-29 03:12:05 CET`, or `-` for None."""
    if text is None:
        return "-"
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def human_seconds(seconds: float) -> str:
    """Return a number of seconds for people, like 0.4s, 12s, 3m20s, 2h05m or 3d04h."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for large, small, names in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= large:
            return f"{whole // large}{names[0]}{whole % large // small:02d}{names[1]}"
    return f"{whole}s"


def human_size(size: float) -> str:
    """Return a number of bytes for people, like 128 MiB or 17.7 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
