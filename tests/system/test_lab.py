"""The lab: real namespaces, sshd, agents and coordinator; what it changes on the machine, and that it leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrate.client import Client
from migrate.lab import cgroups, down, layout, nodes, observe, processes, provision, status, up
from migrate.lab.layout import Lab
from migrate.lab.lock import lock

pytestmark = pytest.mark.system

PREFIX = "tlab"
OTHER = "tlabtwo"
LIMIT_S = 120  # of waiting for what comes at once on an idle machine


def machine() -> dict[str, object]:
    """What a lab must never change: accounts, names, addresses and mounts of the machine itself."""
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    touched = ("/etc", "/run/", "/sys", "/var/lib/migrate")  # elsewhere others may mount while we look
    return {
        "accounts": [Path("/etc", name).read_bytes() for name in ("passwd", "group", "shadow", "hosts")],
        "hostname": socket.gethostname(),
        "addresses": subprocess.run(["ip", "-br", "addr"], capture_output=True, text=True, check=True).stdout,
        "mounts": sorted(each for each in points if each.startswith(touched) and not each.startswith("/run/netns")),
        "/etc/migrate": Path("/etc/migrate").exists(),
        # Of an agent of the machine's own. That no lab leaves its mount point is seen in `leftovers`.
        "state": provision.STATE.exists() and not provision.MADE_BY_LAB.exists(),
    }


def leftovers(prefix: str) -> list[str]:
    """What of a lab is on the machine, found in another way than `down` finds it: by name, in ps and everywhere."""
    label = Lab(prefix=prefix, hosts=1).label
    exact = re.compile(rf"{label}(?![a-z0-9-])|(?<![a-z0-9]){prefix}-(host|switch|client|controller)")
    lines = [each.command for each in processes.everybody().values() if exact.search(each.command)]
    lines += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if exact.search(line)]
    for place in ("/run/netns", "/run/lock", "/var/lib"):
        lines += [str(path) for path in Path(place).glob("*") if exact.search(path.name)]
    for directory, _, _ in os.walk("/sys/fs/cgroup"):
        if exact.search(directory):
            lines.append(directory)
    return lines + observe.snapshot(prefix).describe()


def wait_for(what: Callable[[], bool], timeout_s: float = LIMIT_S) -> bool:
    deadline = time.monotonic() + timeout_s
    while not (held := what()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return held


def inside(lab: Lab, name: str, *command: str) -> str:
    line = nodes.command(lab, name, command)
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def build(prefix: str, hosts: int = 2) -> Lab:
    return up.up(prefix, hosts=hosts, criu=os.environ.get("MIGRATE_CRIU", ""), say=lambda _: None, timeout_s=LIMIT_S)


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """Two runs of these tests on one machine take turns: each would clear the other's labs away."""
    with lock(f"{PREFIX}-tests"):
        yield


@pytest.fixture
def clean() -> Iterator[None]:
    """No lab of ours before and after, whatever the test does."""
    for prefix in (PREFIX, OTHER):
        down.down(prefix, force=True)
    yield
    for prefix in (PREFIX, OTHER):
        down.down(prefix, force=True)


@pytest.fixture(scope="module")
def lab(alone: None) -> Iterator[Lab]:
    """One lab for the tests that only look at it, or hurt it in ways that it heals."""
    down.down(PREFIX, force=True)
    yield build(PREFIX)
    down.down(PREFIX, force=True)


def test_only_the_containers_of_builds_have_a_way_out(lab: Lab) -> None:
    """Each host has tap0 and translates what comes from its segment; nodes that build nothing have no route out."""
    for name, out in (("host1", True), ("controller", False), ("client", False)):
        wait_for(lambda name=name, out=out: ("default" in _in_node(lab, name, "ip", "route")) == out)  # type: ignore[misc]  # mypy and defaults of a lambda
        assert ("default via 10.0.2.2 dev tap0" in _in_node(lab, name, "ip", "route")) == out
    assert "masquerade" in _in_node(lab, "host1", "nft", "list", "ruleset")


def _in_node(lab: Lab, name: str, *command: str) -> str:
    argv = ["ip", "netns", "exec", lab.netns(name), *command]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_every_agent_answers_through_the_coordinator(lab: Lab) -> None:
    """`up` returns when the whole way works: socket, coordinator, ssh, dial, door, agent; status says so too."""
    with Client(lab.socket) as client:
        hosts = client.hosts(facts=True)
    assert [(host.name, host.reachable, host.error) for host in hosts] == [("host1", True, ""), ("host2", True, "")]
    found = status.status(PREFIX)
    assert (found.state, found.problems) == ("up", ())
    assert all(program.pid for node in found.nodes for program in node.programs)


