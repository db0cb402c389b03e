"""`check` between hosts that are set to differ, through the service Fleet, the client library and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from agent import errors as agent_errors
from migrate.cli.main import main
from migrate.errors import InvalidArgument, NotFound, PrecheckError
from protos import agent_pb2, types_pb2
from tests.fakes.fleet import FakeFleet
from tests.fakes.host import FakeHost

pytestmark = pytest.mark.contract


def differ(**values: object) -> Callable[[FakeHost], None]:
    return lambda host: host.facts.update(values)


def test_hosts_that_agree(fleet: FakeFleet) -> None:
    """No finding; what would travel, and how long it would take. Neither host has a part in a move afterwards."""
    fleet.run("web1")
    report = fleet.client.check("web1", to="host2")
    assert (report.findings, report.source, report.target) == ((), "host1", "host2")
    assert report.prediction.memory_bytes > 0
    assert report.prediction.missing_layers == 2  # host2 has no image of it
    assert report.prediction.total_s > report.prediction.downtime_s > 0
    assert (report.prediction.bytes_per_s, report.prediction.round_trip_s) == (500e6, 0.001)
    assert "measured now" in report.prediction.total_because
    assert fleet.client.migrations() == []
    assert not any(agent.moves for agent in fleet.world.agents.values())
    assert not {"Containers.Create", "Images.Import"} & set(fleet.hosts["host2"].calls)


@pytest.mark.parametrize(
    ("check", "severity", "change"),
    [
        ("protocol", "blocker", differ(protocol=1)),
        ("architecture", "blocker", differ(architecture="aarch64")),
        ("criu", "blocker", differ(criu_version="3.19")),
        ("kernel", "warning", differ(kernel="5.19")),
        ("cpu-features", "blocker", differ(instructions=["avx"])),
        ("cpu-features", "warning", differ(processor="AuthenticAMD")),
        ("cgroup", "warning", differ(cgroup="hybrid")),
        ("memory", "blocker", differ(memory_available_bytes=1 << 20)),
        ("disk", "blocker", differ(disk_available_bytes=1 << 20)),
        ("mtu", "blocker", differ(bridge_mtu=1400)),
        ("clock", "warning", differ(unix_ns=1)),
        (
            "capability",
            "blocker",
            differ(capabilities=[agent_pb2.Capability(name="network", ok=False, value="no veth", required=True)]),
        ),
    ],
)
def test_each_difference_is_found(
    fleet: FakeFleet,
    capsys: pytest.CaptureFixture[str],
    check: str,
    severity: str,
    change: Callable[[FakeHost], object],
) -> None:
    """By its name, alone, on the host that has it; the report and the exit status say whether it stops a move."""
    fleet.run("web1")
    fleet.world.agents["host1"].containers[fleet.store.container("web1").id].spec.network.address = "10.88.1.2/16"
    change(fleet.hosts["host2"])
    (found,) = fleet.client.check("web1", to="host2").findings
    assert (found.check, found.severity, found.where) == (check, severity, "host2")
    assert main(["check", "web1", "--to", "host2"]) == (5 if severity == "blocker" else 0)
    printed = capsys.readouterr().out
    assert f"  {check}: host2: " in printed
    assert ("It cannot move" in printed) == (severity == "blocker")


def test_a_move_refuses_with_the_same_lines_and_goes_with_skip(fleet: FakeFleet) -> None:
    """All blockers at once; those that are skipped are in its journal, and do not stop it."""
    container = fleet.run("web1")
    differ(memory_available_bytes=1 << 20, criu_version="3.19")(fleet.hosts["host2"])
    report = fleet.client.check("web1", to="host2")
    assert [each.check for each in report.blockers] == ["criu", "memory"]
    with pytest.raises(PrecheckError) as refused:
        fleet.client.move("web1", to="host2").result()
    for each in report.blockers:
        assert f"{each.check}: {each.where}: {each.what}" in refused.value.detail
    with pytest.raises(PrecheckError) as refused:
        fleet.client.move("web1", to="host2", skip=["criu"]).result()
    assert "criu" not in refused.value.detail
    record = fleet.client.move("web1", to="host2", skip=["criu", "memory"]).result()
    (precheck,) = (step for step in record.journal if step.step == "precheck" and step.event == "done")
    assert [line.split(":")[:2] for line in precheck.facts["findings"]] == [
        ["skipped", " criu"],
        ["skipped", " memory"],
    ]
    assert fleet.world.states(container.id) == {"host2": "running"}


def test_a_tunnel_that_cannot_be_opened(fleet: FakeFleet) -> None:
    """It would be in the move's way, too; skipped, nothing is measured and the report says what it assumes."""
    fleet.run("web1")

    def refuse(request: agent_pb2.RunProbeRequest, context: object = None) -> agent_pb2.RunProbeResponse:
        raise agent_errors.TransferError("cannot open the bulk tunnel: Connection refused", hint="is sshd running?")

    fleet.world.agents["host1"].RunProbe = refuse  # type: ignore[method-assign]
    (one,) = fleet.client.check("web1", to="host2").findings
    assert (one.check, one.severity, one.where, one.remedy) == ("tunnel", "blocker", "host1", "is sshd running?")
    assert "Connection refused" in one.what
    report = fleet.client.check("web1", to="host2", skip=["tunnel"])
    assert report.findings == ()
    assert "assumed" in report.prediction.total_because


