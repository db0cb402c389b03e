"""`migrate-agent --config FILE`: serve this host until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from pathlib import Path

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"  # we never fork; before grpc is imported

from agent import config as configuration
from agent.errors import AgentError
from migrate.rpc.asked import AskedToEnd


def main() -> int:
    parser = argparse.ArgumentParser(prog="migrate-agent", description="The agent of one host.")
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    asked = AskedToEnd()
    try:
        from agent.server import Agent

        agent = Agent(configuration.load(arguments.config))
        agent.start()
    except AgentError as exc:
        sys.stderr.write(f"migrate-agent: {exc.message}\n" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        return 1
    _tell_systemd("READY=1")
    asked.wait()
    _tell_systemd("STOPPING=1")
    agent.stop()
    return 0


def _tell_systemd(what: str) -> None:
    """Type=notify: `systemctl start` returns when the agent answers, not before. Silent where systemd did not start us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        notify.sendall(what.encode())


if __name__ == "__main__":
    sys.exit(main())
