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


@pytest.fixture
def shared_pages(fleet: MovingLab) -> Iterator[str]:
    argv = program("shared_pages", "48")
    fleet.client.run(Run(image="work", name="shared-pages", host="host1", argv=argv))
    wait_for(lambda: fleet.run("shared-pages", "cat", "/srv/shared_pages.json")[0] == 0)
    yield "shared-pages"
    fleet.client.remove("shared-pages", force=True)


def test_memory_that_processes_share_goes_ahead(fleet: MovingLab, shared_pages: str) -> None:
    """After each of three moves every page is as it was left, by whatever child; and CRIU's images had none of the 45 MB."""
    token = fleet.status(shared_pages, "shared_pages")["token"]
    for _ in range(3):
        record = fleet.move(shared_pages)
        assert record.sent_bytes["images"] < 8 << 20
        checked = fleet.later(shared_pages, "shared_pages")["count"] + 60
        wait_for(lambda: fleet.status(shared_pages, "shared_pages")["count"] > checked)  # noqa: B023  as above
        status = fleet.status(shared_pages, "shared_pages")
        assert (status["problems"], status["token"]) == ([], token)
