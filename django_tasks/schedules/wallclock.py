"""At which moment does the clock on a wall show a time, and what when it shows it twice or never?

Wall times are naive, and in whole seconds; moments are in UTC. Where clocks are put forward, the times between are not
shown (a gap); where they are put back, some are shown twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django_tasks.exceptions import ScheduleError

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class WallClock:
    """A clock on a wall in one time zone."""

    zone: tzinfo

    def moments(self, wall: datetime) -> tuple[datetime, datetime] | None:
        """Return the first and the last moment at which the clock shows a time, mostly the same; None in a gap."""
        earlier, later = self._offsets(wall)
        return None if earlier < later else ((wall - earlier).replace(tzinfo=UTC), (wall - later).replace(tzinfo=UTC))

    def end_of_gap(self, wall: datetime) -> datetime:
        """Return the moment at which the clock is put forward over a time that it does not show."""
        earlier, later = self._offsets(wall)
        return self._change((wall - later).replace(tzinfo=UTC), (wall - earlier).replace(tzinfo=UTC))

    def shows(self, moment: datetime) -> datetime:
        """Return what the clock shows."""
        return moment.astimezone(self.zone).replace(tzinfo=None)

    def after(self, moment: datetime) -> tuple[datetime, datetime]:
        """Return the least times that the clock shows for the first time, and for the last time, after a moment.

        They are the same but while the clock shows what it shows twice. Then what is shown for the first time begins,
        in the second round, at its end; and what is shown for the last time begins, in the first, with the second.
        """
        here = moment.astimezone(self.zone)
        wall = here.replace(tzinfo=None, microsecond=0, fold=0)
        earlier, later = self._offsets(wall)
        coming = wall + _SECOND
        if earlier <= later:
            return coming, coming
        change = self._change((wall - earlier).replace(tzinfo=UTC), (wall - later).replace(tzinfo=UTC))
        plain = change.replace(tzinfo=None)
        return (plain + earlier, coming) if here.fold else (coming, plain + later)

    def _offsets(self, wall: datetime) -> tuple[timedelta, timedelta]:
        """Return the distances from UTC before and after the change that makes a time special; equal for most times."""
        earlier = wall.replace(tzinfo=self.zone, fold=0).utcoffset()
        later = wall.replace(tzinfo=self.zone, fold=1).utcoffset()
        assert earlier is not None
        assert later is not None
        return earlier, later

    def _change(self, low: datetime, high: datetime) -> datetime:
        """Return the moment, after one and not after another, at which the zone has put its clocks."""
        before = low.astimezone(self.zone).utcoffset()
        reach, seconds = 0, int((high - low).total_seconds())
        while seconds - reach > 1:
            middle = (reach + seconds) // 2
            if (low + middle * _SECOND).astimezone(self.zone).utcoffset() == before:
                reach = middle
            else:
                seconds = middle
        return low + seconds * _SECOND


def wall_clock(tz: str | None) -> WallClock:
    """Return the clock of a time zone; UTC's for None."""
    return WallClock(UTC if tz is None else ZoneInfo(tz))


def key_of(tz: str | tzinfo | None) -> str | None:
    """Return the key of a time zone; raises ScheduleError for one that this host does not know."""
    key = tz
    if isinstance(tz, tzinfo):
        key = "UTC" if tz is UTC else getattr(tz, "key", None)
        if key is None:
            raise ScheduleError(f"tz={tz!r} has no key: use zoneinfo.ZoneInfo, such as ZoneInfo('Europe/Berlin').")
    if key is None:
        return None
    if not isinstance(key, str):
        raise TypeError(f"tz is the key of a time zone, such as 'Europe/Berlin', not {tz!r}.")
    try:
        ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the key of a folder of zones
        raise ScheduleError(
            f"tz={key!r}: this host knows no such time zone. Keys are like 'Europe/Berlin'; if it is one, install or "
            "update the tzdata package."
        ) from error
    return key