def test_up_twice_changes_nothing(lab: Lab) -> None:
    """The second `up` says that the lab is up and starts nothing; another number of hosts is refused."""
    before = nodes.states(lab.state_dir)
    said: list[str] = []
    assert up.up(PREFIX, hosts=None, criu="", say=said.append) == lab
    assert "up already" in said[0]
    assert nodes.states(lab.state_dir) == before
    with pytest.raises(layout.LabError, match="2 hosts"):
        up.up(PREFIX, hosts=3, criu="", say=said.append)


def test_hosts_are_apart(lab: Lab) -> None:
    """Each host has its own name, accounts, /run, state, devices and cgroup, and sees nothing of other labs."""
    for name, address in (("host1", "10.88.0.11"), ("host2", "10.88.0.12")):
        assert inside(lab, name, "hostname").strip() == name
        assert inside(lab, name, "cat", "/etc/hostname").strip() == name
        assert inside(lab, name, "getent", "passwd", "migrate").strip().endswith(":/etc/migrate/dial")
        assert inside(lab, name, "stat", "-f", "-c", "%T", "/run").strip() == "tmpfs"
        assert inside(lab, name, "ls", "/run/netns") == ""
        assert {"lo", "eth0", "migrate0"} <= set(inside(lab, name, "ls", "/sys/class/net").split())
        assert address in inside(lab, name, "ip", "-br", "addr", "show", "migrate0")
        assert "LOOPBACK,UP" in inside(lab, name, "ip", "link", "show", "lo")
        assert f'cgroup_parent = "{lab.label}/{name}"' in inside(lab, name, "cat", "/etc/migrate/agent.toml")
        (lab.node_dir(name) / "var/mark").write_text(name)
        assert inside(lab, name, "cat", "/var/lib/migrate/mark") == name


def test_secrets_are_closed(lab: Lab) -> None:
    """Only root gets into the lab's directory, on a host only root reads the host key, and anybody reads the CA's."""
    assert lab.state_dir.stat().st_mode & 0o777 == 0o700
    assert inside(lab, "host1", "stat", "-c", "%a", "/etc/migrate/ssh_host_ed25519_key").strip() == "600"
    assert inside(lab, "host1", "cat", "/etc/migrate/ca.pub").startswith("ssh-ed25519 ")


def test_client_reaches_the_hosts(lab: Lab) -> None:
    """The client namespace is on the fleet's segment: sshd answers it on each host's own address."""
    for address in ("10.88.0.11", "10.88.0.12"):
        banner = f"import socket; print(socket.create_connection(({address!r}, 22), timeout={LIMIT_S}).recv(8))"
        assert "SSH-2.0-" in inside(lab, "client", sys.executable, "-c", banner)


def test_program_that_dies_is_started_again(lab: Lab) -> None:
    """Agent, sshd and coordinator come back after SIGKILL, each with a new pid, and the fleet is whole again."""
    for name, program in (("host1", "agent"), ("host2", "sshd"), ("controller", "coordinator")):
        before = next(each for each in nodes.states(lab.state_dir)[name].programs if each.name == program)
        os.kill(before.pid, signal.SIGKILL)

        def back(name: str = name, program: str = program, starts: int = before.starts) -> bool:
            now = next(each for each in nodes.states(lab.state_dir)[name].programs if each.name == program)
            return now.starts > starts and now.pid != 0

        assert wait_for(back), nodes.tail(lab.log_dir(name) / "node.log")
    up.wait_until_ready(lab, timeout_s=LIMIT_S)


def test_cli_enters_and_shows(lab: Lab) -> None:
    """`migrate lab enter`, `status` and `logs` work for a lab named by MIGRATE_LAB."""
    environment = {**os.environ, "MIGRATE_LAB": PREFIX}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "migrate", "lab", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=provision.SOURCE)

    assert run("enter", "host2", "hostname").stdout == "host2\n"
    assert run("enter", "client", "--", "sh", "-c", "exit 3").returncode == 3
    shown = run("status")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "10.88.0.12" in shown.stdout
    assert "Server listening on 10.88.0.11" in run("logs", "host1").stdout
    assert run("enter", "host9", "true").returncode == 2


