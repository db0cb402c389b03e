"""Memory full of holes, whose pages are thrown away and written again all the time, moves there and back and there.

Once CRIU is not shown it, once it is, because some of it is locked.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.setup import withheld
from migrate.records import Run
from tests.criu.moving_lab import MovingLab, program, wait_for

pytestmark = pytest.mark.criu

SIZE_MB = 96


@pytest.fixture(params=["", "locked"])
def name(fleet: MovingLab, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"discards{request.param}"
    words = program("discards", str(SIZE_MB), "/srv/discards.json", *filter(None, [request.param]))
    fleet.client.run(Run(image="work", name=name, host="host1", argv=words))
    wait_for(lambda: fleet.run(name, "cat", "/srv/discards.json")[0] == 0)
    yield name
    fleet.client.remove(name, force=True)


def test_discarded_pages_stay_discarded(fleet: MovingLab, name: str) -> None:
    """After each of three moves the same process finds every page as it left it; and CRIU was shown the memory only where it is locked."""
    assert withheld.locate() is not None, "make setup has not compiled agent/criu/withheld.c"
    token = fleet.status(name, "discards")["token"]
    for _ in range(3):
        record = fleet.move(name)
        assert ("sent withheld memory" in {mark.name for mark in record.marks}) == (name == "discards")
        checked = fleet.later(name, "discards")["count"] + 20 * SIZE_MB  # pages that are looked at once all is there
        wait_for(lambda: fleet.status(name, "discards")["count"] > checked)  # noqa: B023  called before it changes
        status = fleet.status(name, "discards")
        assert (status["problems"], status["token"]) == ([], token)
