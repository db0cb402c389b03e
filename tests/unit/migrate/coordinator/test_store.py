"""What the coordinator's database allows and refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from migrate.coordinator import allocate
from migrate.coordinator.store import (
    Container,
    Desired,
    Fleet,
    Host,
    Migration,
    MigrationId,
    MoveState,
    Store,
    change_owner,
)
from migrate.errors import ErrorRecord, InvalidArgument, NotFound, WrongState
from tests.fakes import coordinator

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "db")
    for number in (1, 2):
        store.put_host(Host(name=f"host{number}", address=f"10.0.0.{number}", host_keys=("ssh-ed25519 AAAA",)))
    return store


@pytest.fixture
def web1(store: Store) -> Container:
    return allocate.create(store, owner="host1", name="web1", make_spec=lambda a: f'{{"id": "{a.id}"}}')


def a_move(container: Container, number: int = 1, **changes: object) -> Migration:
    """The `number`th."""
    values = {"id": MigrationId(f"{number:016x}"), "reason": "test", "started_unix_ns": number}
    return coordinator.a_move(container, **(values | changes))


def test_everything_is_there_after_a_restart(store: Store, web1: Container, tmp_path: Path) -> None:
    """Fleet, hosts, containers and moves come back as they were written."""
    fleet = Fleet(name="prod", subnet="10.9.0.0/16", first="10.9.1.1", last="10.9.1.9", reserved=("10.9.1.5",))
    store.set_fleet(fleet)
    move = store.create_migration(a_move(web1))
    again = Store(tmp_path / "db")
    assert again.fleet() == fleet
    assert again.hosts() == store.hosts()
    assert again.container("web1") == web1
    assert again.migration(move.id) == move


def test_a_new_database_has_a_fleet(store: Store) -> None:
    """Defaults, before anybody has set anything."""
    assert store.fleet() == Fleet()


def test_a_host_can_change_its_address(store: Store) -> None:
    """The same name again replaces what is known; other hosts keep theirs."""
    store.put_host(Host(name="host1", address="10.0.0.9", port=2222))
    assert store.host("host1") == Host(name="host1", address="10.0.0.9", port=2222)
    assert store.host("host2").address == "10.0.0.2"


def test_an_unknown_host_names_the_known_ones(store: Store) -> None:
    """The hint lists them: it is mostly a typing mistake."""
    with pytest.raises(NotFound) as caught:
        store.host("hots1")
    assert "host1, host2" in caught.value.hint


def test_a_host_with_containers_stays(store: Store, web1: Container) -> None:
    """Forgetting it would forget where they are; without any it can go."""
    with pytest.raises(WrongState, match="web1"):
        store.remove_host("host1")
    store.remove_host("host2")
    assert [host.name for host in store.hosts()] == ["host1"]


def test_a_host_that_a_container_moves_to_stays(store: Store, web1: Container) -> None:
    """Until the move has ended."""
    move = store.create_migration(a_move(web1))
    with pytest.raises(WrongState, match=move.id):
        store.remove_host("host2")
    store.set_migration_state(move.id, MoveState.FAILED, None)
    store.remove_host("host2")


def test_containers_are_found_by_name_id_and_prefix(store: Store, web1: Container) -> None:
    """A name wins over a prefix; an ambiguous prefix says so; nothing found says where to look."""
    other = allocate.create(store, owner="host2", name=web1.id[:4], make_spec=lambda _a: "{}")
    assert store.container("web1") == web1
    assert store.container(web1.id) == web1
    assert store.container(web1.id[:8]) == web1
    assert store.container(web1.id[:4]) == other
    with pytest.raises(NotFound) as caught:
        store.container("nope")
    assert caught.value.code == "container.not_found"
    for number in range(17):  # two ids at least begin with the same digit
        allocate.create(store, owner="host1", name=f"c{number}", make_spec=lambda _a: "{}")
    digits = [container.id[0] for container in store.containers()]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(InvalidArgument, match="ids"):
        store.container(twice)
    with pytest.raises(NotFound):
        store.container("")


def test_containers_of_one_host(store: Store, web1: Container) -> None:
    """And those of all."""
    web2 = allocate.create(store, owner="host2", name="web2", make_spec=lambda _a: "{}")
    assert store.containers() == [web1, web2]
    assert store.containers(owner="host2") == [web2]


def test_what_the_user_wants_is_kept(store: Store, web1: Container) -> None:
    """Desired state and spec can change, nothing else does."""
    store.set_desired(web1.id, Desired.STOPPED)
    store.set_spec(web1.id, '{"new": 1}')
    assert store.container("web1") == dataclasses.replace(web1, desired=Desired.STOPPED, spec='{"new": 1}')


def test_a_container_has_one_active_move(store: Store, web1: Container) -> None:
    """Whatever active state the first is in; when it has ended the next may begin."""
    first = store.create_migration(a_move(web1, 1))
    for state in (MoveState.RUNNING, MoveState.WAITING, MoveState.NEEDS_ATTENTION):
        store.set_migration_state(first.id, state, None)
        with pytest.raises(WrongState, match=first.id):
            store.create_migration(a_move(web1, 2))
    store.set_migration_state(first.id, MoveState.CANCELLED, None)
    store.create_migration(a_move(web1, 2))


def test_a_container_that_moves_is_not_removed(store: Store, web1: Container) -> None:
    """Afterwards it is, twice too, and its history stays."""
    move = store.create_migration(a_move(web1))
    with pytest.raises(WrongState, match=move.id):
        store.remove_container(web1.id)
    store.set_migration_state(move.id, MoveState.SUCCEEDED, None)
    store.remove_container(web1.id)
    store.remove_container(web1.id)
    assert store.migration(move.id).container == "web1"


def test_the_same_request_is_the_same_move(store: Store, web1: Container) -> None:
    """Also when that move has ended."""
    first = store.create_migration(a_move(web1, 1, request_id="r1"))
    store.set_migration_state(first.id, MoveState.FAILED, None)
    assert store.create_migration(a_move(web1, 2, request_id="r1")).id == first.id
    assert len(store.migrations()) == 1


def test_a_move_from_where_the_container_was_is_refused(store: Store, web1: Container) -> None:
    """Between reading the owner and claiming the container another move may have ended."""
    with store.database.transaction() as db:
        change_owner(db, web1.id, source="host1", target="host2", epoch=1)
    with pytest.raises(WrongState, match="no longer on host1"):
        store.create_migration(a_move(web1))


def test_the_owner_changes_once(store: Store, web1: Container) -> None:
    """From the owner at its epoch, and the second time it is refused."""
    with store.database.transaction() as db:
        change_owner(db, web1.id, source="host1", target="host2", epoch=1)
    moved = store.container("web1")
    assert (moved.owner, moved.epoch) == ("host2", 2)
    with pytest.raises(WrongState), store.database.transaction() as db:
        change_owner(db, web1.id, source="host1", target="host2", epoch=1)
    assert store.container("web1") == moved


def test_moves_are_listed_newest_first(store: Store, web1: Container) -> None:
    """All, those of one container, the active ones, the last few."""
    web2 = allocate.create(store, owner="host1", name="web2", make_spec=lambda _a: "{}")
    first = store.create_migration(a_move(web1, 1))
    store.set_migration_state(first.id, MoveState.SUCCEEDED, None)
    second = store.create_migration(a_move(web2, 2))
    third = store.create_migration(a_move(web1, 3))
    ids = [move.id for move in store.migrations()]
    assert ids == [third.id, second.id, first.id]
    assert [move.id for move in store.migrations(container_id=web1.id)] == [third.id, first.id]
    assert [move.id for move in store.migrations(active=True)] == [third.id, second.id]
    assert [move.id for move in store.migrations(limit=1)] == [third.id]


def test_how_a_move_ended_is_kept(store: Store, web1: Container) -> None:
    """State, error and the time; an active state has no end."""
    move = store.create_migration(a_move(web1))
    error = ErrorRecord(code="storage", message="no room", hint="make room", touched="undone", detail="df")
    store.set_migration_state(move.id, MoveState.WAITING, error)
    assert store.migration(move.id).finished_unix_ns == 0
    store.set_migration_state(move.id, MoveState.FAILED, error)
    ended = store.migration(move.id[-16:])
    assert (ended.state, ended.error) == (MoveState.FAILED, error)
    assert ended.finished_unix_ns > 0


def test_a_move_is_found_by_the_beginning_of_its_id(store: Store, web1: Container) -> None:
    """If it is the beginning of one only."""
    first = store.create_migration(a_move(web1, 1))
    store.set_migration_state(first.id, MoveState.FAILED, None)
    store.create_migration(a_move(web1, 2, id=MigrationId("f" * 16)))
    assert store.migration("00").id == first.id
    store.set_migration_state(MigrationId("f" * 16), MoveState.FAILED, None)
    store.create_migration(a_move(web1, 3))
    with pytest.raises(InvalidArgument):
        store.migration("00")
    for unknown in ("abc", ""):
        with pytest.raises(NotFound):
            store.migration(unknown)
