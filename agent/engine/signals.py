"""Signals as people name them."""

from __future__ import annotations

import signal as signals

from agent.errors import InvalidArgument


def signal_number(text: str) -> int:
    """ "SIGTERM", "TERM", "term" or "15". Raises InvalidArgument."""
    name = text.upper()
    try:
        number = int(name) if name.isdigit() else signals.Signals["SIG" + name.removeprefix("SIG")]
        if number not in signals.valid_signals():
            raise KeyError(name)
    except KeyError:
        raise InvalidArgument(f"unknown signal {text!r}", hint="give a name such as SIGTERM, or a number") from None
    return int(number)
