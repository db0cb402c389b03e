"""The process that a hook's command runs in: `python -I -S hook_child.py DIRECTORY COMMAND`. Standard library only.

It outlives the coordinator. A lock, inherited with a descriptor, is held as long as it lives, and by nothing that the command starts; the
status is written when the command has ended. So whoever comes back finds it running, ended, or gone without a word.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def main(directory: Path, command: str) -> int:
    # A handler, not SIG_IGN, which the command would inherit: who ends the session wants the command's status all the same.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    write(directory / "pid", str(os.getpid()))
    ended = subprocess.run(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, check=False)
    write(directory / "status", str(ended.returncode))
    return 0


def write(path: Path, text: str) -> None:
    """Whole or not at all, also through a power cut."""
    unfinished = path.with_suffix(".new")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    parent = os.open(path.parent, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
