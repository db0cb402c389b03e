"""Every state of a move that crashes and one more fault lead to. `python -m tests.faults.protocol_model` explores more."""

from __future__ import annotations

import pytest

from migrate.coordinator import migration, steps
from tests.fakes import agent as fakes
from tests.faults.protocol_model import Model, Violation

pytestmark = pytest.mark.faults


def test_no_state_that_crashes_lead_to_is_wrong() -> None:
    """The coordinator may die at any instant, of any life, as often as it likes: in the end the target runs it."""
    counts = Model(faults=0).explore()
    assert counts.states >= 15  # else it does not look
    assert set(counts.ends) == {"succeeded"}


@pytest.mark.parametrize("hold", [False, True], ids=["at once", "held"])
def test_no_state_that_one_fault_and_crashes_lead_to_is_wrong(hold: bool) -> None:
    """A call lost, its answer lost, refused, twice, late; a host rebooted; a cancellation: anywhere in the first life, crashes after it."""
    counts = Model(faults=1, hold=hold).explore(first_life_only=True)
    assert counts.states >= 300
    assert {"succeeded", "failed", "cancelled", "needs-attention"} == set(counts.ends)


# ---------------------------------------------------------------- mutants: the model finds what is wrong


def test_a_rollback_that_does_not_look_at_the_source_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It kills the only copy."""
    monkeypatch.setattr(steps, "_refuse_without_a_copy_at_source", lambda _move: None)
    with pytest.raises(Violation, match="only copy was killed"):
        Model(faults=1, kinds=("reboot host1+cancel",)).explore(first_life_only=True)


def test_a_release_before_the_resume_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the target's copy has not run, the source's may be the one that is needed."""
    monkeypatch.setattr(migration, "AFTER", migration.AFTER[::-1])
    with pytest.raises(Violation):
        Model(faults=1, kinds=("reboot host2",)).explore(first_life_only=True)


def test_a_target_that_lets_its_copy_run_before_the_pivot_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore that does not freeze: two copies, once the source is thawed."""
    restore = fakes.FakeAgent.Restore

    def eager(self: fakes.FakeAgent, request: object, context: object = None) -> object:
        reply = restore(self, request)
        for copy in self.containers.values():
            copy.state = fakes.RUNNING
        return reply

    monkeypatch.setattr(fakes.FakeAgent, "Restore", eager)
    with pytest.raises(Violation):
        Model(faults=1, kinds=("cancel", "reply lost")).explore(first_life_only=True)
