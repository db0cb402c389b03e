"""What has changed in pages that are sent again and again: the difference to what the target has, which packs to next to nothing.

A capped copy of pages that were sent at least twice; they are the ones that come once more in the freeze. Whether the difference was
made against what the target really has is for the target to find out: it gets the xxh3_128 of what must come out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.memory.ranges import PAGE
from agent.transfer.page_index import Addresses, TaskPages

SHADOW_BYTES = 64 << 20  # of all tasks of a move
_WORDS = PAGE // 8
_MOST_CHANGED = _WORDS // 2  # a page with more changed words packs as well without its past

Words = NDArray[np.uint64]  # shape (pages, 512)
Mask = NDArray[np.bool_]


class Shadow:
    """Memory for the copies; one a move."""

    def __init__(self, most_bytes: int = SHADOW_BYTES) -> None:
        self.pages: Words = np.empty((most_bytes // PAGE, _WORDS), np.uint64)  # touched as it fills
        self._used = 0

    def take(self, wanted: int) -> int:
        """Up to so many more pages; returns how many, the last ones in use from now on."""
        given = min(wanted, len(self.pages) - self._used)
        self._used += given
        return given

    @property
    def used(self) -> int:
        return self._used


class TaskShadow:
    """Of one task. All pages that go to the target, in whatever form, must pass here or be forgotten."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self._known = TaskPages()  # places: indices of Shadow.pages

    def differences(self, addresses: Addresses, pages: Words, again: Mask, out: Words) -> Mask:
        """Put into `out`, from its beginning, the differences of those pages that changed little; returns which these are.

        From now on `pages` is what the target has. `again`: those that it had before; they are remembered while there is room.
        """
        self._known.settle()
        at, known = self._known.find(addresses)
        places = self._known.places[at[known]] if known.any() else np.empty(0, np.uint64)
        changes = pages[known] ^ self._shadow.pages[places]
        few = np.count_nonzero(changes, axis=1) <= _MOST_CHANGED
        self._shadow.pages[places] = pages[known]
        out[: int(few.sum())] = changes[few]
        chosen = known.copy()
        chosen[known] = few
        self._remember(addresses, pages, np.flatnonzero(again & ~known))
        return chosen

    def settle(self) -> None:
        """Sort what was remembered: done when it is needed, or sooner, where that costs nobody time."""
        self._known.settle()

    def forget(self, addresses: Addresses) -> None:
        """The target has something else there now. Their memory is not used again: it is little, and the move is short."""
        self._known.settle()
        if len(self._known.addresses):
            self._known.forget(addresses)

    def _remember(self, addresses: Addresses, pages: Words, which: NDArray[np.intp]) -> None:
        which = which[: self._shadow.take(len(which))]
        first = self._shadow.used - len(which)
        self._shadow.pages[first : self._shadow.used] = pages[which]
        places = np.arange(first, self._shadow.used, dtype=np.uint64)
        self._known.note(addresses[which], np.zeros(len(which), np.uint64), places)
