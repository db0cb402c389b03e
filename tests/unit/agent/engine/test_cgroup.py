"""Finding hierarchies and choosing files, on trees of plain files; what kernels do with them is tests/contract/test_cgroup.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engine import control
from agent.engine.cgroup import Cgroup, Hierarchies, probe
from agent.engine.spec import Limits
from agent.errors import InvalidArgument, Unsupported

pytestmark = pytest.mark.unit

UNIFIED = "41 31 0:38 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory
36 31 0:32 / /other/memory rw shared:3 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def probed(tmp_path: Path, text: str) -> Hierarchies:
    path = tmp_path / "mountinfo"
    path.write_text(text)
    return probe(path)


def test_probe_of_a_pure_version_2_host(tmp_path: Path) -> None:
    """One mount, no legacy hierarchy."""
    assert probed(tmp_path, UNIFIED) == Hierarchies(unified=Path("/sys/fs/cgroup"))


def test_probe_of_a_hybrid_host(tmp_path: Path) -> None:
    """Controllers mounted together stay together, a second mount of the same is ignored, systemd's own is left alone."""
    assert probed(tmp_path, HYBRID) == Hierarchies(
        unified=Path("/sys/fs/cgroup/unified"),
        legacy=(
            (("cpu", "cpuacct"), Path("/sys/fs/cgroup/cpu,cpuacct")),
            (("memory",), Path("/sys/fs/cgroup/memory")),
        ),
    )


def test_probe_ignores_hierarchies_rooted_above_our_namespace(tmp_path: Path) -> None:
    """A mount whose root lies outside the reader's cgroup namespace cannot be used."""
    text = UNIFIED.replace(" / /sys", " /.. /outside") + UNIFIED
    assert probed(tmp_path, text).unified == Path("/sys/fs/cgroup")


def test_probe_without_version_2_says_what_to_do(tmp_path: Path) -> None:
    """Freezing needs version 2: its absence is Unsupported with a remedy."""
    with pytest.raises(Unsupported) as caught:
        probed(tmp_path, HYBRID.rsplit("\n", 2)[0] + "\n")
    assert "mount -t cgroup2" in caught.value.hint


def unified_tree(tmp_path: Path, files: tuple[str, ...]) -> Cgroup:
    """A version 2 tree of plain files with the parent `fleet`; the container's interface files exist beforehand."""
    for level in (tmp_path, tmp_path / "fleet"):
        level.mkdir(exist_ok=True)
        (level / "cgroup.controllers").write_text("cpuset cpu memory pids\n")
        (level / "cgroup.subtree_control").write_text("memory\n" if level == tmp_path else "")
    directory = tmp_path / "fleet" / "c1"
    directory.mkdir()
    for name in files:
        (directory / name).touch()
    return Cgroup("fleet", "c1", Hierarchies(unified=tmp_path))


def test_version_2_limits(tmp_path: Path) -> None:
    """memory.max without swap on top, cpu.max as quota and period, pids.max; controllers are handed down level by level."""
    cgroup = unified_tree(tmp_path, ("memory.max", "memory.swap.max", "cpu.max", "pids.max"))
    cgroup.create(Limits(memory_bytes=64 << 20, cpus=0.5, pids=40))
    directory = tmp_path / "fleet" / "c1"
    assert (directory / "memory.max").read_text() == str(64 << 20)
    assert (directory / "memory.swap.max").read_text() == "0"
    assert (directory / "cpu.max").read_text() == "50000 100000"
    assert (directory / "pids.max").read_text() == "40"
    # Plain files keep the last write only: cpuset came last at both levels.
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpuset"
    assert (tmp_path / "fleet" / "cgroup.subtree_control").read_text() == "+cpuset"


def test_limit_without_a_controller_is_unsupported(tmp_path: Path) -> None:
    """A limit that nothing here can keep is refused, never ignored."""
    cgroup = unified_tree(tmp_path, ())
    with pytest.raises(Unsupported, match="memory controller"):
        cgroup.create(Limits(memory_bytes=64 << 20))


def test_version_1_limits_go_to_their_hierarchies(tmp_path: Path) -> None:
    """On a hybrid host each limit is written in its controller's hierarchy, and every one of them gets a directory."""
    legacy = (
        (("cpu", "cpuacct"), tmp_path / "cpu"),
        (("memory",), tmp_path / "memory"),
        (("pids",), tmp_path / "pids"),
    )
    for path in (tmp_path / "unified", *(mount for _, mount in legacy)):
        path.mkdir()
    for name in ("cpu/fleet/c1/cpu.cfs_quota_us", "memory/fleet/c1/memory.limit_in_bytes", "pids/fleet/c1/pids.max"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    cgroup = Cgroup("fleet", "c1", Hierarchies(unified=tmp_path / "unified", legacy=legacy))
    cgroup.create(Limits(memory_bytes=1 << 20, cpus=2, pids=5))
    assert (tmp_path / "cpu/fleet/c1/cpu.cfs_quota_us").read_text() == "200000"
    assert (tmp_path / "memory/fleet/c1/memory.limit_in_bytes").read_text() == str(1 << 20)
    assert (tmp_path / "pids/fleet/c1/pids.max").read_text() == "5"
    assert cgroup.dirs == tuple(tmp_path / name / "fleet/c1" for name in ("cpu", "memory", "pids", "unified"))
    assert cgroup.freezer == tmp_path / "unified/fleet/c1"


def test_criu_roots_name_every_controller() -> None:
    """CRIU is told the path under each controller's own name, and under "" for version 2."""
    hierarchies = Hierarchies(unified=Path("/u"), legacy=((("cpu", "cpuacct"), Path("/c")), (("memory",), Path("/m"))))
    roots = Cgroup("lab/host1", "c1", hierarchies).criu_roots()
    assert roots == [(name, "/lab/host1/c1") for name in ("cpu", "cpuacct", "memory", "")]


def test_refused_value_is_an_invalid_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EINVAL of the kernel becomes InvalidArgument with the value and the file."""
    cgroup = unified_tree(tmp_path, ("pids.max",))

    def refuse(path: Path, value: str) -> None:
        raise OSError(22, "Invalid argument", str(path))

    monkeypatch.setattr(control, "put", refuse)
    with pytest.raises(InvalidArgument, match=r"40 for .*pids\.max"):
        cgroup.set_limits(Limits(pids=40))


def test_no_parent_is_the_top_of_each_hierarchy() -> None:
    """An empty parent never makes an absolute path out of the name."""
    hierarchies = Hierarchies(unified=Path("/u"), legacy=((("pids",), Path("/p")),))
    cgroup = Cgroup("", "c1", hierarchies)
    assert cgroup.dirs == (Path("/p/c1"), Path("/u/c1"))
    assert cgroup.criu_roots() == [("pids", "/c1"), ("", "/c1")]
