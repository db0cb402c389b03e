"""`migrate schedule evacuate|rolling|ls|show|pause|resume|run-now|cancel|rm`. docs/fleet.md"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from typing import TYPE_CHECKING

from migrate.cli import schedule_show, values
from migrate.cli.evacuate import ACTIONS
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records_schedules import ScheduleRun

LOOK_S = 0.5
LOST_S = 120.0  # how long a coordinator that has gone away is waited for

FAMILY = """
migrate schedule evacuate host1 --cron "0 2 * * SAT" --window 4h --tz Europe/Berlin
migrate schedule rolling rack==a --hook 'ssh root@$MIGRATE_ADDRESS systemctl reboot' --reboots
migrate schedule ls
migrate schedule show evacuate-host1
migrate schedule run-now evacuate-host1
"""
EVACUATE = """
migrate schedule evacuate host1 --cron "0 2 * * SAT" --window 4h --tz Europe/Berlin
migrate schedule evacuate host1 --cron "0 2 1 * *" --deadline 90m --one-at-a-time rack==a
migrate schedule evacuate host1 --cron "0 2 * * SAT" --blackout 12-20..01-06 --blackout 2026-11-28 --missed skip
"""
ROLLING = """
migrate schedule rolling all --hook /usr/local/sbin/upgrade-host
migrate schedule rolling rack==a --hook 'ssh root@$MIGRATE_ADDRESS systemctl reboot' --reboots --host-timeout 20m
migrate schedule rolling rack==a,disk!=old --hook /usr/local/sbin/upgrade-host --cron "0 2 * * SUN#1" --tz Europe/Berlin
"""


def add_parser(subparsers: Subparsers) -> None:
    family = command(
        subparsers,
        "schedule",
        help="empty hosts at their times; or the hosts of a group one after the other, with a hook",
        examples=FAMILY,
    )
    verbs = family.add_subparsers(
        dest="action", required=True, metavar="evacuate|rolling|ls|show|pause|resume|run-now|cancel|rm"
    )
    evacuate = command(verbs, "evacuate", help="evacuate a host at its times; it stays cordoned", examples=EVACUATE)
    evacuate.add_argument("host", metavar="HOST")
    evacuate.add_argument(
        "--one-at-a-time",
        dest="group",
        default="",
        metavar="GROUP",
        help="not while another host of this group is cordoned or away: constraints on labels of hosts, such as rack==a, or all",
    )
    _times(evacuate, needs_cron=True)
    rolling = command(
        verbs,
        "rolling",
        help="one host of a group after the other: evacuate it, run a hook, wait until it is back, bring its containers home",
        examples=ROLLING,
    )
    rolling.add_argument(
        "group", metavar="GROUP", help="constraints on labels of hosts, such as rack==a,disk!=old, or all"
    )
    add = rolling.add_argument
    add(
        "--hook",
        default="",
        metavar="CMD",
        help="for /bin/sh on the coordinator's host, as the coordinator's user, when the host is empty; it knows $MIGRATE_HOST and "
        "$MIGRATE_ADDRESS. Status 0: go on; any other: the host stays cordoned, and the run ends",
    )
    add("--hook-timeout", type=values.duration, default=0.0, metavar="TIME", help="then it is ended (default: 1h)")
    add(
        "--reboots",
        action="store_true",
        help="the hook restarts the host: wait for another kernel, not only for an answer",
    )
    add(
        "--host-timeout",
        type=values.duration,
        default=0.0,
        metavar="TIME",
        help="for the host to be back (default: 15m)",
    )
    _times(rolling, needs_cron=False)
    _verbs(verbs)


def _times(parser: argparse.ArgumentParser, *, needs_cron: bool) -> None:
    add = parser.add_argument
    add(
        "--cron",
        required=needs_cron,
        default="",
        metavar="LINE",
        help="minute, hour, day of the month, month, day of the week"
        + ("" if needs_cron else "; without it: now, and only once"),
    )
    add("--tz", default="UTC", metavar="ZONE", help="the time zone of --cron and --blackout (default: UTC)")
    add(
        "--window",
        type=values.duration,
        default=0.0,
        metavar="TIME",
        help="from its time on: then no host's turn comes and no move begins (default: 4h)",
    )
    add(
        "--blackout",
        action="append",
        default=[],
        metavar="DAYS",
        help="not on these days: 2026-12-24, 2026-12-20..2027-01-06, or of every year 12-20..01-06; repeatable",
    )
    add(
        "--missed",
        choices=("run", "skip"),
        default="run",
        help="what becomes of a run whose time came while no coordinator was there: run it late, within its window (default), or not",
    )
    add("--name", default="", metavar="NAME", help="(default: made of the host or the group)")
    add("--to", action="append", default=[], metavar="HOST", help="containers go only there; repeatable")
    add("--action", choices=ACTIONS, default="", dest="what", help="as of migrate evacuate")
    add(
        "--deadline",
        type=values.duration,
        default=0.0,
        metavar="TIME",
        help="of one host's evacuation, from its beginning",
    )
    add(
        "--selector",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only containers with this label; repeatable",
    )
    add("--max-parallel", type=values.positive, default=0, metavar="N", help="moves at once (default: 2)")
    add(
        "--bandwidth",
        type=values.rate,
        default=0,
        metavar="RATE",
        help="of all moves together in a second, such as 100M",
    )
    add("--reason", default="", metavar="TEXT", help="of the cordon and the moves")
    if not needs_cron:
        add("--detach", action="store_true", help="without --cron: print the run's id and return; it goes on")
    add("--format", choices=("text", "json"), default="text")


def _verbs(verbs: Subparsers) -> None:
    ls = command(verbs, "ls", help="list schedules", examples="migrate schedule ls\nmigrate schedule ls --format json")
    ls.add_argument("--format", choices=("table", "json"), default="table")
    show = command(
        verbs,
        "show",
        help="a schedule with its last runs; or one run with what its hooks have printed",
        examples="migrate schedule show evacuate-host1\nmigrate schedule show evacuate-host1 -n 50\n"
        "migrate schedule show evacuate-host1 --run 4f2a",
    )
    show.add_argument("name", metavar="SCHEDULE")
    show.add_argument("--run", default="", metavar="RUN", help="only this run: its id, or the beginning of it")
    show.add_argument("-n", "--limit", type=values.positive, default=10, metavar="N", help="runs (default: 10)")
    show.add_argument("--format", choices=("text", "json"), default="text")
    now = command(
        verbs,
        "run-now",
        help="run it at once, whatever its times and blackouts",
        examples="migrate schedule run-now evacuate-host1\nmigrate schedule run-now evacuate-host1 --detach",
    )
    now.add_argument("name", metavar="SCHEDULE")
    now.add_argument("--detach", action="store_true", help="print the run's id and return; it goes on")
    now.add_argument("--format", choices=("text", "json"), default="text", help="json: the run as it ended")
    for name, help_ in (
        ("pause", "it is due no more; a run that goes on goes on"),
        ("resume", "it is due again, from now on"),
        ("cancel", "of the run that goes on: no more hosts, no more moves; a host that is away comes home"),
        ("rm", "remove schedules with their history"),
    ):
        parser = command(verbs, name, help=help_, examples=f"migrate schedule {name} evacuate-host1")
        parser.add_argument("names", metavar="SCHEDULE", nargs="+")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        if args.action in ("evacuate", "rolling"):
            return _add(client, args)
        if args.action == "ls":
            found = client.schedules()
            if args.format == "json":
                print(json.dumps([one.to_dict() for one in found], indent=2))
            else:
                print(schedule_show.listed(found))
            return 0
        if args.action == "show":
            return _show(client, args)
        if args.action == "run-now":
            return _follow(client, client.run_schedule(args.name), detach=args.detach, format=args.format)
        for name in args.names:
            if args.action == "pause":
                client.pause_schedule(name)
                print(f"{name} is paused")
            elif args.action == "resume":
                resumed = client.resume_schedule(name)
                print(f"{name} is due {resumed.next_local or 'never: migrate schedule run-now ' + name}")
            elif args.action == "cancel":
                print(f"run {client.cancel_schedule(name).id} of {name} begins nothing more")
            else:
                client.remove_schedule(name)
                print(f"{name} is removed")
    return 0


def _add(client: Client, args: argparse.Namespace) -> int:
    from migrate.records_schedules import ScheduleJob

    wrong = next((text for text in args.selector if "=" not in text), "")
    if wrong:
        print(f"error: {wrong!r} is not KEY=VALUE\nhint: migrate schedule {args.action} --help", file=sys.stderr)
        return 2
    rolling = args.action == "rolling"
    subject = args.group if rolling else args.host
    made = client.add_schedule(
        ScheduleJob(
            name=args.name or re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{args.action}-{subject}").strip("-"),
            kind=args.action,
            host="" if rolling else args.host,
            group=args.group,
            cron=args.cron,
            tz=args.tz,
            blackouts=tuple(args.blackout),
            window_s=args.window,
            missed=args.missed,
            to=tuple(args.to),
            action=args.what,
            max_parallel=args.max_parallel,
            bandwidth=args.bandwidth,
            deadline_s=args.deadline,
            selector=values.labels(args.selector),
            reason=args.reason,
            hook=args.hook if rolling else "",
            hook_timeout_s=args.hook_timeout if rolling else 0.0,
            reboots=rolling and args.reboots,
            host_timeout_s=args.host_timeout if rolling else 0.0,
        )
    )
    if not args.cron:
        return _follow(client, client.run_schedule(made.job.name), detach=args.detach, format=args.format)
    if args.format == "json":
        print(json.dumps(made.to_dict(), indent=2))
    else:
        print(f"{made.job.name}: due {made.next_local}")
    return 0


def _show(client: Client, args: argparse.Namespace) -> int:
    found = client.schedule_run(args.run) if args.run else client.schedule(args.name, runs=args.limit)
    if args.format == "json":
        print(json.dumps(found.to_dict(), indent=2))
    elif args.run:
        print(schedule_show.run(client.schedule_run(args.run), output=True))
    else:
        print(schedule_show.shown(client.schedule(args.name, runs=args.limit)))
    return 0


def _follow(client: Client, begun: ScheduleRun, *, detach: bool, format: str) -> int:
    """Print what changes, to the run's end; 0 when it succeeded, else 1. Ctrl-C leaves it going on: 130."""
    from migrate.errors import Unreachable

    if detach:
        print(begun.id)
        return 0
    again = f"migrate schedule show {begun.schedule} --run {begun.id[:12]}"
    told: dict[str, str] = {}
    lost: float | None = None
    try:
        while True:
            try:
                now, lost = client.schedule_run(begun.id), None
            except Unreachable:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > LOST_S:
                    raise
                time.sleep(LOOK_S)
                continue
            for leg in now.legs:
                line = schedule_show.line(leg)
                if format == "text" and told.get(leg.host, "planned") != line:
                    told[leg.host] = line
                    print(f"{leg.host}: {line}", flush=True)
            if now.state != "running":
                print(json.dumps(now.to_dict()) if format == "json" else schedule_show.run(now, output=False))
                return 0 if now.state == "succeeded" else 1
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        print(f"\nit goes on; to see: {again}; to end it: migrate schedule cancel {begun.schedule}", file=sys.stderr)
        return 130
