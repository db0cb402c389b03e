"""Targets for gRPC."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.rpc import channels

pytestmark = pytest.mark.unit


def test_too_long_a_path_is_refused_by_name() -> None:
    """A path above sun_path's size is an error that says so, not a silent cut."""
    with pytest.raises(ValueError, match="108 bytes"):
        channels.unix_target(Path("/" + "a" * 107))
    assert channels.unix_target(Path("/" + "a" * 106)) == "unix:/" + "a" * 106
