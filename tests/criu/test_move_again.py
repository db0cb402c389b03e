"""A container that moves on before the memory of its last move is in place."""

from __future__ import annotations

import pytest

from migrate.lab.demo_run import Outside
from migrate.records import Run
from tests.criu.moving_lab import MovingLab

pytestmark = pytest.mark.criu

REDIS = ("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp")


def test_moves_at_once_lose_no_memory(fleet: MovingLab) -> None:
    """Three moves without a pause, while lazily restored memory is still arriving: every value is what was written."""
    container = fleet.client.run(Run(image="redis", name="restless", argv=REDIS, host="host1"))
    try:
        outside = Outside(fleet.lab, container.address.partition("/")[0], 6379)
        outside.wait_for_server()
        filled = outside.data("fill", 100, "restless")
        for target in ("host2", "host1", "host2"):
            fleet.cli("move", "restless", "--to", target).check_returncode()
        found = outside.data("verify", 100, "restless")
        assert (found["missing"], found["wrong"], found["keys"]) == (0, 0, filled["keys"])
    finally:
        fleet.client.remove("restless", force=True)
