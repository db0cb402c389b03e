"""What a limit of bandwidth may be."""

from __future__ import annotations

from migrate.errors import InvalidArgument

LEAST_BANDWIDTH = 64 << 10  # bytes per second


def check_bandwidth(bandwidth: int) -> None:
    """Raises InvalidArgument; 0 is no limit."""
    if 0 < bandwidth < LEAST_BANDWIDTH:
        raise InvalidArgument(
            f"a bandwidth of {bandwidth} bytes a second is too little to move anything",
            hint=f"at least {LEAST_BANDWIDTH >> 10}k, or 0 for no limit",
        )
