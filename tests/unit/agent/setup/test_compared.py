"""Facts that are compared between hosts, read from trees of plain files and from this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.setup import compared

pytestmark = pytest.mark.unit


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_module_that_labels_processes(tmp_path: Path) -> None:
    """By securityfs; where that is not mounted, by what each module leaves; yama and the like label nothing."""
    assert compared.lsm(tmp_path) == ""
    write(tmp_path / "module/apparmor/parameters/enabled", "Y\n")
    assert compared.lsm(tmp_path) == "apparmor"
    write(tmp_path / "kernel/security/lsm", "capability,yama,landlock")
    assert compared.lsm(tmp_path) == ""
    write(tmp_path / "kernel/security/lsm", "capability,selinux,bpf\n")
    assert compared.lsm(tmp_path) == "selinux"


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("unconfined\n", ""),
        ("docker-default (enforce)\n", "docker-default (enforce)"),
        ("system_u:system_r:container_t:s0:c1\0", "system_u:system_r:container_t:s0:c1"),
        ("unconfined_u:unconfined_r:unconfined_t:s0\0", ""),
    ],
)
def test_what_confines_a_process(tmp_path: Path, written: str, label: str) -> None:
    """A profile or a context; unconfined is nothing."""
    write(tmp_path / "7/attr/current", written)
    assert compared.lsm_label(7, tmp_path) == label
    assert compared.lsm_label(8, tmp_path) == ""


def test_who_made_the_processor(tmp_path: Path) -> None:
    """Of x86 and of aarch64."""
    write(tmp_path / "x86", "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t: fpu\n")
    write(tmp_path / "arm", "processor\t: 0\nCPU implementer\t: 0x41\n")
    assert compared.processor(tmp_path / "x86") == "GenuineIntel"
    assert compared.processor(tmp_path / "arm") == "0x41"


def test_this_machine() -> None:
    """It has cgroups of some kind; a bridge that is not there has no address; lo has its own."""
    assert compared.cgroup_kind() in ("v1", "hybrid", "v2")
    assert compared.bridge_addresses(f"none{os.getpid()}"[:15]) == []
    assert compared.bridge_addresses("lo") == ["127.0.0.1/8"]
