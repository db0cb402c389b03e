"""What migrate/saga/journal.py keeps, and which of two decisions holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.errors import Cancelled
from migrate.saga import journal as journals
from migrate.saga.database import Database
from migrate.saga.journal import SAGA, Direction, Event, Journal

pytestmark = pytest.mark.unit


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(tmp_path / "db", ((*journals.SCHEMA, "create table truth(owner text)"),))


def test_rows_come_back_in_order_with_their_facts(db: Database) -> None:
    """And each saga sees its own only."""
    journal, other = Journal(db, "one"), Journal(db, "other")
    journal.append("freeze", Event.STARTED)
    other.append("freeze", Event.STARTED)
    journal.append("freeze", Event.DONE, {"digest": "abc", "pages": 3})
    entries = journal.entries()
    assert [(e.step, e.event, dict(e.data)) for e in entries] == [
        ("freeze", Event.STARTED, {}),
        ("freeze", Event.DONE, {"digest": "abc", "pages": 3}),
    ]
    assert entries[0].unix_ns <= entries[1].unix_ns
    assert journal.entries(after_seq=entries[0].seq) == entries[1:]
    assert journal.results() == {"freeze": {"digest": "abc", "pages": 3}}


def test_the_pivot_is_all_or_nothing(db: Database) -> None:
    """A change that raises leaves neither itself nor COMMITTED."""
    journal = Journal(db, "one")

    def fail(connection: object) -> None:
        connection.execute("insert into truth values('target')")  # type: ignore[attr-defined]
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        journal.commit(fail)
    assert journal.direction() is Direction.FORWARD
    assert db.connection.execute("select count(*) from truth").fetchone()[0] == 0


def test_the_pivot_checks_for_a_cancellation_itself(db: Database) -> None:
    """One that came a moment before wins, and the change is not made."""
    journal = Journal(db, "one")
    assert journal.request_cancel()
    with pytest.raises(Cancelled):
        journal.commit(lambda connection: connection.execute("insert into truth values('target')"))
    assert db.connection.execute("select count(*) from truth").fetchone()[0] == 0


@pytest.mark.parametrize("decision", [Direction.COMMITTED, Direction.BACK])
def test_a_cancellation_after_the_decision_is_too_late(db: Database, decision: Direction) -> None:
    """It is refused and leaves no row."""
    journal = Journal(db, "one")
    if decision is Direction.COMMITTED:
        journal.commit(lambda _connection: None)
    else:
        journal.abort({})
    assert not journal.request_cancel()
    assert not journal.has(SAGA, Event.CANCEL_REQUESTED)


def test_a_cancellation_asked_for_twice_is_one_row(db: Database) -> None:
    """The second is accepted as the first was."""
    journal = Journal(db, "one")
    assert journal.request_cancel()
    assert journal.request_cancel()
    assert len(journal.entries()) == 1


def test_an_abort_after_the_pivot_is_none(db: Database) -> None:
    """If the commit reached the disk although its caller got an error, the commit holds."""
    journal = Journal(db, "one")
    journal.commit(lambda _connection: None)
    assert journal.abort({}) is Direction.COMMITTED
    assert not journal.has(SAGA, Event.ABORTING)


def test_an_operators_decision_replaces_the_sagas(db: Database) -> None:
    """The last decision is the direction, whatever it was before."""
    journal = Journal(db, "one")
    journal.abort({})
    journal.decide(Event.COMMITTED, lambda _connection: None, {"keep": "target"})
    assert journal.direction() is Direction.COMMITTED
    journal.decide(Event.ABORTING, lambda _connection: None, {"keep": "source"})
    assert journal.direction() is Direction.BACK


def test_whoever_watches_is_told_after_the_row_is_durable(db: Database) -> None:
    """on_append runs once a row, and the row can be read by then."""
    seen: list[int] = []
    journal = Journal(db, "one", on_append=lambda: seen.append(len(Journal(db, "one").entries())))
    journal.append("freeze", Event.STARTED)
    journal.append("freeze", Event.DONE)
    assert seen == [1, 2]
