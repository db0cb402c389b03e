"""Real moves, there and back: a family of programs, a Redis under a client, a user without privileges, a terminal.

All four travel once, in the fixture; each test looks at one thing that must not have changed on the way.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from migrate.lab.demo_run import Outside, Seen
from migrate.records import Container, Migration, Run
from tests.criu.moving_lab import Dialogue, MovingLab, program, wait_for
from tests.system import strict_tree

pytestmark = pytest.mark.criu

WORKLOADS = ("counter", "open_files", "kernel_objects", "dirty_memory", "tcp_echo")
FACTS = ("token", "environment", "hostname", "hosts", "resolv", "cwd", "ids", "limits", "capabilities", "mounts")
UNREAD = "bytes that nobody has read yet"
MEMORY_BYTES, PIDS = 512 << 20, 200
# As a user without privileges: opens the log's pipe anew for each line, and notes what it may not do.
WRITER = """
i=0
while :; do
    i=$((i+1))
    echo "opened $i" > /dev/stdout || echo "stdout $i" >> /tmp/refused
    echo "err $i" > /dev/stderr || echo "stderr $i" >> /tmp/refused
    sleep 0.1
done
"""
SHELL = 'while read -r line; do eval "$line"; done'
ODD_TREE = """
set -e
mkdir /srv/odd; cd /srv/odd
printf data > plain; chmod 4750 plain; chown 5:6 plain; touch -d @1000000000 plain
ln plain second-name; ln -s plain link; mkfifo fifo
dd if=/dev/zero of=sparse bs=1 count=1 seek=10M 2>/dev/null
printf x > "$(printf 'odd\\nname')"
dd if=/dev/urandom of=random bs=1M count=3 2>/dev/null
rm /usr/bin/python3.11-absent /etc/group 2>/dev/null || true
rm -r /usr/lib/python3.11/json; mkdir /usr/lib/python3.11/json; printf y > /usr/lib/python3.11/json/new
touch -d @1000000001 .
"""


@dataclass
class Stop:
    """What was seen in one place: before the journey, there, and back home."""

    family: Container
    facts: dict[str, Any]
    tree: dict[bytes, dict[str, Any]]
    limits: tuple[str, str]
    moved: dict[str, Migration] = field(default_factory=dict)
    client: list[Seen] = field(default_factory=list)


@dataclass
class Journey:
    fleet: MovingLab
    stops: list[Stop]  # home, there, home again
    stdin: str  # what was read after the first move of what was written before it
    echoes: list[str]
    followed: list[str]  # lines of `logs -f`, which ran during the first move
    redis_port: int
    terminal: str
    refused: list[str]  # what the user without privileges was not allowed
    writer: list[str]


@pytest.fixture(scope="module")
def journey(fleet: MovingLab) -> Iterator[Journey]:
    client = fleet.client
    client.run(
        Run(
            image="work",
            name="family",
            host="host1",
            argv=program(
                "family", "7100", "counter", "open_files", "kernel_objects", "dirty_memory:16:10", "tcp_echo:7000"
            ),
            env=("COLOUR=green", "EMPTY="),
            cwd="/srv",
            hostname="family-house",
            memory_bytes=MEMORY_BYTES,
            pids=PIDS,
            stdin_open=True,
            labels={"tier": "test"},
            stop_timeout_s=5,
        )
    )
    redis = client.run(
        Run(
            image="redis",
            name="redis",
            host="host1",
            argv=("redis-server", "--bind", "0.0.0.0", "--save", "", "--protected-mode", "no"),
        )
    )
    client.run(Run(image="work", name="writer", host="host1", user="nobody", argv=("/bin/sh", "-c", WRITER)))
    client.run(
        Run(image="work", name="terminal", host="host1", tty=True, stdin_open=True, argv=("/bin/sh", "-c", SHELL))
    )
    wait_for(lambda: any(b"ready" in line.data for line in client.logs("family")))
    status, output = fleet.run("family", "/bin/sh", "-c", ODD_TREE)
    assert status == 0, output

    family = client.inspect("family")
    asking, echo = Dialogue(fleet.lab, family.address, 7100), Dialogue(fleet.lab, family.address, 7000)
    outside = Outside(fleet.lab, redis.address.partition("/")[0], 6379)
    outside.wait_for_server()
    typing = client.attach("family", stdin=True)
    typing.wait_started()
    typing.send(UNREAD.encode())
    time.sleep(0.3)
    typing.close()
    follower = subprocess.Popen(
        fleet.command("logs", "-f", "family"),
        env=fleet.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with outside.client() as talking:
            stops = [look(fleet, asking)]
            echoes = [echo.ask("one")]
            talking.report()
            moved = {"family": fleet.move("family"), "redis": fleet.move("redis")}
            during = talking.report()
            stdin = json.loads(asking.ask("stdin"))
            asking.ask("say there")
            echoes.append(echo.ask("two"))
            time.sleep(0.5)
            follower.terminate()
            followed = str(follower.communicate(timeout=20)[0]).splitlines()
            stops.append(look(fleet, asking, moved, [during, talking.report()]))
            moved = {name: fleet.move(name) for name in ("writer", "terminal")}
            stops[-1].moved.update(moved)

            fleet.restart_agents()
            echoes.append(echo.ask("three"))
            talking.report()
            moved = {"family": fleet.move("family"), "redis": fleet.move("redis")}
            during = talking.report()
            time.sleep(1)
            asking.ask("say home")
            echoes.append(echo.ask("four"))
            stops.append(look(fleet, asking, moved, [during, talking.report()]))
            port = talking.port
        _, refused = fleet.run("writer", "/bin/sh", "-c", "cat /tmp/refused 2>/dev/null")
        yield Journey(
            fleet=fleet,
            stops=stops,
            stdin=stdin,
            echoes=echoes,
            followed=followed,
            redis_port=port,
            terminal=use_terminal(fleet),
            refused=refused.splitlines(),
            writer=[line.data.decode() for line in client.logs("writer")],
        )
    finally:
        follower.kill()
        follower.communicate()
        asking.close()
        echo.close()
        for name in ("family", "redis", "writer", "terminal"):
            client.remove(name, force=True)


def look(
    fleet: MovingLab, asking: Dialogue, moved: dict[str, Migration] | None = None, seen: list[Seen] | None = None
) -> Stop:
    """Everything about the family, from inside and from outside."""
    family = fleet.client.inspect("family")
    for workload in WORKLOADS[:-1]:
        fleet.later("family", workload)  # so that each has looked at itself since it came here
    upper = fleet.upper(family)
    tree = strict_tree.read(upper / "srv/odd")
    tree.update({b"/json" + path: facts for path, facts in strict_tree.read(upper / "usr/lib/python3.11/json").items()})
    return Stop(
        family=family,
        facts=json.loads(asking.ask("facts")),
        tree=tree,
        limits=(
            fleet.control_file(family, "memory", "memory.limit_in_bytes", "memory.max"),
            fleet.control_file(family, "pids", "pids.max", "pids.max"),
        ),
        moved=moved or {},
        client=seen or [],
    )


def use_terminal(fleet: MovingLab) -> str:
    """Type into the shell that was moved; what it shows."""
    session = fleet.client.attach("terminal", stdin=True, tty=True, rows=41, columns=99)
    session.wait_started()
    session.resize(41, 99)
    time.sleep(0.2)
    session.send(b"echo answer-$((6*7)); stty size; exit 5\n")
    return b"".join(output.data for output in session).decode() + f"\nstatus {session.exit_code}"


def there_and_back(journey: Journey) -> list[tuple[str, Stop, Stop]]:
    return [("there", journey.stops[0], journey.stops[1]), ("home", journey.stops[0], journey.stops[2])]


def test_each_move_is_recorded(journey: Journey) -> None:
    """Six moves between the two hosts, all succeeded, each with its journal, and the epoch counts them."""
    records = [record for stop in journey.stops for record in stop.moved.values()]
    assert [record.state for record in records] == ["succeeded"] * 6
    assert all(record.journal and record.marks and record.facts["frozen_s"] > 0 for record in records)
    assert [stop.family.host for stop in journey.stops] == ["host1", "host2", "host1"]
    epochs = [stop.family.epoch for stop in journey.stops]
    assert epochs == [epochs[0], epochs[0] + 1, epochs[0] + 2]


def test_skeleton_only(journey: Journey) -> None:
    """CRIU's own images hold no memory where the kernel can do without: a few MB for 8 processes with more than 100."""
    records = [record for stop in journey.stops for record in stop.moved.values()]
    assert all(record.sent_bytes["images"] < 24 << 20 for record in records), [r.sent_bytes for r in records]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_workload_finds_nothing_wrong(journey: Journey, workload: str) -> None:
    """The same process (its token was only ever in memory) goes on counting and has found no fault in itself."""
    counts = []
    for stop in journey.stops:
        child = stop.facts["children"][workload]
        assert child["alive"]
        assert child["status"]["problems"] == []
        assert child["status"]["token"] == journey.stops[0].facts["children"][workload]["status"]["token"]
        counts.append(child["status"]["count"])
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("fact", FACTS)
def test_fact_of_init(journey: Journey, fact: str) -> None:
    """What init finds about itself and its surroundings is the same everywhere."""
    for place, before, after in there_and_back(journey):
        assert after.facts[fact] == before.facts[fact], place