def test_what_cannot_be_skipped(fleet: FakeFleet) -> None:
    """A check that would lose something, or that does not exist: refused before a move exists."""
    fleet.run("web1")
    for name, words in (("state", "cannot be skipped"), ("everything", "no check")):
        with pytest.raises(InvalidArgument, match=words):
            fleet.client.check("web1", to="host2", skip=[name])
        with pytest.raises(InvalidArgument, match=words):
            fleet.client.move("web1", to="host2", skip=[name]).result()
    with pytest.raises(NotFound):
        fleet.client.check("web9", to="host2")
    assert fleet.client.migrations() == []


def test_the_report_as_json(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """One object with everything that the text says, and what a process's finding names."""
    fleet.run("web1")
    agent = fleet.world.agents["host1"]
    describe = agent.Describe

    def with_io_uring(request: agent_pb2.DescribeRequest, context: object = None) -> agent_pb2.Description:
        description = describe(request)
        description.blockers.add(
            check="io-uring",
            what="io_uring is in use",
            where="pid 7 (redis)",
            remedy="switch it off",
            pid=7,
            descriptor="9",
            path="anon_inode:[io_uring]",
        )
        return description

    agent.Describe = with_io_uring  # type: ignore[method-assign]
    assert main(["check", "web1", "--to", "host2", "--format", "json"]) == 5
    report = json.loads(capsys.readouterr().out)
    assert report["findings"] == [
        {
            "check": "io-uring", "severity": "blocker", "what": "io_uring is in use", "where": "pid 7 (redis)",
            "remedy": "switch it off", "pid": 7, "descriptor": "9", "path": "anon_inode:[io_uring]", "skippable": True,
        }
    ]  # fmt: skip
    assert report["plan"][0].startswith("reserve")
    assert main(["check", "web1", "--to", "host2"]) == 5
    assert "--skip io-uring" in capsys.readouterr().out


def test_a_dry_run_lists_the_blockers_or_the_plan(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0 or 5; the report is that of `check`, and where it can move, what it would do follows."""
    container = fleet.run("web1")
    assert main(["check", "web1", "--to", "host2"]) == 0
    checked = capsys.readouterr().out
    assert main(["move", "web1", "--to", "host2", "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "Nothing speaks against it: migrate move web1 --to host2" in checked
    assert "what it would do:" not in checked
    assert set(checked.splitlines()) <= set(planned.splitlines())
    assert [line.split()[0] for line in planned.split("what it would do:")[1].splitlines() if line.startswith("  ")] == [
        "reserve", "tunnel", "layers", "precopy", "freeze", "restore", "pivot", "resume", "release",
    ]  # fmt: skip
    fleet.world.agents["host1"].containers[container.id].state = types_pb2.CONTAINER_STATE_EXITED
    assert main(["move", "web1", "--to", "host2", "--dry-run"]) == 5
    assert "  state: host1: web1 is exited" in capsys.readouterr().out
    assert main(["move", "web1", "--to", "host2", "-q"]) == 5
    assert "  | state: host1: web1 is exited" in capsys.readouterr().err
