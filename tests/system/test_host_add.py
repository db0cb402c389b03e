"""`migrate host add` against a real sshd: a bare machine of a lab becomes a member, its agent is renewed under a container, it leaves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from migrate.client import Client
from migrate.lab import down, images, nodes, up
from migrate.lab.layout import Lab
from migrate.records import Run

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

PREFIX = "hadd"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = up.up(PREFIX, hosts=1, bare=1, criu="", say=print)
    try:
        yield made
    finally:
        down.down(PREFIX)


def migrate(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    """Typed where the coordinator is, as an operator does."""
    argv = nodes.command(lab, "controller", [sys.executable, "-m", "migrate", "--coordinator", str(lab.socket), *words])
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def test_from_a_bare_machine_to_a_member_and_back(lab: Lab) -> None:
    """Half an installation is mended; a second time nothing is carried; a container outlives the upgrade; nothing is left."""
    node = lab.node("host2")
    opt = lab.node_dir("host2") / "opt"
    (opt / "releases/.broken").mkdir(parents=True)
    how = ["--identity", str(lab.operator_key)]
    words = ["host", "add", "host2", f"root@{node.address}", *how, "--cgroup", str(lab.container_cgroup("host2"))]
    unasked = migrate(lab, *words)
    assert unasked.returncode == 5
    assert "nobody has confirmed it" in unasked.stderr
    wrong_key = migrate(
        lab, *words[:4], "--identity", str(lab.node_dir("host1") / "etc/migrate/ssh_host_ed25519_key"), "-y"
    )
    assert wrong_key.returncode == 4
    assert "does not let root in" in wrong_key.stderr
    added = migrate(lab, *words, "--yes", "--label", "disk=ssd")
    assert added.returncode == 0, added.stdout + added.stderr
    assert "removing what a broken installation left" in added.stdout
    assert "memory can go from host1 to host2" in added.stdout and "memory can go from host2 to host1" in added.stdout
    again = migrate(lab, *words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "is installed already" in again.stdout and "the agent runs" in again.stdout
    with Client(lab.socket) as client:
        assert client.inspect_host("host2").labels == {"disk": "ssd"}
        with images.busybox_rootfs().open("rb") as archive:
            client.import_image(archive, "base", host="host2")
        container = client.run(Run(image="base", name="web1", host="host2", argv=("sleep", "1000")))
        upgraded = migrate(lab, "host", "upgrade", "host2", *how)
        assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr
        assert client.inspect("web1").state == "running"
        assert client.inspect("web1").id == container.id
        rotated = migrate(lab, "host", "rotate-keys")
        assert rotated.returncode == 0, rotated.stderr
        refused = migrate(lab, "host", "rm", "host2")
        assert refused.returncode == 1
        assert "still has web1" in refused.stderr
        gone = migrate(lab, "host", "rm", "host2", "--force", "--purge", *how)
        assert gone.returncode == 0, gone.stdout + gone.stderr
        assert [host.name for host in client.hosts()] == ["host1"]
    for folder in ("opt", "var", "lib", "bin"):
        assert list((lab.node_dir("host2") / folder).iterdir()) == [], folder
    assert "migrate:" not in (lab.node_dir("host2") / "etc/passwd").read_text()
