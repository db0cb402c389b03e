"""`migrate move`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from migrate.cli import check, placing, values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "move",
        help="move a running container to another host: memory, files and connections go along",
        examples="""
migrate move web1 --to host2
migrate move web1 --explain --dry-run
migrate move web1 --constraint disk==ssd
migrate move web1 --to host2 --dry-run
migrate move db1 --to host2 --max-downtime 500 --reason "new disk in host1"
migrate move db1 --to host2 --max-downtime 300 --timeout 2m --throttle --on-timeout pause
migrate move db1 --to host2 --mode postcopy
migrate move db1 --to host2 --timeout 1m --on-timeout post-copy
migrate move db1 --to host2 --hold --detach      # later: migrate commit ID
migrate move web1 --to host2 --end-exec         # ends what `migrate exec` has started
migrate move db1 --to host2 --bandwidth 100M --compress zstd
migrate move db1 --to host2 --connections 4
migrate move web1 --to host2 --format json | tail -n 1 | jq .facts
""",
    )
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the beginning of an id")
    parser.add_argument("--to", default="", metavar="HOST", help="where to (default: the host that suits it best)")
    parser.add_argument(
        "--constraint",
        action="append",
        default=[],
        metavar="EXPR",
        help="without --to: of the host's labels, such as disk==ssd, zone!=b or gpu; repeatable",
    )
    parser.add_argument(
        "--explain", action="store_true", help="without --to: print how each host was judged, and why it was refused"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept with the move's record")
    parser.add_argument(
        "--mode",
        choices=("auto", "precopy", "stop-and-copy", "postcopy"),
        default="",
        help="precopy sends memory while the container runs on; stop-and-copy sends all of it while it stands still; "
        "postcopy lets it run on the target before all of its memory is there: the shortest stop for a container that writes "
        "faster than the link, but if the source is lost in that time so is the container; auto (default, where no policy "
        "says another) chooses by what both hosts can do",
    )
    parser.add_argument(
        "--max-downtime",
        type=values.milliseconds,
        default=0.0,
        metavar="MS",
        help="how long the container may stand still; given, it is a limit: what does not fit ends by --on-timeout "
        "(default: 300, as a wish)",
    )
    parser.add_argument(
        "--max-rounds", type=values.positive, default=0, metavar="N", help="of memory sent ahead, at most (default: 30)"
    )
    parser.add_argument(
        "--timeout",
        type=values.duration,
        default=0.0,
        metavar="TIME",
        help="for sending ahead, such as 90, 30s or 2m; then --on-timeout (default: none)",
    )
    parser.add_argument(
        "--on-timeout",
        type=values.on_timeout,
        default="abort",
        metavar="abort|pause|post-copy",
        help="when --timeout is over, or --max-downtime is not to be met: abort (default), the container runs on where it is; "
        "pause freezes it all the same; post-copy lets what is left follow when it runs on the target, as --mode postcopy does",
    )
    parser.add_argument(
        "--throttle",
        action="store_true",
        help="where rounds gain nothing, give the container less and less processor time until it is moved",
    )
    parser.add_argument(
        "--compress",
        choices=("auto", "none", "lz4", "zstd"),
        default="auto",
        help="pack what is sent; auto (default) chooses by what the link takes and what the processors have left",
    )
    parser.add_argument(
        "--bandwidth",
        type=values.rate,
        default=0,
        metavar="RATE",
        help="send no more than this in a second, such as 100M or 1G (bytes, units of 1024); default: no limit. "
        "To change it while the move runs: migrate migrations set",
    )
    parser.add_argument(
        "--connections",
        type=values.connections,
        default=1,
        metavar="N",
        help="send over N ssh connections beside each other, up to 8: for hosts with processors to spare and a link that is faster "
        "than one ssh, or far (default: 1)",
    )
    parser.add_argument(
        "--hold",
        action="store_true",
        help="when all is ready, keep sending what changes and wait, the container running: migrate commit ID switches over, "
        "migrate cancel ID gives up",
    )
    check.add_end_exec(parser)
    parser.add_argument(
        "--no-policy", action="store_true", help="what is not said here is as usual, whatever `migrate policy` says"
    )
    check.add_skip(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="as `migrate check`, with what the move would do; change nothing"
    )
    parser.add_argument("--detach", action="store_true", help="print the id of the move and return; it goes on")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only errors")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: one object a line, last the record"
    )


def run(args: argparse.Namespace) -> int:
    from migrate.cli import progress
    from migrate.cli.follow import Following
    from migrate.client import Client

    if args.detach and args.dry_run:
        print("error: --dry-run has nothing to detach from\nhint: leave one of them out", file=sys.stderr)
        return 2
    if args.to and (args.constraint or args.explain):
        print("error: --constraint and --explain are for a move without --to\nhint: leave --to out", file=sys.stderr)
        return 2
    with Client(args.coordinator) as client:
        to = args.to
        if args.explain:
            ranking = client.place_move(args.container, constraints=args.constraint)
            print(placing.explained(ranking), file=sys.stderr if args.format == "json" else sys.stdout)
            to = ranking.best  # what was explained is what is done; where there is none, the coordinator says so
        if args.dry_run:
            return check.show(client, args, to=to, constraints=args.constraint, with_plan=True)
        moving = client.move(
            args.container,
            to=to,
            constraints=args.constraint,
            reason=args.reason,
            mode=args.mode,
            max_downtime_s=args.max_downtime,
            compress=args.compress,
            bandwidth=args.bandwidth,
            connections=args.connections,
            max_rounds=args.max_rounds,
            timeout_s=args.timeout,
            on_timeout=args.on_timeout,
            throttle=args.throttle,
            skip=args.skip,
            hold=args.hold,
            end_exec=args.end_exec,
            no_policy=args.no_policy,
        )
        if args.detach:
            for _ in moving:
                break  # the first event: it has begun
            print(moving.migration_id)
            return 0
        return Following(client, moving, progress.view(format=args.format, quiet=args.quiet)).to_the_end()
