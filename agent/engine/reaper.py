"""`--init`: a small program is process 1 of a container; it passes signals on to the container's own and reaps orphans.

It is Debian's tini, linked statically, so that it runs in any image. It lies in the container's writable layer, not in a mount:
so it moves with the layer, and a target needs no tini of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from agent.errors import StorageError, Unsupported

PROGRAM = Path("/usr/bin/tini-static")
INSIDE = "/.migrate-init"  # in the root: whatever else an image has as a directory, it has that
COMMAND = (INSIDE, "--")


def check(program: Path = PROGRAM) -> None:
    """Raises Unsupported where this host has none."""
    if not os.access(program, os.X_OK):
        raise Unsupported(f"--init needs {program} on the host", hint="apt-get install tini, or make setup")


def put(upper: Path, program: Path = PROGRAM) -> None:
    """Into a writable layer that nobody uses yet. Raises StorageError."""
    path = upper / INSIDE.lstrip("/")
    try:
        shutil.copyfile(program, path)
        os.chown(path, 0, 0)
        path.chmod(0o755)
    except OSError as exc:
        raise StorageError(f"cannot copy {program} into {upper}: {exc.strerror}") from exc


def command(argv: Sequence[str], *, init: bool) -> list[str]:
    """What is executed for `argv`."""
    return [*COMMAND, *argv] if init else list(argv)
