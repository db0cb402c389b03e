"""How long a move would take and how long the container would stand still, with the reason. Pure: numbers in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_FREEZE_S = 0.35  # of a small container between hosts that know nothing yet: docs/bench.md
PLAIN_RESTORE_S_A_BYTE = 0.8 / (1 << 30)  # where memory must be there before it runs on
STEPS_S = 2.5  # of what sends nothing: two agents asked some twenty times, ssh, the monitor, the release
ASSUMED_BYTES_PER_S = 100e6  # a gigabit link


@dataclass(frozen=True, kw_only=True)
class Size:
    """Bytes that would travel before compression: memory; files of the container's own; image layers that the target lacks."""

    memory: int
    layer: int
    image: int
    missing_layers: int


@dataclass(frozen=True, kw_only=True)
class Known:
    """From earlier moves: `fixed_s` of a freeze without memory, `steps_s` of all that sends nothing ahead, `learned_bytes_per_s`.
    Just now: `measured_bytes_per_s`, `round_trip_s`. 0 = not known.
    """

    fixed_s: float = 0.0
    steps_s: float = 0.0
    learned_bytes_per_s: float = 0.0
    measured_bytes_per_s: float = 0.0
    round_trip_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Seconds, and what they come from, for people. `bytes_per_s`: of the tunnel, measured or as in earlier moves; 0 = not known."""

    downtime_s: float
    downtime_because: str
    total_s: float
    total_because: str
    bytes_per_s: float
    round_trip_s: float = 0.0


def predict(size: Size, known: Known, *, mode: str, max_downtime_s: float, lazy: bool, bandwidth: int) -> Prediction:
    """`lazy`: the container runs on the target before its memory is in place. `bandwidth`: the move's own limit, 0 = none."""
    rate, whence = _rate(known, bandwidth)
    fixed_s = known.fixed_s or FIRST_FREEZE_S
    parts = [f"{fixed_s:.2f} s as {'in earlier moves' if known.fixed_s else 'a first move of a small container takes'}"]
    downtime_s = fixed_s
    if mode == "stop-and-copy":
        memory_s = size.memory / rate
        downtime_s += memory_s
        parts.append(
            f"{memory_s:.2f} s for {_mib(size.memory)} of memory, which --mode stop-and-copy sends while it stands still"
        )
    else:
        parts.append(f"what changes last, sent within {max_downtime_s:g} s")
    if not lazy:
        restore_s = size.memory * PLAIN_RESTORE_S_A_BYTE
        downtime_s += restore_s
        parts.append(
            f"{restore_s:.2f} s to put {_mib(size.memory)} in place, because the target has no userfaultfd for it"
        )
    total_bytes = size.memory + size.layer + size.image
    steps_s = known.steps_s or STEPS_S
    total_s = total_bytes / rate + steps_s
    layers = f"{size.missing_layers} layer{'s' if size.missing_layers > 1 else ''}"
    images = f", {_mib(size.image)} of image in {layers}" if size.missing_layers else ""
    return Prediction(
        downtime_s=downtime_s,
        downtime_because="; ".join(parts),
        total_s=total_s,
        total_because=f"{_mib(size.memory)} of memory, {_mib(size.layer)} of files{images}, at {rate / 1e6:.0f} MB/s ({whence}); "
        f"{steps_s:.1f} s for the steps themselves{', as in earlier moves' if known.steps_s else ''}",
        bytes_per_s=known.measured_bytes_per_s or known.learned_bytes_per_s,
        round_trip_s=known.round_trip_s,
    )


def _rate(known: Known, bandwidth: int) -> tuple[float, str]:
    """Bytes a second, and whence."""
    if known.measured_bytes_per_s:
        rate, whence = known.measured_bytes_per_s, "measured now"
    elif known.learned_bytes_per_s:
        rate, whence = known.learned_bytes_per_s, "as in earlier moves"
    else:
        rate, whence = ASSUMED_BYTES_PER_S, "assumed: nothing has moved between these hosts yet"
    if bandwidth and bandwidth < rate:
        return float(bandwidth), "--bandwidth"
    return rate, whence


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
