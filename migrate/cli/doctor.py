"""`migrate doctor`: what this machine lacks to run or move containers. Needs no coordinator and no agent."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from agent.setup import doctor
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "doctor",
        help="check what this machine lacks to run or move containers",
        examples="""
migrate doctor
migrate doctor --format json
migrate doctor --config /etc/migrate/agent.toml
""",
    )
    doctor.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Exit status 0 if everything that is required is there, else 1."""
    return doctor.report(output=args.format, config=args.config)
