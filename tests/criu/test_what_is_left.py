"""After all the moves of this tier, refused, cancelled and done: what is on the hosts. Of several processes that run the tier each has
a lab, and looks at what is left in its own when that goes (conftest.py); here it is looked at in the last file's.
"""

from __future__ import annotations

import pytest

from tests.criu.moving_lab import MovingLab

pytestmark = pytest.mark.criu


def test_nothing_is_left(fleet: MovingLab) -> None:
    """No process, mount, cgroup, link, nft table, tmpfs byte or descriptor more than before the first container, on any host."""
    fleet.empty()
    assert fleet.left() == []
