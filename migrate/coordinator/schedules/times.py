"""When a job is due. Pure functions of instants; cron's fields and both changes of the clock are cronsim's (docs/adr/0016).

As Debian's cron: what is to run at a time that the clock passes over runs right after the change; what is to run at a time that comes
twice runs the first time. Jobs of every hour or minute follow real time.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from collections.abc import Iterable
from dataclasses import dataclass

from cronsim import CronSim, CronSimError

from migrate.errors import InvalidArgument

_DAY = r"(?:(\d{4})-)?(\d{2})-(\d{2})"
_FARTHEST = datetime.timedelta(days=3660)  # what is in blackouts for that long is never due


@dataclass(frozen=True, kw_only=True)
class Blackout:
    """Whole days, both inclusive, in the job's time zone. `yearly`: (month, day) of every year; `first` may be after `last` then."""

    first: tuple[int, int, int]  # year 0 = yearly
    last: tuple[int, int, int]

    def covers(self, day: datetime.date) -> bool:
        if self.first[0]:
            return self.first <= (day.year, day.month, day.day) <= self.last
        at = (0, day.month, day.day)
        return self.first <= at <= self.last if self.first <= self.last else at >= self.first or at <= self.last


class Timetable:
    """Of one job. Raises InvalidArgument for a wrong cron line, zone or blackout. `cron` "": never due by itself.

    Instants are nanoseconds of Unix time; 0 = none.
    """

    def __init__(self, cron: str, tz: str, blackouts: Iterable[str] = ()) -> None:
        self.cron = cron
        self.zone = zone(tz)
        self.blackouts = tuple(blackout(text) for text in blackouts)
        if not cron:
            return
        if len(cron.split()) != 5:
            raise InvalidArgument(
                f"{cron!r} has {len(cron.split())} fields",
                hint='five: minute, hour, day of the month, month, day of the week, such as "0 2 * * SAT"',
            )
        try:
            next(CronSim(cron, datetime.datetime(2024, 1, 1, tzinfo=self.zone)))  # a leap year: 29 February counts
        except CronSimError as exc:
            raise InvalidArgument(f"{cron!r} is no cron line: {exc}", hint='such as "0 2 * * SAT"') from exc
        except StopIteration:
            raise InvalidArgument(f"{cron!r} never comes", hint="there is no such day in any year") from None

    def next_after(self, instant_ns: int) -> int:
        """The first time after `instant_ns` that is in no blackout."""
        return self._first(instant_ns, reverse=False)

    def last_until(self, instant_ns: int, since_ns: int) -> int:
        """The last time from `since_ns` to `instant_ns`, both inclusive, that is in no blackout."""
        found = self._first(instant_ns + 1_000_000_000, reverse=True, until=instant_ns)
        return found if found >= since_ns else 0

    def end_of_window(self, due_ns: int, window_s: float) -> int:
        """`window_s` after it was due, in real time, or the beginning of a blackout within that."""
        end = due_ns + int(window_s * 1e9)
        day = self.local(due_ns).date() + datetime.timedelta(days=1)
        while (midnight := _ns(datetime.datetime.combine(day, datetime.time(), self.zone))) < end:
            if self.is_out(midnight):
                return midnight
            day += datetime.timedelta(days=1)
        return end

    def is_out(self, instant_ns: int) -> bool:
        """Within a blackout."""
        day = self.local(instant_ns).date()
        return any(one.covers(day) for one in self.blackouts)

    def local(self, instant_ns: int) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(instant_ns // 1_000_000_000, self.zone)

    def _first(self, instant_ns: int, *, reverse: bool, until: int = 0) -> int:
        if not self.cron:
            return 0
        start = self.local(instant_ns)
        for at in CronSim(self.cron, start, reverse=reverse):
            found = _ns(at)
            # Asked from within the hour that comes twice, cronsim names times of its first half, too.
            if (reverse and found > until) or (not reverse and found <= instant_ns):
                continue
            if not self.is_out(found):
                return found
            if abs(at - start) > _FARTHEST:
                break
        return 0


def zone(name: str) -> zoneinfo.ZoneInfo:
    """Raises InvalidArgument. From the system, else from the package tzdata."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise InvalidArgument(f"there is no time zone {name!r}", hint="such as Europe/Berlin or UTC") from exc


def blackout(text: str) -> Blackout:
    """Of "2026-12-24", "2026-12-20..2027-01-06", or, of every year, "12-24", "12-20..01-06"."""
    first, dots, last = text.partition("..")
    found = [re.fullmatch(_DAY, part) for part in (first, last if dots else first)]
    days: list[tuple[int, int, int]] = []
    for one in found:
        if one is None:
            break
        year, month, day = int(one[1] or 0), int(one[2]), int(one[3])
        try:
            datetime.date(year or 2024, month, day)
        except ValueError:
            break
        days.append((year, month, day))
    if len(days) != 2 or bool(days[0][0]) != bool(days[1][0]) or (days[0][0] and days[0] > days[1]):
        raise InvalidArgument(
            f"{text!r} is no time of blackout",
            hint="days, both inclusive: 2026-12-24, 2026-12-20..2027-01-06, or of every year 12-20..01-06",
        )
    return Blackout(first=days[0], last=days[1])


def _ns(at: datetime.datetime) -> int:
    return int(at.timestamp()) * 1_000_000_000
