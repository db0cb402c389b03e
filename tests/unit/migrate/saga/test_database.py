"""Transactions, upgrades and threads of migrate/saga/database.py."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from migrate.errors import WrongState
from migrate.saga.database import Database

pytestmark = pytest.mark.unit

SCHEMA = (("create table words(word text)",),)


def words(db: Database) -> list[str]:
    return [row["word"] for row in db.connection.execute("select word from words order by word")]


def test_every_commit_is_durable(tmp_path: Path) -> None:
    """WAL with synchronous=FULL: a commit has been fsynced when it returns."""
    db = Database(tmp_path / "db", SCHEMA)
    assert db.connection.execute("pragma journal_mode").fetchone()[0] == "wal"
    assert db.connection.execute("pragma synchronous").fetchone()[0] == 2


def test_the_file_is_nobody_elses(tmp_path: Path) -> None:
    """Specs hold environments, and environments hold secrets: mode 0600."""
    Database(tmp_path / "db", SCHEMA)
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o600


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    """Also when what ends it is no Exception, and the file is not left locked."""
    db = Database(tmp_path / "db", SCHEMA)

    class Cut(BaseException):
        pass

    with pytest.raises(Cut), db.transaction() as connection:
        connection.execute("insert into words values('lost')")
        raise Cut
    assert words(db) == []
    with db.transaction() as connection:
        connection.execute("insert into words values('kept')")
    assert words(db) == ["kept"]


def test_threads_take_turns(tmp_path: Path) -> None:
    """Read and write inside a transaction: no increment of four threads is lost."""
    db = Database(tmp_path / "db", (("create table n(n integer)", "insert into n values(0)"),))

    def count() -> None:
        for _ in range(25):
            with db.transaction() as connection:
                n = connection.execute("select n from n").fetchone()[0]
                connection.execute("update n set n=?", (n + 1,))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.connection.execute("select n from n").fetchone()[0] == 100


def test_an_old_file_is_upgraded_and_keeps_its_rows(tmp_path: Path) -> None:
    """Only the versions that it lacks are applied."""
    old = Database(tmp_path / "db", SCHEMA)
    with old.transaction() as connection:
        connection.execute("insert into words values('old')")
    old.close()
    new = Database(tmp_path / "db", (*SCHEMA, ("alter table words add column language text default 'en'",)))
    row = new.connection.execute("select word, language from words").fetchone()
    assert tuple(row) == ("old", "en")


def test_a_failed_upgrade_changes_nothing(tmp_path: Path) -> None:
    """Version and tables stay as they were."""
    Database(tmp_path / "db", SCHEMA).close()
    with pytest.raises(sqlite3.OperationalError):
        Database(tmp_path / "db", (*SCHEMA, ("create table more(x)", "this is not SQL")))
    db = Database(tmp_path / "db", SCHEMA)
    assert db.connection.execute("pragma user_version").fetchone()[0] == 1
    assert db.connection.execute("select count(*) from sqlite_master where name='more'").fetchone()[0] == 0


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """An old program never writes to what a new one has made."""
    Database(tmp_path / "db", (*SCHEMA, ("create table more(x)",))).close()
    with pytest.raises(WrongState, match="version 2"):
        Database(tmp_path / "db", SCHEMA)
