"""What is skipped, what cannot be, and what a move is said to take."""

from __future__ import annotations

import pytest

from migrate.coordinator.preflight import catalog
from migrate.coordinator.preflight.finding import BLOCKER, SKIPPED, WARNING, Finding, judged, of_agent
from migrate.coordinator.preflight.predict import Known, Size, predict
from migrate.errors import InvalidArgument
from protos import agent_pb2

pytestmark = pytest.mark.unit

SIZE = Size(memory=200_000_000, layer=50_000_000, image=0, missing_layers=0)


def finding(check: str, severity: str = BLOCKER) -> Finding:
    return Finding(check=check, what="x", where="host2", remedy="", severity=severity)


def test_what_is_skipped_is_no_blocker_any_more() -> None:
    """It is still told; warnings stay warnings; blockers are told first."""
    found = judged([finding("kernel", WARNING), finding("cpu-features"), finding("memory")], ("cpu-features",))
    assert [(each.check, each.severity) for each in found] == [
        ("memory", BLOCKER),
        ("kernel", WARNING),
        ("cpu-features", SKIPPED),
    ]


def test_what_cannot_be_skipped_stays() -> None:
    """Whoever gets past the refusal of the name changes nothing."""
    (one,) = judged([finding("architecture")], ("architecture",))
    assert one.severity == BLOCKER


def test_names_of_checks_to_skip() -> None:
    """Sorted, each once; a wrong one is told with what is close to it."""
    assert catalog.checked_skips(["memory", "criu", "memory"]) == ("criu", "memory")
    with pytest.raises(InvalidArgument, match="no check 'cpu-feature'") as wrong:
        catalog.checked_skips(["cpu-feature"])
    assert "cpu-features" in wrong.value.hint
    with pytest.raises(InvalidArgument, match="'protocol' cannot be skipped"):
        catalog.checked_skips(["protocol"])


def test_a_finding_of_an_agent_of_another_version() -> None:
    """It has no name that is known here: it stands, and cannot be skipped."""
    one = of_agent(agent_pb2.Blocker(what="x", remedy="y"), "host1")
    assert (one.check, one.where, one.severity, one.skippable) == ("host", "host1", BLOCKER, False)


def test_what_a_first_move_takes() -> None:
    """Nothing is known of these hosts: it says that it assumes, and by what the numbers are made."""
    found = predict(SIZE, Known(), mode="auto", max_downtime_s=0.3, lazy=True, bandwidth=0)
    assert "assumed" in found.total_because
    assert "first move" in found.downtime_because
    assert found.total_s == pytest.approx(250e6 / 100e6 + 2.5)
    assert found.bytes_per_s == 0


def test_what_earlier_moves_teach() -> None:
    """Their freeze and their speed are taken; a speed measured now goes before; --bandwidth limits both."""
    known = Known(fixed_s=0.5, learned_bytes_per_s=200e6)
    found = predict(SIZE, known, mode="auto", max_downtime_s=0.3, lazy=True, bandwidth=0)
    assert (found.downtime_s, found.bytes_per_s) == (0.5, 200e6)
    assert "as in earlier moves" in found.total_because
    assert "2.5 s for the steps themselves" in found.total_because
    slow = predict(SIZE, Known(steps_s=9.0), mode="auto", max_downtime_s=0.3, lazy=True, bandwidth=0)
    assert slow.total_s == pytest.approx(2.5 + 9.0)
    assert "9.0 s for the steps themselves, as in earlier moves" in slow.total_because
    measured = Known(fixed_s=0.5, learned_bytes_per_s=200e6, measured_bytes_per_s=400e6)
    assert predict(SIZE, measured, mode="auto", max_downtime_s=0.3, lazy=True, bandwidth=0).bytes_per_s == 400e6
    limited = predict(SIZE, measured, mode="auto", max_downtime_s=0.3, lazy=True, bandwidth=1000)
    assert (limited.bytes_per_s, "--bandwidth" in limited.total_because) == (400e6, True)
    assert limited.total_s == pytest.approx(250e6 / 1000 + 2.5)


def test_memory_that_is_sent_or_placed_while_it_stands_still_counts() -> None:
    """With stop-and-copy, and on a target that fills memory before it runs."""
    known = Known(fixed_s=0.5, learned_bytes_per_s=100e6)
    cold = predict(SIZE, known, mode="stop-and-copy", max_downtime_s=0.3, lazy=True, bandwidth=0)
    assert cold.downtime_s == pytest.approx(2.5)
    plain = predict(SIZE, known, mode="auto", max_downtime_s=0.3, lazy=False, bandwidth=0)
    assert plain.downtime_s > 0.6
    assert "no userfaultfd" in plain.downtime_because
