"""`migrate rebalance`. docs/fleet.md"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from migrate.cli import tables, values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records_rebalance import RebalancePlan


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "rebalance",
        help="move containers from fuller hosts to emptier ones, one after the other",
        examples="migrate rebalance --dry-run\nmigrate rebalance --threshold 10 --cooldown 6h --max-moves 3\n"
        "migrate rebalance --bandwidth 100M --reason 'host4 is new'",
    )
    add = parser.add_argument
    add("--dry-run", action="store_true", help="print the plan")
    add(
        "--threshold",
        type=values.positive,
        default=20,
        metavar="PERCENT",
        help="of their memory between the fullest and the emptiest host, within which nothing is moved (default: 20)",
    )
    add(
        "--cooldown",
        type=values.duration,
        default=3600.0,
        metavar="TIME",
        help="containers that have moved within that stay (default: 1h)",
    )
    add("--max-moves", type=values.positive, default=10, metavar="N", help="(default: 10)")
    add("--bandwidth", type=values.rate, default=0, metavar="RATE", help="of each move in a second, such as 100M")
    add("--reason", default="rebalance", metavar="TEXT", help="kept with the moves' records")
    add("--format", choices=("text", "json"), default="text", help="json: the plan; then an object a move")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    with Client(args.coordinator) as client:
        plan = client.plan_rebalance(threshold=args.threshold / 100, cooldown_s=args.cooldown, max_moves=args.max_moves)
        print(json.dumps(plan.to_dict()) if args.format == "json" else shown(plan), flush=True)
        return 0 if args.dry_run else _carry_out(client, plan, args)


def _carry_out(client: Client, plan: RebalancePlan, args: argparse.Namespace) -> int:
    """One after the other; one that fails holds up none. 1 where one has failed."""
    from migrate.errors import MigrateError

    failed = 0
    for move in plan.moves:
        result = {"container": move.container, "source": move.source, "target": move.target, "error": ""}
        try:
            done = client.move(move.container_id, to=move.target, bandwidth=args.bandwidth, reason=args.reason).result()
            downtime_s = done.facts.get("downtime_s", 0.0)
            text = f"moved to {move.target}, stood still {tables.seconds(downtime_s)}"
        except MigrateError as exc:
            failed += 1
            text = result["error"] = exc.message
        print(json.dumps(result) if args.format == "json" else f"{move.container}: {text}", flush=True)
    return 1 if failed else 0


def shown(plan: RebalancePlan) -> str:
    """How full the hosts are and would be; the moves; what stays."""
    rows = [(name, f"{full:.0%}", f"{plan.after[name]:.0%}") for name, full in sorted(plan.before.items())]
    lines = [tables.table(("HOST", "MEMORY USED", "AFTERWARDS"), rows)]
    moves = [
        (one.container, one.source, one.target, tables.size(one.memory_bytes), f"{one.gain:.1%}") for one in plan.moves
    ]
    lines.append(tables.table(("CONTAINER", "FROM", "TO", "MEMORY", "GAIN"), moves) if moves else "nothing to move")
    lines += [f"{name} stays: {why}" for name, why in sorted(plan.left.items())]
    return "\n".join(lines)
