"""The report of `migrate doctor`: a table for people, JSON for programs.

Also `python3 -m agent.setup.doctor` with the system's Python, before anything is installed. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from agent.errors import AgentError
from agent.setup import probe
from agent.setup.capability import Capability, Verdict

_WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of both front doors."""
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="an agent's configuration: probe its directories and its CRIU"
    )


def report(*, output: str = "table", config: Path | None = None) -> int:
    """Probe this machine and print; exit status 0 if everything that is required is there, else 1."""
    if config is None:
        capabilities = probe.probe()
    else:
        from agent import config as agent_config  # tomllib is only needed here, and a bad file is the caller's error

        loaded = agent_config.load(config)
        capabilities = probe.probe(run_dir=loaded.run_dir, state_dir=loaded.state_dir, criu_path=loaded.criu)
    ready = probe.all_required(capabilities)
    if output == "json":
        rows = [{**asdict(one), "verdict": str(one.verdict)} for one in capabilities]
        text = json.dumps({"ok": ready, "capabilities": rows}, indent=2)
    else:
        text = table(capabilities)
    sys.stdout.write(text + "\n")
    return 0 if ready else 1


def table(capabilities: Sequence[Capability]) -> str:
    """One line a capability; below those that are not there, what to do."""
    name_width = max(len(one.name) for one in capabilities)
    lines = []
    for one in capabilities:
        lines.append(f"{one.verdict:<8} {one.name:<{name_width}}  {one.value}".rstrip())
        if not one.ok and one.remedy:
            indent = " " * (9 + name_width + 2)
            lines += textwrap.wrap(f"-> {one.remedy}", _WIDTH, initial_indent=indent, subsequent_indent=indent + "   ")
    lacking = [one.name for one in capabilities if one.verdict is Verdict.MISSING]
    warned = sum(one.verdict is Verdict.WARN for one in capabilities)
    if lacking:
        lines.append(f"\nNot ready: {', '.join(lacking)} missing.")
    else:
        lines.append(
            "\nReady: containers run and move on this host"
            + (f" ({warned} warning{'s' if warned > 1 else ''})." if warned else ".")
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m agent.setup.doctor", description="what this host can and cannot do"
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return report(output=args.format, config=args.config)
    except AgentError as exc:
        sys.stderr.write(f"error: {exc.message}\nhint: {exc.hint}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