def test_facts_are_what_was_asked_for(journey: Journey) -> None:
    """The environment, names and directory of the command line, not only the same wrong ones everywhere."""
    facts = journey.stops[2].facts
    assert facts["environment"]["COLOUR"] == "green"
    assert facts["environment"]["EMPTY"] == ""
    assert (facts["hostname"], facts["cwd"]) == ("family-house", "/srv")
    assert "family-house" in facts["hosts"]


def test_process_tree(journey: Journey) -> None:
    """Pids, parents, groups, sessions, the zombie, the stopped process and each process's threads."""
    home = journey.stops[0].facts["tree"]
    assert {each[4] for each in home} == {"-", "Z", "T"}
    assert max(each[5] for each in home) >= 5
    for place, before, after in there_and_back(journey):
        assert after.facts["tree"] == before.facts["tree"], place


def test_spec_is_the_same(journey: Journey) -> None:
    """What `inspect` says, but for host, epoch, pid and times."""

    def lasting(container: Container) -> dict[str, Any]:
        changing = ("host", "epoch", "pid", "started_unix_ns", "migration_id")
        return {name: value for name, value in container.to_dict().items() if name not in changing}

    for place, before, after in there_and_back(journey):
        assert lasting(after.family) == lasting(before.family), place
        assert after.family.pid > 0


