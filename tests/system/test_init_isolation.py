"""What a container's root can not do, tried from inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engine import init
from tests.system.small_container import busybox_like_layer, run

pytestmark = pytest.mark.system

# Docker's lists (moby, oci/defaults.go): what it masks or makes read-only.
DOCKER_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
DOCKER_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_like_layer(tmp_path_factory.mktemp("base"))


def test_every_mount_is_known(tmp_path: Path, base: Path) -> None:
    """The mount table is the one that adr 0003 lists, and nothing of the host's mounts is left in it."""
    status, text = run(tmp_path, [base], ["cat", "/proc/self/mountinfo"])
    assert status == 0
    points = [line.split()[4] for line in text.splitlines()]
    masks = [path for path in (*init.MASKED_FILES, *init.MASKED_DIRECTORIES) if Path(path).exists()]
    read_only = [path for path in init.READ_ONLY if Path(path).exists()]
    devices = [f"/dev/{name}" for name in init.DEVICES]
    expected = ["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", *devices, *masks, *read_only]
    assert sorted(points) == sorted(expected)


def test_what_docker_hides_is_hidden_or_closed(tmp_path: Path, base: Path) -> None:
    """Root finds nothing in the files and directories that Docker masks: masked, not to be opened, or not writable."""
    present = [path for path in DOCKER_MASKED if Path(path).exists()]
    assert present  # /proc/interrupts is everywhere
    closed = []
    for path in present:
        if Path(path).is_file():
            closed.append(f"cat {path} 2>/dev/null | wc -c")
        elif path in init.MASKED_DIRECTORIES:
            closed.append(f"ls -A {path} | wc -l")
    status, text = run(tmp_path, [base], ["sh", "-c", "; ".join(closed)])
    assert status == 0
    assert set(text.split()) == {"0"}, dict(zip(closed, text.split(), strict=True))


def test_nothing_below_proc_and_sys_that_docker_masks_can_be_written(tmp_path: Path, base: Path) -> None:
    """The directories of Docker's list that are left visible have no file that root may open for writing."""
    directories = [path for path in DOCKER_MASKED if Path(path).is_dir()]
    script = "".join(
        f"for f in $(ls -d {d}/* {d}/*/* 2>/dev/null); do test -f $f && (: >> $f) 2>/dev/null && echo WRITABLE $f; done; "
        for d in directories
    )
    assert run(tmp_path, [base], ["sh", "-c", script + "echo done"]) == (0, "done\n")


def test_kernel_settings_are_read_only(tmp_path: Path, base: Path) -> None:
    """Root cannot write below what Docker mounts read-only, not even its own network's settings."""
    script = "for f in /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward /proc/sys/vm/drop_caches; do "
    script += "(echo 1 > $f) 2>&1 | grep -q 'Read-only file system' && echo ro; done; (echo h > /proc/sysrq-trigger) 2>/dev/null || echo no"
    status, text = run(tmp_path, [base], ["sh", "-c", script])
    assert (status, text.split()) == (0, ["ro", "ro", "ro", "no"])


def test_masks_cannot_be_taken_off(tmp_path: Path, base: Path) -> None:
    """Without CAP_SYS_ADMIN nothing can be unmounted or mounted again."""
    script = "umount /proc/interrupts || echo no; umount /proc/sys || echo no; mknod /tmp/null c 1 3 || echo no"
    _, text = run(tmp_path, [base], ["sh", "-c", script])
    assert text.count("no\n") == 3


def test_pseudo_terminals_are_the_containers_own(tmp_path: Path, base: Path) -> None:
    """/dev/pts has none of the host's terminals and /dev/ptmx leads into it."""
    _, text = run(tmp_path, [base], ["sh", "-c", "ls /dev/pts; readlink /dev/ptmx; stat -c %a /dev/pts/ptmx /dev/shm"])
    assert text.split() == ["ptmx", "pts/ptmx", "666", "1777"]
