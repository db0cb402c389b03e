"""The areas of an address space whose pages can be sent ahead: private and anonymous, as CRIU's lazy memory is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_KERNEL_OWNED = ("[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]")


def private_anonymous(pid: int) -> Iterator[tuple[int, int]]:
    """(start, end) of every private area without a file, writable or not: what was written may be write-protected by now.

    Nothing for a process that is gone or has no memory (a zombie).
    """
    try:
        text = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split(None, 5)
        if fields[1][3] == "p" and fields[4] == "0" and (len(fields) < 6 or fields[5] not in _KERNEL_OWNED):
            start, end = fields[0].split("-")
            yield int(start, 16), int(end, 16)
