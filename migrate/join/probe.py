"""What a machine is, before anything of ours is there: given to its own python3 on stdin, prints one JSON object.

Stands alone, and in words that old Pythons understand too: one that is too old must be able to say so.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time

ROOT = "/opt/migrate"
PROGRAMS = ("sshd", "ssh", "ssh-keygen", "ip", "nft", "useradd", "groupadd", "usermod")


def main(address: str) -> None:
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    free = shutil.disk_usage(ROOT if os.path.isdir(ROOT) else "/").free  # noqa: PTH112
    releases = _names(ROOT + "/releases")
    answer = {
        "uid": os.getuid(),
        "python": "%d.%d" % sys.version_info[:2],  # noqa: UP031
        "kernel": platform.release(),
        "machine": platform.machine(),
        "systemd": os.path.isdir("/run/systemd/system"),  # noqa: PTH112
        "unix_s": time.time(),
        "free_bytes": free,
        "missing": [name for name in PROGRAMS if shutil.which(name, path=path) is None],
        "host": _configured("/etc/migrate/agent.toml"),
        "releases": [name for name in releases if not name.startswith(".")],
        "halves": [name for name in releases if name.startswith(".")],
        "current": os.path.realpath(ROOT + "/app"),
        "card": _card(address, path),
    }
    sys.stdout.write(json.dumps(answer) + "\n")


def _names(folder: str) -> list:  # type: ignore[type-arg]
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []


def _configured(path: str) -> str:
    """The name that an agent's configuration gives to this machine, "" where there is none."""
    try:
        with open(path) as file:
            for line in file:
                name, _, value = line.partition("=")
                if name.strip() == "host":
                    return value.strip().strip('"')
    except OSError:
        pass
    return ""


def _card(address: str, path: str) -> dict:  # type: ignore[type-arg]
    """The network interface that has `address`: its name, and whether it is a bridge; {} where none has."""
    try:
        text = subprocess.check_output(["ip", "-json", "address", "show"], env={**os.environ, "PATH": path})
    except (OSError, subprocess.CalledProcessError):
        return {}
    for link in json.loads(text.decode()):
        for one in link.get("addr_info", ()):
            if one.get("local") == address:
                name = link["ifname"]
                return {"name": name, "bridge": os.path.isdir("/sys/class/net/" + name + "/bridge")}  # noqa: PTH112
    return {}


main(sys.argv[1] if len(sys.argv) > 1 else "")
