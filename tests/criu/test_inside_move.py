"""What processes find inside is the same on the next host, and at the next start there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migrate.records import Healthcheck, Isolation, Run, Secret
from tests.criu.moving_lab import MovingLab, wait_for

pytestmark = pytest.mark.criu
SECOND = 10**9
MIB = 1 << 20

LOOK = """
import grp, json, os, socket, time
mode = os.umask(0); os.umask(mode)
secret = os.stat("/run/secrets/token")
print(json.dumps({
    "groups": sorted(os.getgroups()), "umask": mode, "domain": open("/proc/sys/kernel/domainname").read().strip(),
    "hosts": [line.split()[1:] for line in open("/etc/hosts") if "web" in line], "zone": time.tzname,
    "secret": open("/run/secrets/token").read(), "its": [secret.st_uid, secret.st_gid, secret.st_mode & 0o7777],
    "init": [line.split()[1:] for line in open("/proc/1/status") if line.split(":")[0] in ("Groups", "Umask", "Mems_allowed_list")],
    "env": "GONE" in os.environ,
}))
"""


def look(fleet: MovingLab) -> dict[str, object]:
    code, text = fleet.run("within", "/usr/bin/python3", "-c", LOOK)
    assert code == 0, text
    found: dict[str, object] = json.loads(text)
    return found


def kernel(fleet: MovingLab) -> list[str]:
    """What its cgroups say, where they are version 1's."""
    container = fleet.client.inspect("within")
    group = fleet.lab.container_cgroup(container.host) / container.id
    files = [
        "memory/{}/memory.swappiness",
        "memory/{}/memory.oom_control",
        "cpuset/{}/cpuset.mems",
        "devices/{}/devices.list",
    ]
    found = []
    for pattern in files:
        path = Path("/sys/fs/cgroup") / pattern.format(group)
        if path.exists():
            found.append(path.read_text().split("under_oom")[0])
    return found


def test_groups_names_zone_umask_secrets_limits_and_rules_go_along(fleet: MovingLab) -> None:
    """After a move, and after a restart there: processes of init and of exec find the same, the kernel keeps the same, the contents of a
    secret are in its memory and in nothing that can be asked for; checks come often until the first good one.
    """
    version_1 = Path("/sys/fs/cgroup/memory/memory.swappiness").exists()
    only_there = {"memory_swappiness": 7, "oom_kill_disable": True} if version_1 else {}
    fleet.client.run(
        Run(
            image="work",
            name="within",
            host="host1",
            argv=("/bin/sleep", "1000"),
            hostname="web",
            domainname="example.org",
            groups=("29", "root"),
            umask="0027",
            timezone="Europe/Berlin",
            annotations={"org.example": "kept"},
            secrets=(Secret(name="token", target="/run/secrets/token", uid=5, gid=6, mode=0o440),),
            secret_data={"token": b"hush-hush"},
            env=("GONE=1",),
            unset_env=("GONE",),
            platform="linux/amd64" if Path("/lib64/ld-linux-x86-64.so.2").exists() else "",
            cpuset_mems="0",
            memory_bytes=200 * MIB,
            isolation=Isolation(device_rules=("c 10:200 rw",)),
            health=Healthcheck(
                test=("CMD", "true"),
                interval_ns=3600 * SECOND,
                start_period_ns=60 * SECOND,
                start_interval_ns=SECOND // 5,
            ),
            **only_there,  # type: ignore[arg-type]
        )
    )
    try:
        wait_for(
            lambda: fleet.client.inspect("within").health_now.status == "healthy"
        )  # an hour without the start interval
        seen, kept = [look(fleet)], [kernel(fleet)]
        assert fleet.move("within").state == "succeeded"
        seen, kept = [*seen, look(fleet)], [*kept, kernel(fleet)]
        fleet.client.restart("within", timeout_s=0)
        seen, kept = [*seen, look(fleet)], [*kept, kernel(fleet)]
        assert "hush" not in fleet.cli("inspect", "within").stdout
        container = fleet.client.inspect("within")
        assert (container.host, dict(container.annotations)) == ("host2", {"org.example": "kept"})
        assert not [
            path for path in fleet.upper(container).rglob("*") if path.is_file() and b"hush" in path.read_bytes()
        ]
    finally:
        fleet.client.remove("within", force=True)
    assert seen[0] == seen[1] == seen[2]
    assert seen[0] == {
        "groups": [0, 29], "umask": 0o027, "domain": "example.org", "hosts": [["web.example.org", "web"]], "zone": ["CET", "CEST"],
        "secret": "hush-hush", "its": [5, 6, 0o440], "init": [["0027"], ["0", "29"], ["0"]], "env": False,
    }  # fmt: skip
    assert kept[0] == kept[1] == kept[2]
    if version_1:
        assert kept[0][:3] == ["7\n", "oom_kill_disable 1\n", "0\n"]
        assert "c 10:200 rw\n" in kept[0][3]
