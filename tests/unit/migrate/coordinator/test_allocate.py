"""Names, addresses, MACs and id ranges: unique in the fleet, free again after a removal."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrate.coordinator import allocate
from migrate.coordinator.allocate import Allocation
from migrate.coordinator.store import Container, Fleet, Host, Store
from migrate.errors import AlreadyExists, InvalidArgument, MigrateError, NotFound, WrongState

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "db")
    store.put_host(Host(name="host1", address="10.88.0.1"))
    return store


def create(store: Store, **arguments: str) -> Container:
    return allocate.create(store, owner="host1", make_spec=lambda _allocation: "{}", **arguments)


def test_what_the_spec_is_made_of(store: Store) -> None:
    """Address with the subnet's prefix, MAC from the address, ids from the first range."""
    seen: list[Allocation] = []

    def make_spec(allocation: Allocation) -> str:
        seen.append(allocation)
        return '{"made": true}'

    container = allocate.create(store, owner="host1", name="web1", make_spec=make_spec)
    (given_,) = seen
    assert (given_.name, given_.address, given_.mac, given_.ids_base) == (
        "web1", "10.88.1.1/16", "02:42:0a:58:01:01", 1048576,
    )  # fmt: skip
    assert len(given_.id) == 32
    assert (container.spec, container.owner, container.epoch, container.address) == (
        '{"made": true}', "host1", 1, "10.88.1.1",
    )  # fmt: skip
    assert store.container("web1") == container


def test_a_spec_that_cannot_be_made_allocates_nothing(store: Store) -> None:
    """All in one transaction."""

    def fail(_allocation: Allocation) -> str:
        raise InvalidArgument("no such image")

    with pytest.raises(InvalidArgument):
        allocate.create(store, owner="host1", make_spec=fail)
    assert store.containers() == []


def test_a_removed_container_frees_what_it_had(store: Store) -> None:
    """Name, address, MAC and ids go to the next one; the id does not."""
    first = create(store, name="web1")
    store.remove_container(first.id)
    second = create(store, name="web1")
    assert (second.name, second.address, second.mac, second.ids_base) == (
        first.name, first.address, first.mac, first.ids_base,
    )  # fmt: skip
    assert second.id != first.id


def test_made_up_names_are_speakable_and_unique(store: Store) -> None:
    """adjective_surname."""
    names = {create(store).name for _ in range(30)}
    assert len(names) == 30
    for name in names:
        adjective, surname = name.split("_")
        assert adjective in allocate.ADJECTIVES
        assert surname in allocate.SURNAMES


def test_when_all_names_are_taken_one_is_still_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a number behind it."""
    monkeypatch.setattr(allocate, "ADJECTIVES", ("able",))
    monkeypatch.setattr(allocate, "SURNAMES", ("bell",))
    assert create(store).name == "able_bell"
    assert create(store).name.startswith("able_bell_")


@pytest.mark.parametrize("name", ["-web", "web 1", "a/b", "", "a" * 64, "0123456789abcdef" * 2, "wéb"])
def test_names_that_cannot_be(store: Store, name: str) -> None:
    """What a shell, a path or an id would stumble over; the empty one is made up."""
    if not name:
        assert create(store, name=name).name
        return
    with pytest.raises(InvalidArgument):
        create(store, name=name)


def test_a_taken_name_says_by_whom(store: Store) -> None:
    """And the address and the MAC too."""
    first = create(store, name="web1")
    for arguments in ({"name": "web1"}, {"address": first.address}, {"mac": first.mac.upper()}):
        with pytest.raises(AlreadyExists, match="web1"):
            create(store, **arguments)


@pytest.mark.parametrize("address", ["10.88.7.7", "10.88.7.7/16"])
def test_an_address_of_ones_own(store: Store, address: str) -> None:
    """With or without the prefix length; it may lie outside the range that is given out by itself."""
    container = create(store, address=address)
    assert (container.address, container.mac) == ("10.88.7.7", "02:42:0a:58:07:07")


@pytest.mark.parametrize("address", ["10.99.1.1", "10.88.1.1/24", "ten", "fe80::1", "10.88.0.1/33"])
def test_an_address_that_cannot_be(store: Store, address: str) -> None:
    """Another subnet, another prefix length, no address at all."""
    with pytest.raises(InvalidArgument):
        create(store, address=address)


@pytest.mark.parametrize("address", ["10.88.0.0", "10.88.255.255", "10.88.0.1", "10.88.0.254", "10.88.9.9"])
def test_an_address_that_is_somebody_elses(store: Store, address: str) -> None:
    """The subnet's own two, a host's, the gateway's, a reserved one."""
    store.set_fleet(Fleet(gateway="10.88.0.254", reserved=("10.88.9.9",)))
    with pytest.raises(AlreadyExists):
        create(store, address=address)


