"""A container's files and its lock."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engine.spec import ContainerSpec, IdRange, Limits, Network
from agent.engine.store import ExitStatus, Record, Store, read_exit, write_exit
from agent.errors import AlreadyExists, NotFound, StorageError
from tests.unit.agent.linux.test_remove import deepen

pytestmark = pytest.mark.unit

SPEC = ContainerSpec(
    id="c" * 32,
    name="web1",
    image="base",
    image_digest="sha256:" + "a" * 64,
    layers=("sha256:" + "b" * 64,),
    argv=("/bin/true",),
    env=("A=1",),
    cwd="/",
    user="",
    hostname="web1",
    ids=IdRange(base=65536),
    network=Network(address="10.88.0.2/16", mac="02:42:0a:58:00:02"),
    limits=Limits(memory_bytes=1 << 20),
    labels={"tier": "db"},
)


def test_spec_and_record_round_trip(tmp_path: Path) -> None:
    """What add() and write_record() wrote is what spec() and record() return, and ids() lists it."""
    store = Store(tmp_path)
    store.add(SPEC, Record(epoch=3))
    store.write_record(SPEC.id, Record(epoch=4, pid=12, migration_id="m", role="source"))
    assert store.ids() == [SPEC.id]
    assert store.spec(SPEC.id) == SPEC
    assert store.record(SPEC.id) == Record(epoch=4, pid=12, migration_id="m", role="source")


def test_second_add_is_refused(tmp_path: Path) -> None:
    """An id is taken once; the first container is untouched."""
    store = Store(tmp_path)
    store.add(SPEC, Record())
    with pytest.raises(AlreadyExists, match=SPEC.id):
        store.add(replace(SPEC, name="other"), Record())
    assert store.spec(SPEC.id).name == "web1"


def test_a_layer_deeper_than_the_stack_can_be_removed(tmp_path: Path) -> None:
    """What a container nested 1,500 directories deep is deleted with it, and goes too where a creation broke off."""
    store = Store(tmp_path)
    for leave in (store.delete, lambda _id: (tmp_path / SPEC.id / "spec.json").unlink()):
        deepen(store.add(SPEC, Record()), 1500)
        leave(SPEC.id)
    assert store.add(SPEC, Record()).exists()
    store.delete(SPEC.id)
    assert list(tmp_path.iterdir()) == []


def test_directory_without_a_spec_is_no_container(tmp_path: Path) -> None:
    """What a crash left before the spec was written is not listed, and add() takes its place."""
    store = Store(tmp_path)
    (tmp_path / SPEC.id / "layer").mkdir(parents=True)
    assert store.ids() == []
    with pytest.raises(NotFound):
        store.spec(SPEC.id)
    store.add(SPEC, Record())
    assert not (tmp_path / SPEC.id / "layer").exists()


def test_container_directory_is_roots_alone(tmp_path: Path) -> None:
    """Set-uid programs of a writable layer are root's on disk: nobody else may walk to them."""
    directory = Store(tmp_path).add(SPEC, Record())
    assert directory.stat().st_mode & 0o777 == 0o700


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """A spec or an exit status that is not one raises StorageError with the path."""
    store = Store(tmp_path)
    store.add(SPEC, Record())
    (tmp_path / SPEC.id / "spec.json").write_text('{"id": 1}')
    with pytest.raises(StorageError, match=r"spec\.json"):
        store.spec(SPEC.id)
    store.exit_path(SPEC.id).write_text("{")
    with pytest.raises(StorageError, match=r"exit\.json"):
        store.exit_status(SPEC.id)


def test_exit_status_round_trip(tmp_path: Path) -> None:
    """exit.json holds what was written; without the file there is no status."""
    path = tmp_path / "exit.json"
    assert read_exit(path) is None
    status = ExitStatus(exit_code=137, finished_unix_ns=5, error="out of memory")
    write_exit(path, status)
    assert read_exit(path) == status


def test_lock_is_reentrant_in_a_thread_and_excludes_others(tmp_path: Path) -> None:
    """The holder may lock again; another thread waits for the outermost release."""
    store = Store(tmp_path)
    store.add(SPEC, Record())
    order: list[str] = []

    def other() -> None:
        with store.lock(SPEC.id):
            order.append("other")

    with store.lock(SPEC.id):
        with store.lock(SPEC.id):
            thread = threading.Thread(target=other)
            thread.start()
        time.sleep(0.05)
        order.append("holder")
    thread.join()
    assert order == ["holder", "other"]