def test_down_leaves_nothing(clean: None) -> None:
    """After up and down the machine is as before: processes, mounts, namespaces, cgroups, files, accounts, addresses."""
    before = machine()
    build(PREFIX)
    during = machine()
    assert all(during[name] == before[name] for name in ("accounts", "hostname", "addresses", "mounts"))
    assert not observe.snapshot(PREFIX).clean
    down.down(PREFIX)
    assert leftovers(PREFIX) == []
    assert machine() == before
    assert down.down(PREFIX) == []


def test_down_of_a_half_dead_lab(clean: None) -> None:
    """Supervisors killed, a namespace's name gone, a container's lonely task in namespaces of its own: all of it goes."""
    before = machine()
    lab = build(PREFIX)
    # Like a container of a dead monitor: own namespaces, in the host's container cgroup, parent gone.
    unified = next(each.path for each in cgroups.hierarchies() if each.version == 2)
    group = unified / lab.container_cgroup("host1") / "0123"
    group.mkdir()
    task = "exec setsid unshare -mnpf sh -c 'echo $$ >/dev/null; sleep 1000' </dev/null >/dev/null 2>&1 &"
    subprocess.run(nodes.command(lab, "host1", ["sh", "-c", f"echo $$ >{group}/cgroup.procs; {task}"]), check=True)
    assert wait_for(lambda: "sleep 1000" in " ".join(observe.snapshot(PREFIX).processes))
    for pid in nodes.supervisors(lab.state_dir).values():
        os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", lab.netns("host2")], check=True)
    (lab.record).write_text("damaged")
    down.down(PREFIX)
    assert leftovers(PREFIX) == []
    assert "sleep 1000" not in " ".join(each.command for each in processes.everybody().values())
    assert machine() == before


def test_lab_rises_again_after_a_crash_of_the_machine(clean: None) -> None:
    """With all processes gone, and state files of another boot, `up` builds the lab anew over the same keys."""
    lab = build(PREFIX)
    key = (lab.node_dir("host1") / "etc/migrate/ssh_host_ed25519_key").read_bytes()
    processes.kill_until_none(lambda: down.members(lab), timeout_s=LIMIT_S)
    for name, state in nodes.states(lab.state_dir).items():
        text = (lab.node_dir(name) / "run/node.json").read_text()
        (lab.node_dir(name) / "run/node.json").write_text(text.replace(state.boot_id, "another-boot"))
    assert status.status(PREFIX).state != "up"
    assert build(PREFIX) == lab
    assert (lab.node_dir("host1") / "etc/migrate/ssh_host_ed25519_key").read_bytes() == key
    assert status.status(PREFIX).state == "up"
    down.down(PREFIX)
    assert leftovers(PREFIX) == []


def test_two_labs_stand_side_by_side(clean: None) -> None:
    """A second lab with the same addresses works, and its end does not touch the first."""
    first, second = build(PREFIX, 1), build(OTHER, 1)
    before = nodes.states(first.state_dir)
    down.down(OTHER)
    assert leftovers(OTHER) == []
    up.wait_until_ready(first, timeout_s=LIMIT_S)
    assert nodes.states(first.state_dir) == before
    assert not second.state_dir.exists()


def test_keep_leaves_only_the_directory(clean: None) -> None:
    """`down --keep` ends everything but keeps images and keys, and `up` takes them up."""
    lab = build(PREFIX, 1)
    (lab.node_dir("host1") / "var/mark").write_text("kept")
    down.down(PREFIX, keep=True)
    found = observe.snapshot(PREFIX)
    assert (found.processes, found.netns, found.mounts, found.cgroups) == ((), (), (), ())
    assert build(PREFIX, 1) == lab
    assert inside(lab, "host1", "cat", "/var/lib/migrate/mark") == "kept"


def test_failure_to_start_shows_the_log(clean: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a program cannot start, `up` gives up in time and shows the end of that program's log."""
    original = provision._toml
    monkeypatch.setattr(provision, "_toml", lambda **values: original(**values) + "nonsense = 1\n")
    with pytest.raises(layout.LabError):
        up.up(PREFIX, hosts=1, criu="", say=lambda _: None, timeout_s=1)
    log = Lab(prefix=PREFIX, hosts=1).log_dir("controller") / "coordinator.log"
    assert wait_for(lambda: log.exists() and "nonsense" in log.read_text())
    with pytest.raises(layout.LabError) as caught:
        up.up(PREFIX, hosts=1, criu="", say=lambda _: None, timeout_s=1)
    assert "nonsense" in caught.value.detail
    down.down(PREFIX)
    assert leftovers(PREFIX) == []
