"""What a session is asked to be."""

from __future__ import annotations

import dataclasses

import pytest

from agent.engine import session
from agent.engine.spec import Isolation
from agent.errors import InvalidArgument
from agent.linux import process
from tests.unit.agent.engine.test_hostfiles import spec as plain

pytestmark = pytest.mark.unit


def test_privileged_has_every_capability_of_the_containers_own_users() -> None:
    """Its filter and what it may gain stay as the container's; where its users are the host's it is refused, with what to do."""
    spec = plain()
    asked = session.request(spec, pid=1, start_ticks=0, cgroups=(), argv=("true",), seccomp="/filter", privileged=True)
    assert asked["capabilities"] == list(process.CAPABILITIES)
    assert (asked["seccomp"], asked["new_privileges"]) == ("/filter", False)
    shared = dataclasses.replace(spec, isolation=Isolation(user="host"))
    with pytest.raises(InvalidArgument, match="would be the host's root"):
        session.request(shared, pid=1, start_ticks=0, cgroups=(), argv=("true",), privileged=True)


def test_groups_and_umask_are_the_containers() -> None:
    """A file that exec makes is one that the container's own processes could have made."""
    spec = dataclasses.replace(plain(), groups=("audio",), umask="0027")
    asked = session.request(spec, pid=1, start_ticks=0, cgroups=(), argv=("true",))
    assert (asked["groups"], asked["umask"]) == (["audio"], 0o027)
