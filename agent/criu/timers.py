"""CRIU stops a timerfd with an interval that has run out when it is dumped and has not been read since: here it is set going again.

Linux does not restart such a timer before the program reads it, and until then shows 0 as the time that is left; CRIU restores
that 0, with which timerfd_settime() disarms it. The dump alone takes longer than many a program's interval.
"""

from __future__ import annotations

import importlib
import struct
from pathlib import Path
from typing import Any

_HEAD_BYTES = 8  # two magic numbers
_SIZE = struct.Struct("<I")  # before each record


def rearm(images_dir: Path) -> int:
    """Let every such timer of the dump in `images_dir` run out at once after the restore; it goes on at its interval.

    Returns how many there were. pycriu must have been loaded. Raises OSError and ValueError.
    """
    fdinfo = importlib.import_module("pycriu.images.fdinfo_pb2")
    path = images_dir / "files.img"
    image, changed = path.read_bytes(), 0
    parts, position = [image[:_HEAD_BYTES]], _HEAD_BYTES
    while position < len(image):
        (size,) = _SIZE.unpack_from(image, position)
        record = image[position + _SIZE.size : position + _SIZE.size + size]
        position += _SIZE.size + size
        entry = fdinfo.file_entry.FromString(record)
        if entry.HasField("tfd") and _has_run_out(entry.tfd):
            entry.tfd.vnsec = 1
            record = entry.SerializeToString()
            changed += 1
        parts += [_SIZE.pack(len(record)), record]
    if changed:
        path.write_bytes(b"".join(parts))
    return changed


def _has_run_out(timer: Any) -> bool:
    """One that was never set has no ticks, one without an interval has nothing to go on with."""
    return not (timer.vsec or timer.vnsec) and bool(timer.isec or timer.insec) and timer.ticks > 0
