"""The monitor's program: the engine's monitor with the two halves of a handover added. Started as
`python -I -S monitor.py PACKAGE_ROOT RUNTIME_DIR`; standard library, agent.linux, agent.engine and agent.criu only.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])  # -I keeps the script's folder and the environment out of sys.path

from pathlib import Path

from agent.criu.arrival import Arrival
from agent.criu.departure import Departure
from agent.engine import monitor
from agent.engine.adoption import Adoption


def extend(base: monitor.Monitor) -> None:
    """Add the commands of a handover, and adopt."""
    Adoption(base)
    Departure(base)
    Arrival(base)


if __name__ == "__main__":
    monitor.main(Path(sys.argv[2]), extend)
