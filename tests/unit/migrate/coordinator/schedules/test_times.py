"""When jobs are due: both changes of the clock, blackouts, windows, what is no cron line."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest

from migrate.coordinator.schedules.times import Timetable
from migrate.errors import InvalidArgument

pytestmark = pytest.mark.unit

BERLIN = "Europe/Berlin"


def ns(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp()) * 10**9


def dues(cron: str, after: str, count: int, tz: str = BERLIN, blackouts: tuple[str, ...] = ()) -> list[str]:
    table, at, found = Timetable(cron, tz, blackouts), ns(after), []
    for _ in range(count):
        at = table.next_after(at)
        found.append(table.local(at).isoformat())
    return found


def test_the_hour_that_is_missing_in_spring() -> None:
    """What is due within it runs when the clock has changed, once; the day after it is due as ever."""
    assert dues("30 2 * * *", "2026-03-28T00:00+01:00", 3) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert dues("30 3 * * *", "2026-03-28T12:00+01:00", 1) == ["2026-03-29T03:30:00+02:00"]


def test_the_hour_that_comes_twice_in_autumn() -> None:
    """What is due within it runs the first time alone, also for somebody who asks between the two."""
    assert dues("30 2 * * *", "2026-10-24T12:00+02:00", 2) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    for between in ("2026-10-25T02:31+02:00", "2026-10-25T02:15+01:00", "2026-10-25T02:59+01:00"):
        assert dues("30 2 * * *", between, 1) == ["2026-10-26T02:30:00+01:00"]


def test_every_hour_is_every_hour() -> None:
    """Real hours, through both changes."""
    spring = dues("30 * * * *", "2026-03-29T00:00+01:00", 3)
    assert spring == ["2026-03-29T00:30:00+01:00", "2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"]
    autumn = dues("30 * * * *", "2026-10-25T01:45+02:00", 3)
    assert autumn == ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"]


@pytest.mark.parametrize("tz", [BERLIN, "America/New_York", "Australia/Lord_Howe", "UTC"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "0 2 * * SAT", "*/20 1-3 * * *"])
@pytest.mark.parametrize(("start", "end"), [("2026-03-05", "2026-04-08"), ("2026-10-01", "2026-11-04")])
def test_time_goes_on_through_the_changes(cron: str, tz: str, start: str, end: str) -> None:
    """Each time is after the last, and looking back from the next finds it."""
    table, at, seen = Timetable(cron, tz), ns(f"{start}T00:00+00:00"), 0
    while (following := table.next_after(at)) < ns(f"{end}T00:00+00:00"):
        assert following > at
        assert table.last_until(following, 0) == following
        if seen:
            assert table.last_until(following - 10**9, 0) == at, table.local(following)
        at, seen = following, seen + 1
    assert seen >= 4


def test_a_window_is_real_time() -> None:
    """Four hours from two o'clock end at five in autumn and at seven in spring; a blackout ends it."""
    autumn = Timetable("0 2 * * *", BERLIN)
    assert autumn.local(autumn.end_of_window(ns("2026-10-25T02:00+02:00"), 4 * 3600)).hour == 5
    assert autumn.local(autumn.end_of_window(ns("2026-03-29T01:00+01:00"), 4 * 3600)).hour == 6
    table = Timetable("0 22 * * *", BERLIN, ["2026-12-24..2027-01-02"])
    assert table.end_of_window(ns("2026-12-23T22:00+01:00"), 4 * 3600) == ns("2026-12-24T00:00+01:00")
    assert table.end_of_window(ns("2026-12-22T22:00+01:00"), 4 * 3600) == ns("2026-12-23T02:00+01:00")


def test_blackouts_are_passed_over() -> None:
    """Days of one year, and days of every year that go over its end."""
    assert dues("0 2 * * *", "2026-12-19T12:00+01:00", 1, blackouts=("2026-12-20..2027-01-06",)) == [
        "2027-01-07T02:00:00+01:00"
    ]
    assert dues("0 2 * * *", "2030-12-19T12:00+01:00", 2, blackouts=("12-21..01-06",)) == [
        "2030-12-20T02:00:00+01:00",
        "2031-01-07T02:00:00+01:00",
    ]
    always = Timetable("0 2 * * *", "UTC", ["01-01..12-31"])
    assert always.next_after(ns("2026-12-19T12:00+01:00")) == 0


def test_the_last_time_that_was_missed() -> None:
    """The newest that is not older than what is asked for."""
    table = Timetable("0 2 * * *", BERLIN)
    now = ns("2026-11-25T01:00+01:00")
    assert table.last_until(now, ns("2026-11-20T02:00+01:00")) == ns("2026-11-24T02:00+01:00")
    assert table.last_until(now, ns("2026-11-24T02:00:01+01:00")) == 0


@pytest.mark.parametrize(
    ("cron", "tz", "blackouts", "text"),
    [
        ("0 2 * *", "UTC", (), "has 4 fields"),
        ("0 0 2 * * *", "UTC", (), "has 6 fields"),
        ("61 2 * * *", "UTC", (), "Bad minute"),
        ("0 2 30 2 *", "UTC", (), "Bad day"),
        ("0 2 * * *", "Europe/Atlantis", (), "no time zone"),
        ("0 2 * * *", "../etc/passwd", (), "no time zone"),
        ("0 2 * * *", "UTC", ("2026-02-30",), "no time of blackout"),
        ("0 2 * * *", "UTC", ("2026-12-20..01-06",), "no time of blackout"),
        ("0 2 * * *", "UTC", ("2026-12-20..2026-12-19",), "no time of blackout"),
    ],
)
def test_what_is_wrong_is_said(cron: str, tz: str, blackouts: tuple[str, ...], text: str) -> None:
    """Before anything is stored."""
    with pytest.raises(InvalidArgument, match=text):
        Timetable(cron, tz, blackouts)


def test_a_leap_day_is_a_day() -> None:
    """Even where the next one is years away."""
    table = Timetable("0 2 29 2 *", "UTC")
    assert table.local(table.next_after(ns("2026-01-01T00:00+00:00"))) == datetime.datetime(
        2028, 2, 29, 2, tzinfo=ZoneInfo("UTC")
    )
