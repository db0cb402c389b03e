"""Makes small tars for tests, hostile ones too."""

from __future__ import annotations

import io
import os
import tarfile

DIR, LINK, HARD, FIFO = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE


def member(
    name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644, pax: dict[str, str] | None = None
) -> tarfile.TarInfo:
    """Owned by whoever runs the test, so that no rights are needed to unpack it."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.uid, info.gid, info.mtime = os.geteuid(), os.getegid(), 1_700_000_000
    info.pax_headers = pax or {}
    return info


def make(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in members:
            info, data = item if isinstance(item, tuple) else (item, b"")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
