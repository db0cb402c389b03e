"""The program of the zygote and of the monitors that it forks: the engine's monitor with the two halves of a handover added.

Started as `python -I -S monitor.py PACKAGE_ROOT PLACE_FOR_A_NAME` with the agent's socket as stdin; standard library, agent.linux,
agent.engine and agent.criu only.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])  # -I keeps the script's folder and the environment out of sys.path

import os
import socket

from agent.criu.arrival import Arrival
from agent.criu.departure import Departure
from agent.engine import monitor, zygote
from agent.engine.adoption import Adoption


def extend(base: monitor.Monitor) -> None:
    """Add the commands of a handover, and adopt."""
    Adoption(base)
    Departure(base)
    Arrival(base)


def main() -> None:
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    zygote.serve(channel, lambda connection: monitor.live(connection, extend))


if __name__ == "__main__":
    main()
