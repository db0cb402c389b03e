"""What keeps a machine from being a host, and which card its bridge gets."""

from __future__ import annotations

from typing import Any

import pytest

from migrate.errors import InvalidArgument
from migrate.join import install, machine
from migrate.join.install import JoinError
from migrate.join.machine import NotFit
from migrate.tunnel import operator
from tests.fakes.machine import FakeMachine

pytestmark = pytest.mark.unit


def look(**facts: Any) -> machine.Machine:
    fake = FakeMachine()
    fake.facts = facts
    return machine.look(fake, "10.0.0.2")


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"uid": 1000}, "only root can set up a host"),
        ({"python": "3.9"}, "its python3 is 3.9, and 3.11 is needed"),
        ({"kernel": "5.15.0-91-generic"}, "its kernel is 5.15.0-91-generic, and 5.19 is needed"),
        ({"machine": "riscv64"}, "its processor is riscv64"),
        ({"missing": ["nft", "sshd"]}, "it lacks nft, sshd"),
        ({"free_bytes": 1 << 20}, "it has 1 MiB free below /opt"),
        ({"unix_s": 0.0}, "behind this machine's"),
        ({"host": "host7"}, "it is host host7 already"),
    ],
)
def test_each_reason_is_told_with_what_to_do(facts: dict[str, Any], what: str) -> None:
    """And nothing else is."""
    ((told, remedy),) = machine.problems(look(**facts), "host2")
    assert what in told
    assert remedy


def test_a_good_machine_has_no_problems() -> None:
    """Also one that is that host already, with half an installation on it."""
    assert machine.problems(look(host="host2", halves=[".0.1.0-abc"]), "host2") == []


def test_all_reasons_are_told_at_once() -> None:
    """The first in the message, all in the detail."""
    error = machine.refuse("root@a", machine.problems(look(uid=5, missing=["ip"]), "host2"))
    assert "and 1 more" in error.message
    assert "apt-get install iproute2" in error.detail
    assert error.exit_status == 5


def test_no_python3() -> None:
    """There is nothing to look with."""
    fake = FakeMachine()
    fake.python3 = False
    with pytest.raises(NotFit, match="has no python3"):
        machine.look(fake, "10.0.0.2")


def test_the_network_is_where_the_address_is() -> None:
    """The card with it gets into the bridge, a bridge with it is the one; what the operator says goes first."""
    card = look()
    assert install.network(card, bridge="", uplink="") == ("migrate0", "eth0")
    assert install.network(card, bridge="br1", uplink="eth9") == ("br1", "eth9")
    bridged = look(card={"name": "br0", "bridge": True})
    assert install.network(bridged, bridge="", uplink="") == ("br0", "")
    with pytest.raises(JoinError, match="no network card of the machine has the address"):
        install.network(look(card={}), bridge="", uplink="")


def test_ways_to_a_machine() -> None:
    """As ssh has them; the port may be an option."""
    assert str(operator.parse_login("root@10.0.0.2")) == "root@10.0.0.2"
    assert str(operator.parse_login("10.0.0.2", 2222)) == "root@10.0.0.2:2222"
    assert operator.parse_login("op@h:23").port == 23
    for wrong in ("@h", "root@", "h:x", "h:0"):
        with pytest.raises(InvalidArgument, match="is no way to a machine"):
            operator.parse_login(wrong)
