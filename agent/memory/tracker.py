"""Which pages of a process were written since the last look: one interface, the kernel's two ways behind it.

    userfaultfd   WP_ASYNC and PAGEMAP_SCAN, Linux 6.7 and newer (userfault.py)
    soft-dirty    clear_refs and pagemap, kernels with CONFIG_MEM_SOFT_DIRTY (softdirty.py)

The rule that makes a missed page impossible: a page counts as clean only where the kernel says that its area has been watched without
a break since the last look and that the page was not written. A new area, a new process, a moved area, one that cannot
be watched: not watched, so dirty. Pinned pages that a device writes to (O_DIRECT, registered buffers) escape every
tracker, CRIU's own included: docs/scope.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.memory.ranges import Ranges


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
        this look, the process (which stands still) is not touched any more. Raises OSError when the process is gone or
        cannot be watched at all.
        """

    def close(self) -> None:
        """Leave no trace in the process. Idempotent; also when it is gone."""
