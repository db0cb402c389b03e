"""`migrate start`, `stop`, `restart`, `kill`, `rm`, `wait`: one call for each container; goes on after an error and reports each."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from migrate.cli import failures, upkeep, values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client


CONDITIONS = (
    "exited", "stopped", "not-running", "next-exit", "removed", "running", "paused", "created", "healthy", "unhealthy",
)  # fmt: skip
LOOK_S = 0.25


def add_parser(subparsers: Subparsers) -> None:
    start = command(
        subparsers,
        "start",
        help="start created or exited containers",
        examples="migrate start web1 web2\nmigrate start -ai shell1",
    )
    start.add_argument("-a", "--attach", action="store_true", help="show what it writes, and end with its exit code")
    start.add_argument("-i", "--interactive", action="store_true", help="pass stdin on, too (with -a)")
    upkeep.add_attachment(start)
    stop = command(
        subparsers,
        "stop",
        help="stop running containers: the stop signal, then SIGKILL",
        examples="migrate stop web1\nmigrate stop -t 30 -s SIGINT web1 web2",
    )
    restart = command(
        subparsers,
        "restart",
        help="stop containers, where they run, and start them again",
        examples="migrate restart web1\nmigrate restart -t 30 -s SIGINT web1 web2",
    )
    for parser in (stop, restart):
        parser.add_argument(
            "-t",
            "--time",
            "--timeout",
            type=values.duration,
            default=None,
            metavar="SECONDS",
            help="time before SIGKILL (default: the container's)",
        )
        parser.add_argument(
            "-s", "--signal", type=values.signal, default=None, help="signal (default: the container's)"
        )
    kill = command(
        subparsers,
        "kill",
        help="send a signal to containers",
        examples="migrate kill web1\nmigrate kill -s HUP web1\nmigrate kill --all",
    )
    kill.add_argument("-s", "--signal", type=values.signal, default="SIGKILL", help="signal (default: SIGKILL)")
    remove = command(
        subparsers, "rm", help="remove containers", examples="migrate rm web1\nmigrate rm -f $(migrate ps -aq)"
    )
    remove.add_argument("-f", "--force", action="store_true", help="kill running containers first")
    remove.add_argument("-v", "--volumes", action="store_true", help="remove their anonymous volumes too")
    wait = command(
        subparsers,
        "wait",
        help="wait until containers have exited and print their exit codes",
        examples="migrate wait job1\nmigrate wait --condition healthy web1 && migrate move web1 --to host2",
    )
    wait.add_argument(
        "--condition",
        choices=CONDITIONS,
        default="exited",
        help="what to wait for instead of the end; next-exit: of one that does not run, of its next life",
    )
    for parser, text in ((stop, "all that run"), (restart, "all that run"), (kill, "all that run"), (remove, "all")):
        parser.add_argument("-a", "--all", action="store_true", help=f"{text}, on every host that answers")
    for parser in (start, stop, restart, kill, remove, wait):
        nargs = "+" if parser in (start, wait) else "*"
        parser.add_argument("containers", metavar="CONTAINER", nargs=nargs, help="name, id or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client
    from migrate.errors import MigrateError, NotFound

    status = 0
    if args.command == "start" and (args.attach or args.interactive):
        return _attached(args)
    if bool(args.containers) == bool(getattr(args, "all", False)):
        print(
            f"error: {args.command} takes names of containers, or --all\nhint: migrate {args.command} --help",
            file=sys.stderr,
        )
        return 2
    with Client(args.coordinator) as client:
        action = _action(client, args)
        for name in args.containers or _all(client, args.command):
            try:
                print(action(name), flush=True)
            except NotFound as exc:
                failure = failures.report(exc, command=args.command)
                if (
                    args.command != "rm" or not args.force
                ):  # as Docker: with -f what is not there is said, and no failure
                    status = failure
            except MigrateError as exc:
                status = failures.report(exc, command=args.command)
    return status


def _all(client: Client, verb: str) -> list[str]:
    """What --all means for the verb; hosts that do not answer are left out."""
    able = ("running", "paused", "restarting", "lost")
    found = [one for one in client.containers(all=True) if one.state != "unknown"]
    return [one.name for one in found if verb == "rm" or one.state in able]


def waited(client: Client, name: str, condition: str) -> str:
    """The exit code, or -1 of a condition that is none of an end, as Podman's. Raises NotFound but for "removed"."""
    from migrate.errors import NotFound

    if condition in ("exited", "stopped", "not-running"):
        return str(client.wait(name).exit_code)
    first = client.inspect(name)
    if condition == "next-exit" and first.state == "running":
        return str(client.wait(name).exit_code)
    while True:
        try:
            now = client.inspect(first.id)
        except NotFound:
            if condition == "removed":
                return "-1"
            raise
        if condition == "next-exit":
            if now.finished_unix_ns > first.finished_unix_ns:
                return str(now.exit_code)
        elif condition in (now.state, now.health_now.status):
            return "-1"
        time.sleep(LOOK_S)


def _attached(args: argparse.Namespace) -> int:
    from migrate.cli import terminal
    from migrate.client import Client
    from migrate.errors import InvalidArgument

    if len(args.containers) != 1:
        raise InvalidArgument("only one container can be attached to", hint="migrate start -a CONTAINER")
    with Client(args.coordinator) as client:
        container = client.inspect(args.containers[0])
        interactive = args.interactive and container.stdin_open
        if container.tty and interactive:
            terminal.need_terminal()
        return terminal.start_attached(
            client, container, interactive=interactive, detach_keys=args.detach_keys, sig_proxy=args.sig_proxy
        )


def _action(client: Client, args: argparse.Namespace) -> Callable[[str], str]:
    """What to do with one container; returns the line to print."""
    from migrate.errors import WrongState

    def start(name: str) -> str:
        try:
            client.start(name)
        except WrongState:  # one that runs already is what was asked for, as with Docker
            if client.inspect(name).state != "running":
                raise
        return name

    def stop(name: str) -> str:
        client.stop(name, timeout_s=args.time, signal=args.signal or "")
        return name

    def restart(name: str) -> str:
        client.restart(name, timeout_s=args.time, signal=args.signal or "")
        return name

    def kill(name: str) -> str:
        client.kill(name, signal=args.signal)
        return name

    def remove(name: str) -> str:
        client.remove(name, force=args.force, volumes=args.volumes)
        return name

    def wait(name: str) -> str:
        return waited(client, name, args.condition)

    return {"start": start, "stop": stop, "restart": restart, "kill": kill, "rm": remove, "wait": wait}[args.command]
