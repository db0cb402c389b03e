"""One SQLite file for everything that must survive a power cut: a connection a thread, explicit transactions, upgrades.

Every transaction is `begin immediate` and durable when it returns (WAL, synchronous=FULL): what two threads decide at
the same time, one of them decides first. Knows nothing of what is stored.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from migrate.errors import WrongState

BUSY_TIMEOUT_S = 30.0

# The statements of one version, in order. Element n of a schema takes a file from user_version n to n + 1.
Upgrade = Sequence[str]


class Database:
    """Thread-safe. `path` is created, with mode 0600, and brought up to the newest version of `schema`."""

    def __init__(self, path: Path, schema: Sequence[Upgrade]) -> None:
        self.path = path
        self._local = threading.local()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._upgrade(schema)

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's own; autocommit, so that a transaction is only what `transaction()` opens."""
        existing: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if existing is None:
            existing = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            existing.row_factory = sqlite3.Row
            existing.execute("pragma journal_mode=wal")
            existing.execute("pragma synchronous=full")
            existing.execute("pragma foreign_keys=on")
            self._local.connection = existing
        return existing

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, durable at the end. Not to be nested."""
        connection = self.connection
        connection.execute("begin immediate")
        try:
            yield connection
            connection.execute("commit")
        except BaseException:  # a thread that is being stopped must not leave the file locked either
            if connection.in_transaction:
                connection.execute("rollback")
            raise

    def close(self) -> None:
        """Close this thread's connection; those of other threads go with their threads."""
        existing: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if existing is not None:
            existing.close()
            self._local.connection = None

    def _upgrade(self, schema: Sequence[Upgrade]) -> None:
        with self.transaction() as db:
            version = db.execute("pragma user_version").fetchone()[0]
            if version > len(schema):
                raise WrongState(
                    f"{self.path} has version {version}, this program knows {len(schema)}",
                    hint="upgrade this program; it never writes to a file that a newer one has made",
                )
            for upgrade in schema[version:]:
                for statement in upgrade:
                    db.execute(statement)
            db.execute(f"pragma user_version={len(schema)}")
