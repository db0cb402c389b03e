"""What people type, as values: sizes, durations, instants, environment, labels.

Everything raises argparse.ArgumentTypeError with an example of what it takes.
"""

from __future__ import annotations

import os
import re
import time
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping
from pathlib import Path

# Patterns are compiled when a value is looked at: most commands never do, and a compilation takes up to a millisecond.
_SIZE = r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?"
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SPAN = r"(\d+(?:\.\d+)?)(ms|s|m|h|d)"
_SPAN_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIGNAL = r"(?:SIG)?([A-Z][A-Z0-9+-]*)|(\d{1,2})"


def size(text: str) -> int:
    """Bytes of "512m", "1.5g", "1048576" (units of 1024, as Docker's)."""
    found = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    if not found:
        raise ArgumentTypeError(f"{text!r} is not a size such as 512m or 2g")
    return int(float(found[1]) * _SIZE_UNITS[found[2].lower()])


def rate(text: str) -> int:
    """Bytes per second of "100M", "1G/s", "1.5g"; "0" and "unlimited" = 0, no limit."""
    if text in ("0", "unlimited"):
        return 0
    try:
        return size(text.removesuffix("/s"))
    except ArgumentTypeError:
        raise ArgumentTypeError(f"{text!r} is not a rate such as 100M or 1G: bytes per second") from None


def duration(text: str) -> float:
    """Seconds of "90", "1m30s", "2h"."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(_SPAN, text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ArgumentTypeError(f"{text!r} is not a duration such as 90, 30s or 1h30m")
    return sum(float(number) * _SPAN_UNITS_S[unit] for number, unit in parts)


def milliseconds(text: str) -> float:
    """Seconds of "300", "300ms" or "1s"; a bare number is milliseconds."""
    seconds = float(text) / 1000 if re.fullmatch(r"\d+(\.\d+)?", text) else duration(text)
    if seconds <= 0:
        raise ArgumentTypeError(f"{text!r} is not more than nothing; try 300")
    return seconds


def on_timeout(text: str) -> str:
    """ "abort", "pause" or "post-copy"."""
    if text not in ("abort", "pause", "post-copy"):
        raise ArgumentTypeError(f"{text!r} is neither abort nor pause nor post-copy")
    return text


def instant(text: str) -> int:
    """Unix nanoseconds of "10m" (ago), "2026-11-24T03:41:00Z", "2026-11-24" (local without a zone) or a Unix time."""
    try:
        return time.time_ns() - int(duration(text) * 1e9) if not text.isdigit() else int(text) * 10**9
    except ArgumentTypeError:
        pass  # then it is a date
    import datetime

    try:
        return int(datetime.datetime.fromisoformat(text).timestamp() * 1e9)
    except ValueError as exc:
        raise ArgumentTypeError(f"{text!r} is neither a duration (10m) nor a date (2026-11-24T03:41:00Z)") from exc


def tail(text: str) -> int:
    """Number of lines; -1 = all."""
    if text == "all":
        return -1
    if not text.isdigit():
        raise ArgumentTypeError(f"{text!r} is not a number of lines, nor all")
    return int(text)


def signal(text: str) -> str:
    """ "SIGTERM" of "term", "SIGTERM" or "15"."""
    import signal as signals

    found = re.fullmatch(_SIGNAL, text.upper())
    try:
        if found and found[2]:
            return signals.Signals(int(text)).name
        if found and f"SIG{found[1]}" in signals.Signals.__members__:
            return f"SIG{found[1]}"
    except ValueError:
        pass  # a number that is no signal
    raise ArgumentTypeError(f"{text!r} is not a signal such as SIGTERM, term or 15")


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def connections(text: str) -> int:
    """Of ssh, for one move: the coordinator takes no other number either."""
    if not text.isdigit() or not 1 <= int(text) <= 8:
        raise ArgumentTypeError(f"{text!r} is not a number from 1 to 8")
    return int(text)


def cpus(text: str) -> float:
    """Processors: "0.5", "2"."""
    try:
        value = float(text)
    except ValueError as exc:
        raise ArgumentTypeError(f"{text!r} is not a number of processors such as 0.5") from exc
    if not 0 < value < 100_000:
        raise ArgumentTypeError(f"{text!r} is not a number of processors such as 0.5")
    return value


def mac(text: str) -> str:
    """A unicast MAC address, lower case."""
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", text.lower()) or int(text[:2], 16) & 1:
        raise ArgumentTypeError(f"{text!r} is not a MAC address of one interface, such as 02:42:0a:58:01:02")
    return text.lower()


def address(text: str) -> str:
    """An IPv4 address, with or without a prefix length."""
    import ipaddress

    try:
        ipaddress.ip_interface(text)
    except ValueError as exc:
        raise ArgumentTypeError(f"{text!r} is not an address such as 10.88.1.2") from exc
    return text


def environment(given: Iterable[str], files: Iterable[str], outside: Mapping[str, str] = os.environ) -> list[str]:
    """ "KEY=value" for each, files first; a bare KEY takes its value from outside and is left out where it has none."""
    entries: list[tuple[str, str]] = []
    for name in files:
        try:
            lines = Path(name).read_text().splitlines()
        except OSError as exc:
            raise ArgumentTypeError(f"--env-file: cannot read {name}: {exc.strerror}") from exc
        entries += [(line.lstrip(), f"{name}:{n}") for n, line in enumerate(lines, 1)]
    entries += [(text, "--env") for text in given]
    result: dict[str, str] = {}
    for text, where in entries:
        if where != "--env" and (not text or text.startswith("#")):
            continue
        key, equals, value = text.partition("=")
        if not key or any(character.isspace() for character in key):
            raise ArgumentTypeError(f"{where}: {text!r} is not KEY=value")
        if equals:
            result[key] = value
        elif key in outside:
            result[key] = outside[key]
    return [f"{key}={value}" for key, value in result.items()]


def lines(files: Iterable[str]) -> list[str]:
    """Of the files, without comments and empty ones. ArgumentTypeError for one that cannot be read."""
    found: list[str] = []
    for name in files:
        try:
            text = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise ArgumentTypeError(f"cannot read {name}: {exc}") from exc
        found += [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return found


def labels(given: Iterable[str]) -> dict[str, str]:
    """{"tier": "web"} of "tier=web"; "tier" alone has the empty value."""
    pairs = (text.partition("=") for text in given)
    return {key: value for key, _, value in pairs}


def capability(text: str) -> str:
    """ "CAP_CHOWN" of "chown" or "CAP_CHOWN"; "ALL" stays."""
    name = text.upper()
    if name == "ALL":
        return name
    if not re.fullmatch(r"(CAP_)?[A-Z_]+", name):
        raise ArgumentTypeError(f"{text!r} is not a capability such as NET_ADMIN")
    return name if name.startswith("CAP_") else f"CAP_{name}"


def boolean(text: str) -> bool:
    """ "true" or "false", as Docker's flags take."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "1")


def keys(text: str) -> bytes:
    """What these keys send: "ctrl-p,ctrl-q", "ctrl-a,d", "ctrl-@"; "" = none."""
    found = b""
    for key in text.split(",") if text else ():
        if len(key) == 1 and key.isascii():
            found += key.encode()
        elif key.startswith("ctrl-") and re.fullmatch(r"[a-z@\[\\\]^_]", key[5:]):
            found += bytes([ord(key[5:].upper()) & 0x1F])
        else:
            raise ArgumentTypeError(f"{key!r} is no key: a letter, or ctrl- and one of a-z @ [ \\ ] ^ _")
    return found
