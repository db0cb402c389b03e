"""A terminal of a container's own devpts: it has a name in there, and CRIU takes it along with everything that hangs on it
(`orphan_pts_master`): sessions, /dev/tty, window size, modes. Its master is the monitor's, or the agent's for `exec -t`.

For a process that is in the container's mount namespace. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import termios

TIOCGPTPEER = 0x5441  # from the Linux kernel headers (ioctls.h): the slave of a master, without a path
TIOCSPTLCK = 0x40045431
PTMX = os.makedev(5, 2)


def make(rows: int = 0, columns: int = 0) -> tuple[int, int]:
    """A new one: (master, slave). The container's root cannot put something else in its place. Raises OSError."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(master)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != PTMX:
        raise OSError(errno.ENODEV, "not a terminal multiplexer", "/dev/pts/ptmx")
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if rows and columns:
        resize(master, rows, columns)
    return master, slave


def resize(master: int, rows: int, columns: int) -> None:
    """The kernel tells the terminal's foreground group."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
