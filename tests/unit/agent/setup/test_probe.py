"""Probes: each in isolation, the same fields as on the wire, a report that people and programs can read."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from agent.setup import criu, doctor, probe, probe_child, probe_host
from agent.setup.capability import Capability, Verdict
from protos import agent_pb2

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def found() -> dict[str, Capability]:
    """This machine's capabilities, whatever they are."""
    capabilities = probe.probe()
    assert len({one.name for one in capabilities}) == len(capabilities)
    return {one.name: one for one in capabilities}


def test_every_probe_of_the_child_is_asked(found: dict[str, Capability]) -> None:
    """No probe is written and then forgotten."""
    assert probe_child.PROBES.keys() <= found.keys()


def test_every_answer_has_a_value_and_a_remedy(found: dict[str, Capability]) -> None:
    """A reader learns what was seen and what to do, whether it is there or not."""
    for one in found.values():
        assert one.value, one.name
        assert one.remedy, one.name


def test_fields_are_those_of_the_wire() -> None:
    """A capability can be sent as the message of the same name, field by field."""
    assert {field.name for field in fields(Capability)} == set(agent_pb2.Capability.DESCRIPTOR.fields_by_name)


def test_probes_leave_nothing_behind(tmp_path: Path) -> None:
    """Neither a scratch directory nor a cgroup is left in the places where probes work."""
    _, v2 = probe_host.cgroup_mounts()
    probe.probe(state_dir=tmp_path / "state")
    assert list(tmp_path.iterdir()) == []
    assert v2 is None or not list(v2.glob("migrate-probe-*"))


def test_broken_probe_is_a_missing_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that raises something unforeseen does not hide what the others found, and still counts as required."""

    def broken() -> Capability:
        raise ValueError("unforeseen")

    monkeypatch.setattr(probe_host, "kernel", broken)
    by_name = {one.name: one for one in probe.probe()}
    assert (by_name["kernel"].verdict, by_name["kernel"].value) == (Verdict.MISSING, "the probe failed: unforeseen")
    assert "ssh" in by_name


def test_child_that_dies_is_a_missing_capability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe's process that ends without an answer is reported with its last words."""
    child = tmp_path / "child.py"
    child.write_text("raise SystemExit('killed by something')")
    monkeypatch.setattr(probe, "_CHILD", child)
    by_name = {one.name: one for one in probe.probe()}
    assert by_name["overlayfs"].verdict is Verdict.MISSING
    assert "killed by something" in by_name["overlayfs"].value


def test_configured_criu_is_the_one_probed(tmp_path: Path) -> None:
    """`criu` of agent.toml decides, and a wrong path is reported, not raised."""
    by_name = {one.name: one for one in probe.probe(criu_path=str(tmp_path / "absent"))}
    assert by_name["criu"].verdict is Verdict.MISSING
    assert str(tmp_path / "absent") in by_name["criu"].value


def make(name: str, *, ok: bool, required: bool = False) -> Capability:
    return Capability(name=name, ok=ok, value="seen", remedy="type this", required=required)


def test_table_shows_remedies_only_where_something_is_missing() -> None:
    """Rows say ok, warn or MISSING; only the last two say what to type."""
    rows = [make("a", ok=True, required=True), make("b", ok=False), make("c", ok=False, required=True)]
    text = doctor.table(rows)
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines if line[:1].strip()][:3] == [
        ["ok", "a"],
        ["warn", "b"],
        ["MISSING", "c"],
    ]
    assert text.count("-> type this") == 2
    assert lines[-1] == "Not ready: c missing."


@pytest.mark.parametrize(("required", "status"), [(True, 1), (False, 0)])
def test_exit_status_tells_whether_something_required_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], required: bool, status: int
) -> None:
    """0 with warnings only, 1 where containers or moves would not work; JSON says the same."""
    monkeypatch.setattr(probe, "probe", lambda: [make("a", ok=False, required=required)])
    assert doctor.report(output="json") == status
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is (status == 0)
    assert answer["capabilities"][0]["verdict"] == ("MISSING" if required else "warn")


def test_doctor_runs_before_anything_is_installed() -> None:
    """The report needs no package: it runs without site-packages."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from agent.setup import doctor; doctor.main(['--format=json'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert {"kernel", "overlayfs", "criu"} <= {one["name"] for one in json.loads(done.stdout)["capabilities"]}


def test_kernel_release_is_read_as_numbers() -> None:
    """A distribution's suffix does not matter."""
    assert criu.kernel_version("6.12.48+deb13-cloud-amd64") == (6, 12)


def test_what_is_known_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent tries two capabilities at its start: its list of all takes them over and starts no process for them."""
    known = [replace(probe.one(name), value="seen before") for name in ("userfaultfd", "userfaultfd-wp")]
    tried: list[str] = []

    def in_child(spec: probe._Child) -> Capability:
        tried.append(spec.name)
        return Capability(name=spec.name, ok=True, value="", remedy="")

    monkeypatch.setattr(probe, "_in_child", in_child)
    by_name = {one.name: one for one in probe.probe(known=known)}
    assert [by_name[one.name] for one in known] == known
    assert set(tried) == probe_child.PROBES.keys() - {one.name for one in known}
