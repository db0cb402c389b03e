"""The Python that goes into a container for a moment, on its way to be the container's program: a sealed copy of this one.

Who is root of a container with the host's ids owns the host's files; caught on the way in, or run as `#!/proc/self/exe`, the host's
own interpreter could be opened there to write (CVE-2019-5736). Of this copy nothing can be changed by anybody.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
from functools import cache
from pathlib import Path

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

log = logging.getLogger(__name__)


@cache
def path() -> str:
    """What to execute, with sys.executable as argv[0]; lives as long as this process. The interpreter itself on a host that lets
    nobody execute what is not in a file.
    """
    try:
        fd = os.memfd_create("migrate-python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with Path(sys.executable).resolve().open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            while (done := os.lseek(fd, 0, os.SEEK_CUR)) < size:
                os.sendfile(fd, source.fileno(), done, size - done)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as exc:
        log.warning("no sealed copy of %s: %s", sys.executable, exc)
        return sys.executable
    return f"/proc/{os.getpid()}/fd/{fd}"
