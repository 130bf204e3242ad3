"""Cron expressions in a time zone: the times at which a schedule fires. Pure; wall times in seconds since 1970."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


def parse_zone(name: object) -> ZoneInfo:
    """Return the time zone of this name. Raises ValueError if there is none."""
    try:
        return ZoneInfo(str(name))
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{str(name)!r} is not a time zone; write one like Europe/Berlin, or UTC") from None


class Cron:
    """A cron expression of five fields, or of six with the seconds first. Raises ValueError for any other.

    A time that the change to summer time skips fires at the change. A time that comes twice at the change back fires
    once. An expression with `*` or `*/N` in minutes or hours, or with seconds, follows real time instead.
    """

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        self.expression = " ".join(expression.split())
        self.zone = parse_zone(zone)
        try:
            CronSim(self.expression, datetime(2000, 1, 1, tzinfo=UTC))
        except (CronSimError, ValueError, TypeError, AssertionError) as error:
            raise ValueError(
                f"{expression!r} is not a cron expression ({error}); write minute, hour, day, month and weekday, "
                'like "*/5 * * * *", or six fields with the seconds first'
            ) from None

    def after(self, wall: float) -> Iterator[float]:
        """Yield the times after `wall`, in order. The same times come out wherever one begins."""
        last = wall
        zone = UTC if self.zone.key == "UTC" else self.zone
        for moment in CronSim(self.expression, datetime.fromtimestamp(wall, zone)):
            if (at := moment.timestamp()) > last:  # an hour that comes twice yields its times twice
                last = at
                yield at

    def latest(self, after: float, until: float, most: int) -> list[float]:
        """Return the latest times after `after` up to `until`, `most` of them at most.

        It searches backwards in growing spans, so that a long down-time is not walked through from its beginning.
        """
        span = float(most)
        while True:
            begin = max(after, until - span)
            times = deque(takewhile(lambda at: at <= until, self.after(begin)), maxlen=most)
            if begin == after or len(times) == most:
                return list(times)
            span *= 4