def test_addresses_come_from_the_range_and_end(store: Store) -> None:
    """Reserved, gateway's and hosts' are passed over; then it is full and says so."""
    store.set_fleet(Fleet(first="10.88.0.0", last="10.88.0.4", gateway="10.88.0.2", reserved=("10.88.0.3",)))
    assert create(store).address == "10.88.0.4"
    with pytest.raises(WrongState, match="no free address"):
        create(store)


@pytest.mark.parametrize("mac", ["02:42:0a", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "0242.0a58.0101"])
def test_a_mac_that_cannot_be(store: Store, mac: str) -> None:
    """Too short, of a group, of everybody, in another notation."""
    with pytest.raises(InvalidArgument):
        create(store, mac=mac)


def test_a_mac_asked_for_by_hand_does_not_block_its_address(store: Store) -> None:
    """Whoever gets the address that it belongs to gets another MAC."""
    create(store, address="10.88.5.5", mac="02:42:0a:58:01:01")
    container = create(store)
    assert container.address == "10.88.1.1"
    assert container.mac.startswith("02:43:")


def test_the_gateway_is_passed_on(store: Store) -> None:
    """ "" without one: then a container has no default route."""
    store.set_fleet(Fleet(gateway="10.88.0.254"))
    seen: list[Allocation] = []
    allocate.create(store, owner="host1", make_spec=lambda a: seen.append(a) or "{}")  # type: ignore[func-returns-value]
    assert seen[0].gateway == "10.88.0.254"


def test_ids_end_before_the_kernels_no_id(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last range that is given out ends below 2**32 - 1."""
    last = allocate.END_OF_IDS - allocate.IDS_COUNT
    monkeypatch.setattr(allocate, "FIRST_IDS_BASE", last)
    assert create(store).ids_base == last
    assert last + allocate.IDS_COUNT - 1 < 2**32 - 1
    with pytest.raises(WrongState, match="ids"):
        create(store)


def test_an_unknown_owner(store: Store) -> None:
    """Is not found, and nothing is allocated."""
    with pytest.raises(NotFound):
        allocate.create(store, owner="host9", make_spec=lambda _a: "{}")


def test_many_at_once_get_different_things(store: Store) -> None:
    """Eight threads, forty containers, no two share anything."""
    made: list[Container] = []

    def work() -> None:
        for _ in range(5):
            made.append(create(store))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for field in ("id", "name", "address", "mac", "ids_base"):
        assert len({getattr(container, field) for container in made}) == 40


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=15))
def test_whatever_comes_and_goes_ranges_never_overlap(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]
) -> None:
    """Creations and removals in any order: ids are multiples of 65536, addresses lie in the range, all distinct."""
    store = Store(tmp_path_factory.mktemp("any") / "db")
    store.put_host(Host(name="host1", address="10.88.0.1"))
    store.set_fleet(Fleet(first="10.88.1.1", last="10.88.1.5"))
    for add, which in steps:
        if add:
            try:
                create(store)
            except MigrateError as exc:
                assert "no free address" in exc.message
                assert len(store.containers()) == 5
        elif containers := store.containers():
            store.remove_container(containers[which % len(containers)].id)
        containers = store.containers()
        assert all(container.ids_base % 65536 == 0 for container in containers)
        assert len({container.ids_base for container in containers}) == len(containers)
        assert len({container.address for container in containers}) == len(containers)