def test_limits(journey: Journey) -> None:
    """The cgroup on each host has the container's limits of memory and processes."""
    assert [stop.limits for stop in journey.stops] == [(str(MEMORY_BYTES), str(PIDS))] * 3


def test_writable_layer(journey: Journey) -> None:
    """Odd names, holes, hard links, owners, modes, times, a fifo, a directory that replaced the image's: to the last detail."""
    assert len(journey.stops[0].tree) > 8
    for place, before, after in there_and_back(journey):
        assert strict_tree.differences(before.tree, after.tree) == [], place


def test_unread_stdin(journey: Journey) -> None:
    """What was typed before the move and read by nobody is read after it, once."""
    assert journey.stdin == UNREAD


def test_echo_connection(journey: Journey) -> None:
    """One TCP connection over both moves and a restart of both agents; the server's counter goes on."""
    assert journey.echoes == ["1 one", "2 two", "3 three", "4 four"]


def test_redis_client(journey: Journey) -> None:
    """One connection, INCR as fast as it goes: no reply lost, repeated or out of order, none later than 5 s."""
    seen = [each for stop in journey.stops for each in stop.client]
    assert [problem for each in seen for problem in each.problems] == []
    assert {each.port for each in seen} == {journey.redis_port}
    assert all(each.replies > 0 for each in seen)
    assert max(each.longest_gap_s for each in seen) < 5, [each.longest_gap_s for each in seen]


def numbers(lines: list[str], pattern: str) -> list[int]:
    return [int(found[1]) for line in lines if (found := re.search(pattern, line))]


def test_log_has_each_line_once(journey: Journey) -> None:
    """Over two moves no line is lost, doubled or out of order, and the times only grow."""
    lines = list(journey.fleet.client.logs("family"))
    counted = numbers([line.data.decode() for line in lines], r"^[0-9a-f]{32} (\d+)$")
    assert len(counted) > 5
    assert counted == list(range(100, 100 * len(counted) + 1, 100))
    said = [(line.stream, line.data.decode().strip()) for line in lines]
    for word in ("there", "home"):
        assert sorted(stream for stream, text in said if text == word) == ["stderr", "stdout"]
    times = [line.unix_ns for line in lines]
    assert times == sorted(times)


def test_following_the_log_goes_through_a_move(journey: Journey) -> None:
    """`logs -f` that was running shows what came before the move and what came after it, each line once."""
    counted = numbers(journey.followed, r"[0-9a-f]{32} (\d+)$")
    assert counted == list(range(100, 100 * len(counted) + 1, 100))
    assert "there" in journey.followed, journey.followed[-20:]


def test_user_without_privileges(journey: Journey) -> None:
    """A process that is not root may open its /dev/stdout and /dev/stderr anew after the move, and no line is missing."""
    assert journey.refused == []
    counted = numbers(journey.writer, r"^opened (\d+)$")
    assert counted == list(range(1, len(counted) + 1))
    journey.fleet.client.kill("writer")
    assert journey.fleet.client.wait("writer", timeout_s=20).exit_code == 137


def test_terminal(journey: Journey) -> None:
    """A shell with a terminal can be attached after the move: it answers, has the size that was set, and ends as told."""
    assert "answer-42" in journey.terminal
    assert "41 99" in journey.terminal
    assert journey.terminal.endswith("status 5")


def test_exec_after_the_moves(journey: Journey) -> None:
    """A command finds the same container: its name, its processes, a terminal of its own where asked for."""
    assert journey.fleet.run("family", "hostname") == (0, "family-house\n")
    status, output = journey.fleet.run("family", "/bin/sh", "-c", "tty; exit 3", tty=True)
    assert (status, output.strip()) == (3, "/dev/pts/0")


def test_address_is_the_containers(journey: Journey) -> None:
    """The address that the fleet knows is the one on eth0, with the same hardware address everywhere."""
    _, text = journey.fleet.run("family", "ip", "addr", "show", "eth0")
    family = journey.stops[0].family
    assert family.address in text
    assert family.mac in text


def test_stop_gives_the_programs_own_status(journey: Journey) -> None:
    """`stop` reaches the moved process, whose answer to SIGTERM is its exit status; the log stays."""
    stopped = journey.fleet.client.stop("family")
    assert (stopped.state, stopped.exit_code, stopped.host) == ("exited", 42, "host1")
    assert list(journey.fleet.client.logs("family", tail=1))
