"""Which pages of a process were written since the last look: one interface, three ways behind it.

    userfaultfd   WP_ASYNC and PAGEMAP_SCAN, Linux 6.7 and newer (userfault.py)
    soft-dirty    clear_refs and pagemap, kernels with CONFIG_MEM_SOFT_DIRTY (softdirty.py)
    shadow        what was sent is kept as digests and compared (shadow.py): any kernel, and any process that the kernel cannot watch

The rule that makes a missed page impossible: a page counts as clean only while it was watched without a break since it was sent and was
not written. A new area, a new process, a moved area, one that cannot be watched: not watched, so dirty. Why each way
keeps the rule, and what escapes the kernel's two: docs/precopy.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.memory.ranges import Ranges


class CannotWatch(OSError):
    """The kernel's way does not serve for this process, and will not in the next round either."""


@dataclass(frozen=True)
class Look:
    """`written`: populated pages that are new or were written since the last look. `watched`: areas that were watched all that time;
    a page in `watched` that is not in `written` is as it was at the last look.
    """

    written: Ranges
    watched: Ranges


class Tracker(Protocol):
    """Watches one process. All calls from one thread."""

    pid: int
    stop_to_look: bool  # the process must stand still during look()

    def look(self, *, last: bool = False) -> Look:
        """What has happened since the last look; at the first one every populated page counts as written. `last`: watching ends with
        this look, the process (which stands still) is not touched any more. Raises CannotWatch, and OSError when the
        process is gone or has become another program.
        """

    def sent(self, addresses: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
        """Whole pages, the one at each of `addresses` after the other in `words`: as they are here they go to the target. Not kept."""

    def close(self) -> None:
        """Leave no trace in the process. Idempotent; also when it is gone."""