def test_lock_excludes_another_process(tmp_path: Path) -> None:
    """The lock is an flock on the directory: a second agent sees it."""
    store = Store(tmp_path)
    directory = store.add(SPEC, Record())
    code = f"import fcntl, os; fcntl.flock(os.open({str(directory)!r}, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with store.lock(SPEC.id):
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode != 0
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_lock_of_a_removed_container_is_not_found(tmp_path: Path) -> None:
    """Who waited for a container that is deleted meanwhile gets NotFound, not a lock on nothing."""
    store = Store(tmp_path)
    store.add(SPEC, Record())
    failure: list[BaseException] = []

    def waiter() -> None:
        try:
            with store.lock(SPEC.id):
                pass
        except NotFound as exc:
            failure.append(exc)

    with store.lock(SPEC.id):
        thread = threading.Thread(target=waiter)
        thread.start()
        time.sleep(0.05)
        store.delete(SPEC.id)
    thread.join()
    assert len(failure) == 1
    assert store.ids() == []


def test_two_creations_of_one_id_at_once(tmp_path: Path) -> None:
    """One makes the container, the others are refused, and what the one wrote stays."""
    store = Store(tmp_path)
    made: list[str] = []
    start = threading.Barrier(4)

    def create(migration_id: str) -> None:
        start.wait()
        try:
            store.add(SPEC, Record(migration_id=migration_id, role="target"))
        except AlreadyExists:
            return
        made.append(migration_id)

    for _ in range(10):
        made.clear()
        threads = [threading.Thread(target=create, args=(f"m{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [store.record(SPEC.id).migration_id] == made
        store.delete(SPEC.id)


def test_nothing_is_kept_of_a_container_that_is_gone(tmp_path: Path) -> None:
    """Neither a removed container nor an id that was only asked for stays in the agent's memory; a new one of that id can be locked."""
    store = Store(tmp_path)
    for _ in range(2):
        store.add(SPEC, Record())
        with store.lock(SPEC.id):
            store.delete(SPEC.id)
    with pytest.raises(NotFound), store.lock("d" * 32):
        pass
    assert not store._locks


def test_pieces_of_a_creation_can_be_told_from_a_container(tmp_path: Path) -> None:
    """A power cut before they are synced leaves files of any length, marked as unfinished: then the spec may not be one."""
    store = Store(tmp_path)
    directory = store.add(SPEC, Record())
    assert store.has_spec(SPEC.id)
    store.begin_sync(SPEC.id)()
    (directory / "spec.json").write_text("")
    assert store.unfinished(SPEC.id)
    assert not store.has_spec(SPEC.id)
    store.delete(SPEC.id)
    assert list(tmp_path.iterdir()) == []


def test_a_creation_is_unfinished_until_it_says_so(tmp_path: Path) -> None:
    """Also where its spec is there already; and what has no spec."""
    store = Store(tmp_path)
    directory = store.add(SPEC, Record(epoch=1))
    assert store.unfinished(SPEC.id)
    store.finish(SPEC.id)
    assert not store.unfinished(SPEC.id)
    (directory / "spec.json").unlink()
    assert store.unfinished(SPEC.id)


def test_what_was_only_for_this_boot_is_unfinished_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is removed at its exit is never synced: after a boot it has exited and is removed, but for a move that others decide."""
    store = Store(tmp_path)
    store.add(SPEC, Record())
    store.finish_until_boot(SPEC.id, Record(pid=7))
    assert not store.unfinished(SPEC.id)
    assert Store(tmp_path).record(SPEC.id).pid == 7
    other = tmp_path / "boot_id"
    other.write_text("another\n")
    monkeypatch.setattr("agent.engine.store._BOOT_ID", other)
    assert store.unfinished(SPEC.id)
    store.write_record(SPEC.id, Record(pid=7, migration_id="m1", role="source"))
    assert not store.unfinished(SPEC.id)
    (store.directory(SPEC.id) / "state.json").write_text("")  # as a power cut leaves one
    assert store.unfinished(SPEC.id)
    (store.directory(SPEC.id) / "state.json").write_text("{}")
    (store.directory(SPEC.id) / "until-boot").write_text("")
    assert store.unfinished(SPEC.id)
