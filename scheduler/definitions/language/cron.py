"""When a schedule fires: cron expressions in a time zone. Pure functions of wall time, in seconds since 1970."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


def parse_zone(name: object) -> ZoneInfo:
    """The time zone of this name. Raises ValueError."""
    try:
        return ZoneInfo(str(name))
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{str(name)!r} is no time zone; write one like Europe/Berlin, or UTC") from None


class Cron:
    """A cron expression of five fields, or of six with the seconds first. Raises ValueError for any other.

    A time that the change to summer time skips is made up for at the change; one that comes twice at the change back
    counts once. An expression with a `*` or `*/N` in minutes or hours, or with seconds, goes by real time instead.
    """

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        self.expression = " ".join(expression.split())
        self.zone = parse_zone(zone)
        try:
            CronSim(self.expression, datetime(2000, 1, 1, tzinfo=UTC))
        except (CronSimError, ValueError, TypeError, AssertionError) as error:
            raise ValueError(
                f"{expression!r} is no cron expression ({error}); write minute, hour, day, month and weekday, "
                'like "*/5 * * * *", or six fields with the seconds first'
            ) from None

    def after(self, wall: float) -> Iterator[float]:
        """The times after this one, each later than the one before; where one begins changes none of them."""
        last = wall
        zone = UTC if self.zone.key == "UTC" else self.zone
        for moment in CronSim(self.expression, datetime.fromtimestamp(wall, zone)):
            if (at := moment.timestamp()) > last:  # of an hour that comes twice, the first is in the past
                last = at
                yield at

    def latest(self, after: float, until: float, most: int) -> list[float]:
        """The times after `after` up to `until`, at most the latest so many; without going through all of them."""
        span = float(most)
        while True:
            begin = max(after, until - span)
            times = deque(takewhile(lambda at: at <= until, self.after(begin)), maxlen=most)
            if begin == after or len(times) == most:
                return list(times)
            span *= 4
