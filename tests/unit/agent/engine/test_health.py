"""When health checks run."""

from __future__ import annotations

import pytest

from agent.engine import health
from agent.engine.spec import Healthcheck

pytestmark = pytest.mark.unit
SECOND = 10**9


@pytest.mark.parametrize(
    ("status", "age_s", "seconds"),
    [("starting", 1, 0.5), ("starting", 11, 30.0), ("healthy", 1, 30.0), ("unhealthy", 1, 30.0)],
)
def test_the_start_interval_is_of_the_start_period(status: str, age_s: int, seconds: float) -> None:
    """Shorter pauses until the first good check, no longer than the start period."""
    asked = Healthcheck(test=("CMD", "true"), start_period_ns=10 * SECOND, start_interval_ns=SECOND // 2)
    assert health.pause_s(asked, status, age_s * SECOND) == seconds
    assert health.pause_s(Healthcheck(test=("CMD", "true"), interval_ns=SECOND), status, age_s * SECOND) == 1.0
