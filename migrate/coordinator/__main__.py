"""`migrate-coordinator --config FILE`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from migrate.coordinator import config
from migrate.errors import MigrateError
from migrate.rpc.asked import AskedToEnd


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="migrate-coordinator",
        description="The coordinator of a fleet: it knows who owns which container and moves them.",
        epilog="example:\n  migrate-coordinator --config /etc/migrate/coordinator.toml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, default=config.DEFAULT_PATH, metavar="FILE", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--check", action="store_true", help="read the configuration, say what is wrong with it, and end"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    args = parser.parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if args.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("paramiko").setLevel(logging.WARNING)
    try:
        loaded = config.load(args.config)
        if args.check:
            sys.stdout.write(f"{args.config}: {len(loaded.hosts)} hosts\n")
            return 0
        return serve(loaded)
    except MigrateError as exc:
        sys.stderr.write(f"error: {exc.message}\n" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        return exc.exit_status


def serve(loaded: config.CoordinatorConfig) -> int:
    """Until a signal asks for the end."""
    from migrate.coordinator.server import Coordinator

    asked = AskedToEnd()
    coordinator = Coordinator(loaded)
    coordinator.start()
    asked.wait()
    logging.getLogger("migrate.coordinator").info("going down")
    coordinator.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
