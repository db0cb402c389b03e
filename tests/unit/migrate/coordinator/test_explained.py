"""Errors of failed moves, with cause and remedy."""

from __future__ import annotations

import pytest

from migrate.coordinator.explained import explained
from migrate.errors import ErrorRecord

pytestmark = pytest.mark.unit


def test_a_known_error_gets_cause_and_remedy() -> None:
    """Those of the doctor's rules; an advice that is there already stays."""
    error = ErrorRecord(code="transfer", message="host1: the target's transfer process is gone: the stream ended")
    found = explained(error)
    assert found.message.startswith(error.message)
    assert "stream from source to target broke" in found.message
    assert "then move again" in found.hint
    assert explained(found) == found
    advised = ErrorRecord(code="transfer", message=error.message, hint="look there")
    assert explained(advised).hint == "look there"


def test_the_cause_may_be_in_the_detail() -> None:
    """A process that died tells why in its last words."""
    error = ErrorRecord(code="transfer", message="it failed", detail="OSError: [Errno 28] No space left on device")
    assert "a disk or a tmpfs is full" in explained(error).message


def test_an_unknown_error_stays_as_it_is() -> None:
    """Nothing is explained away."""
    error = ErrorRecord(code="internal", message="KeyError: 'flux'", touched="something")
    assert explained(error) == error
