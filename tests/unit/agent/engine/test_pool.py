"""Monitors made ahead of need: real zygotes and monitors, as an agent has them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.engine import link
from agent.engine.launch import ContainerStartError, MonitorClient
from agent.engine.pool import Idle, Pool

pytestmark = pytest.mark.unit


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = Pool(tmp_path / "zygote.log", None, size=2)
    yield made
    made.close()


def status(idle: Idle) -> str:
    client = MonitorClient(idle.connection)
    try:
        return str(client.request("status")["state"])
    finally:
        client.close()


def until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def parent(pid: int) -> int:
    """0 when there is no such process (any more)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[1])


def waiting(pool: Pool) -> list[Idle]:
    with pool._guard:
        return list(pool._idle)


def test_pool_is_filled_ahead_of_need_and_after_it(pool: Pool) -> None:
    """As many wait as it has room for; one that is taken is one of those, and another takes its place."""
    pool.start()
    until(lambda: len(waiting(pool)) == 2)
    first = waiting(pool)[0]
    idle = pool.take()
    assert idle is first
    assert status(idle) == "idle"
    until(lambda: len(waiting(pool)) == 2)
    assert first not in waiting(pool)
    idle.close()


def test_empty_pool_makes_one_at_once(pool: Pool) -> None:
    """Without a thread that fills it, and for more than it holds, too."""
    several = [pool.take() for _ in range(4)]
    assert len({idle.process.pid for idle in several}) == 4
    for idle in several:
        assert status(idle) == "idle"
        idle.close()


def test_killed_zygote_has_a_successor(pool: Pool) -> None:
    """Its monitors live on; the next one comes from another."""
    first = pool.take()
    zygote = parent(first.process.pid)
    os.kill(zygote, signal.SIGKILL)
    second = pool.take()
    assert status(first) == "idle"
    assert parent(second.process.pid) not in (0, zygote)
    first.close()
    second.close()


def test_killed_monitor_is_not_given_away(pool: Pool) -> None:
    """One that died while it waited is passed over, and shows as ended."""
    pool.start()
    until(lambda: len(waiting(pool)) == 2)
    first = waiting(pool)[0]
    first.process.kill()
    assert first.process.wait(10)
    assert parent(first.process.pid) == 0, "nobody is left as a zombie"
    idle = pool.take()
    assert idle is not first
    assert status(idle) == "idle"
    idle.close()


def test_killed_stage_is_not_given_away(pool: Pool) -> None:
    """Nor is a monitor whose stage died while it waited: it ends."""
    pool.start()
    until(lambda: len(waiting(pool)) == 2)
    first = waiting(pool)[0]
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: not parent(first.pid))
    monitor = first.process.pid
    idle = pool.take()
    assert idle is not first
    assert idle.alive()
    until(lambda: not parent(monitor))
    idle.close()


def test_what_waits_has_a_network_of_its_own_that_is_ready(pool: Pool) -> None:
    """lo is up in it, seen through the socket that comes along; eth0 is to come."""
    idle = pool.take()
    (lo,) = idle.inside.links()
    assert (lo.index, lo.name) == (link.LOOPBACK, "lo")
    routes = Path(f"/proc/{idle.pid}/net/fib_trie").read_text()
    assert "127.0.0.1" in routes, "the kernel gives lo its address when it comes up"
    idle.close()


def test_monitors_that_nobody_wants_end(pool: Pool) -> None:
    """Without the agent's end of its connection an idle monitor ends by itself, at once; the zygote too."""
    idle = pool.take()
    pid, zygote = idle.process.pid, parent(idle.process.pid)
    idle.close()
    until(lambda: not parent(pid))
    pool.close()
    until(lambda: not parent(zygote))


def test_none_is_made_after_the_end(pool: Pool) -> None:
    """Whoever was about to have one made when the agent ended does not start another zygote, which nobody would end."""
    idle = pool.take()
    zygote = parent(idle.process.pid)
    idle.close()
    pool.close()
    with pytest.raises(ContainerStartError, match="the agent is ending"):
        pool.take()
    assert pool._zygote is None
    until(lambda: not parent(zygote))


def test_monitor_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The last words of the zygote are in the error."""
    pool = Pool(tmp_path / "zygote.log", None, size=0, package_root=tmp_path / "nowhere")
    with pytest.raises(ContainerStartError, match="can't open file") as caught:
        pool.take()
    assert caught.value.step == "monitor"
    pool.close()
