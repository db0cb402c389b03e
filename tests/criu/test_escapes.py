"""Ways out of a container that were holes once: each is tried as the container's main process, in exec, and both again after a move.

docs/escapes.md is the table of what was seen: MIGRATE_WRITE_ESCAPES=1 writes it anew.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.errors import MigrateError
from migrate.records import Isolation, Mount, Run
from tests.criu.moving_lab import INSIDE, WORKLOADS, MovingLab, program, wait_for
from tests.workloads.escapes import ATTEMPTS

pytestmark = pytest.mark.criu
ABSTRACT = f"migrate-escape-{os.getpid()}"
COLUMNS = ("run", "exec", "run, moved", "exec, moved", "--userns host", "without the filter", "the host's root")
# Where somebody asked for no filter and for every capability, these work inside, and reach nothing but the container's own.
OWN = frozenset({
    "unshare a user namespace", "clone a user namespace", "clone3 a user namespace", "mount a tmpfs", "fsopen", "mount an overlay", "setns",
    "io_uring", "a socket of AF_VSOCK", "bpf", "userfaultfd", "take the mask off /proc/keys",
})  # fmt: skip
# The host's root can do these here, so the attempts are what they say they are. The rest needs what this kernel may lack.
GENUINE = frozenset({
    "write /proc/sys/kernel/core_pattern", "read the kernel's messages", "list the host's keys", "release_agent of a cgroup",
    "make the host's disk as a node", "open_by_handle_at", "trace another container's process", "signal it", "read its memory",
    "enter its namespace", "read a key of the host", "the starter's session key ring",
    "the host's abstract socket", "unshare a user namespace", "mount a tmpfs", "fsopen",
    "mount an overlay", "bpf", "perf_event_open", "userfaultfd", "/proc/PID/root of a process outside", "setns",
})  # fmt: skip
Seen = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def seen(fleet: MovingLab) -> Iterator[Seen]:
    """Of each column, what each attempt met: "" = it worked."""
    own = Run(image="work", argv=program("escapes", "serve"), name="escapee", host="host1")
    bare = Run(
        image="work", argv=program("escapes", "serve"), name="bare", host="host1", cap_add=("ALL",),
        isolation=Isolation(seccomp="unconfined", new_privileges=True),
    )  # fmt: skip
    hosted = Run(
        image="work", argv=program("escapes", "serve"), name="hosted", host="host1", isolation=Isolation(user="host")
    )
    victim = Run(image="work", argv=program("counter"), name="victim", host="host1")
    with socket.socket(socket.AF_UNIX) as outside, tempfile.TemporaryDirectory() as scratch:
        outside.bind("\0" + ABSTRACT)
        outside.listen(64)
        try:
            for each in (own, bare, hosted, victim):
                fleet.client.run(each)
            pid = fleet.client.inspect("victim").pid
            facts = json.dumps(
                {
                    "pid": pid,
                    "key": host_key(),
                    "abstract": ABSTRACT,
                    "disk": disk(Path(scratch)),
                    "session": keyctl(250, 0, -3, 0),
                }
            )
            found: Seen = {"run": by_main(fleet, "escapee", facts), "exec": by_exec(fleet, "escapee", facts)}
            found["--userns host"] = by_exec(fleet, "hosted", facts)
            found["without the filter"] = by_exec(fleet, "bare", facts)
            done = subprocess.run(
                ["unshare", "--mount", sys.executable, str(WORKLOADS / "escapes.py"), "once", facts],
                capture_output=True, text=True, check=True, env={**os.environ, "TMPDIR": scratch},
            )  # fmt: skip
            found["the host's root"] = json.loads(done.stdout)
            assert fleet.move("escapee").state == "succeeded"
            found["run, moved"] = by_main(fleet, "escapee", facts)
            found["exec, moved"] = by_exec(fleet, "escapee", facts)
            assert fleet.client.inspect("victim").pid == pid
            fleet.later("victim", "counter")
            if os.environ.get("MIGRATE_WRITE_ESCAPES"):
                (WORKLOADS.parents[1] / "docs/escapes.md").write_text(page(found))
            yield found
        finally:
            for name in ("escapee", "bare", "hosted", "victim"):
                fleet.client.remove(name, force=True)


def host_key() -> int:
    """A key that every process of the host's root possesses, until this process's user goes."""
    return keyctl(248, b"user", b"migrate-escape", b"secret", 6, -4)  # add_key, to the user's key ring


def keyctl(number: int, *arguments: int | bytes) -> int:
    """A system call that returns a key's number."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    serial: int = libc.syscall(number, *arguments)
    assert serial > 0
    return serial


def disk(scratch: Path) -> list[int]:
    """(major, minor) of a block device that the host's root can open by a node that it makes."""
    for found in sorted(Path("/sys/block").iterdir()):
        major, minor = (int(part) for part in (found / "dev").read_text().split(":"))
        node = scratch / found.name
        os.mknod(node, 0o60600, os.makedev(major, minor))
        try:
            os.close(os.open(node, os.O_RDONLY))
        except OSError:
            continue
        return [major, minor]
    pytest.fail("the host's root can open no block device here")


def by_main(fleet: MovingLab, name: str, facts: str) -> dict[str, str]:
    """By the main process, which waits to be asked."""
    script = "import sys; open('/srv/ask.new', 'w').write(sys.argv[1]); import os; os.rename('/srv/ask.new', '/srv/ask.json')"
    answer = fleet.upper(fleet.client.inspect(name)) / "srv/escapes.json"
    fleet.run(name, "/bin/rm", "-f", "/srv/escapes.json")
    assert fleet.run(name, "/usr/bin/python3", "-c", script, facts) == (0, "")
    wait_for(answer.exists)
    found: dict[str, str] = json.loads(answer.read_text())
    return found


def by_exec(fleet: MovingLab, name: str, facts: str) -> dict[str, str]:
    code, text = fleet.run(name, "/usr/bin/python3", f"{INSIDE}/escapes.py", "once", facts)
    assert code == 0, text
    found: dict[str, str] = json.loads(text)
    return found


def page(found: Seen) -> str:
    """docs/escapes.md"""
    lines = [
        "# Attempts to get out of a container\n",
        "Written by `MIGRATE_WRITE_ESCAPES=1 pytest tests/criu/test_escapes.py` from what was seen; the attempts are in",
        "`tests/workloads/escapes.py`. A cell says what the attempt met. **works** is in the last two columns only:",
        "*without the filter* is `exec` in a container with every capability, `seccomp=unconfined` and `no-new-privileges=false`,",
        "where what works reaches nothing but the container's own; *the host's root* shows that the attempt is one (ENOENT, ENOSYS,",
        "EINVAL there: this kernel has no such thing).\n",
        f"| attempt | known from | {' | '.join(COLUMNS)} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
    ]
    for name, (known, _) in ATTEMPTS.items():
        lines.append(f"| {name} | {known} | {' | '.join(found[column][name] or '**works**' for column in COLUMNS)} |")
    return "\n".join([*lines, "", _FURTHER])


_FURTHER = """By tests of their own in the same file, before and after a move:

| attempt | known from | what is seen |
|---|---|---|
| `exec` of `#!/proc/self/exe`, while one inside opens every `/proc/PID/exe` | CVE-2019-5736 | none opens; our Python is unchanged |
| `-w /proc/self/fd/N` of run and exec, N from 3 to 20 | CVE-2024-21626 | refused |
| a mount below a volume, where another container changes a directory for a link to `/` all the time | CVE-2021-30465 | refused, or inside |
| a set-uid program in the writable layer, by a user of the host | | the way there is closed |
"""


@pytest.mark.parametrize("column", COLUMNS[:5])
def test_nothing_gets_out(seen: Seen, column: str) -> None:
    """No attempt works, and every one was made: what it met is an errno of the kernel's, not an error of the test's."""
    assert {name: result for name, result in seen[column].items() if not result} == {}
    assert {name: result for name, result in seen[column].items() if not result.startswith("E")} == {}


def test_behind_the_filter_is_a_wall(seen: Seen) -> None:
    """Without filter, with every capability and new privileges, what works is within the container; the rest the namespaces refuse."""
    assert {name for name, result in seen["without the filter"].items() if not result} <= OWN


def test_the_attempts_are_genuine(seen: Seen) -> None:
    """To the host's root they work."""
    assert {name: result for name, result in seen["the host's root"].items() if name in GENUINE and result} == {}


def test_a_move_changes_nothing(seen: Seen) -> None:
    """What an attempt meets after a move is what it met before."""
    assert seen["run"] == seen["run, moved"]
    assert seen["exec"] == seen["exec, moved"]


_WATCH = """
import json, os, time
found, held, until = {}, [], time.monotonic() + 10
own = os.stat("/usr/bin/python3")
open("/tmp/watching", "w").close()
while time.monotonic() < until and not os.path.exists("/tmp/enough"):
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid(): continue
        try:
            status = os.stat(f"/proc/{name}/exe")
            if (status.st_dev, status.st_ino) == (own.st_dev, own.st_ino): continue
            what = "foreign"
            if len(held) < 50: held.append(os.open(f"/proc/{name}/exe", os.O_PATH))
        except OSError as exc: what = "hidden"
        try: os.close(os.open(f"/proc/{name}/exe", os.O_WRONLY)); found[what] = "opened"
        except OSError as exc: found[what] = exc.errno
time.sleep(0.5)
for fd in held:  # it runs no more, and is busy no more
    try: os.close(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)); found["held"] = "opened"
    except OSError as exc: found.setdefault("held", exc.errno)
print(json.dumps(found))
"""


@pytest.mark.parametrize("users", ["", "host"])
def test_the_runtime_s_program_cannot_be_overwritten(fleet: MovingLab, users: str) -> None:
    """CVE-2019-5736: who gets the host's interpreter to run inside, or catches it on the way in, cannot open it to write."""
    own = hashlib.sha256(Path(sys.executable).resolve().read_bytes()).hexdigest()
    fleet.client.run(
        Run(image="work", argv=program("counter"), name="exe", host="host1", isolation=Isolation(user=users))
    )
    try:
        for step in range(2):
            if step:
                assert fleet.move("exe").state == "succeeded"
            make = "open('/tmp/evil', 'w').write('#!/proc/self/exe\\n'); import os; os.chmod('/tmp/evil', 0o755)"
            assert fleet.run("exe", "/usr/bin/python3", "-c", make)[0] == 0
            assert fleet.run("exe", "/bin/rm", "-f", "/tmp/enough", "/tmp/watching")[0] == 0
            watch = fleet.client.exec("exe", ("/usr/bin/python3", "-c", _WATCH))
            wait_for(lambda: (fleet.upper(fleet.client.inspect("exe")) / "tmp/watching").exists())
            for _ in range(5):
                try:
                    fleet.run("exe", "/tmp/evil")
                except MigrateError:
                    continue  # refused before it ran
            assert fleet.run("exe", "/usr/bin/python3", "-c", "open('/tmp/enough', 'w')")[0] == 0
            said = json.loads(b"".join(output.data for output in watch))
            assert said and not set(said.values()) - {
                errno.EACCES,
                errno.EPERM,
                errno.ETXTBSY,
                errno.ENOENT,
                errno.ESRCH,
            }, said  # it saw some, and opened none
    finally:
        fleet.client.remove("exe", force=True)
    assert hashlib.sha256(Path(sys.executable).resolve().read_bytes()).hexdigest() == own


def test_no_working_directory_leads_out(fleet: MovingLab) -> None:
    """CVE-2024-21626: no descriptor of the runtime's can be named as a working directory, at a start, in exec, or after a move."""
    fleet.client.run(Run(image="work", argv=program("counter"), name="cwd", host="host1"))
    try:
        for step in range(2):
            if step:
                assert fleet.move("cwd").state == "succeeded"
            for number in range(3, 21):
                with pytest.raises(MigrateError, match="cwd"):
                    list(fleet.client.exec("cwd", ("/bin/true",), cwd=f"/proc/self/fd/{number}"))
    finally:
        fleet.client.remove("cwd", force=True)
    for number in range(3, 12):
        with pytest.raises(MigrateError, match="cwd"):
            fleet.client.run(
                Run(image="work", argv=("/bin/true",), name="cwd", host="host1", cwd=f"/proc/self/fd/{number}")
            )


def test_a_set_uid_program_of_a_layer_is_out_of_reach(fleet: MovingLab) -> None:
    """Ids on disk are unshifted: no user of the host may get at a container's files."""
    fleet.client.run(Run(image="work", argv=program("counter"), name="suid", host="host1"))
    try:
        assert fleet.run("suid", "/bin/sh", "-c", "cp /bin/sh /srv/suid && chmod 4755 /srv/suid")[0] == 0
        for step in range(2):
            if step:
                assert fleet.move("suid").state == "succeeded"
            file = fleet.upper(fleet.client.inspect("suid")) / "srv/suid"
            assert file.stat().st_mode & 0o4000
            assert file.stat().st_uid == 0
            tried = subprocess.run(
                ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(file), "-c", "true"], check=False
            )
            assert tried.returncode != 0
    finally:
        fleet.client.remove("suid", force=True)


_FLIP = """
import os
os.makedirs("/vol/real", exist_ok=True)
while True:
    for make in (lambda: os.mkdir("/vol/x"), lambda: os.symlink("/", "/vol/x")):
        try: make()
        except OSError: pass
        try: os.rmdir("/vol/x")
        except OSError:
            try: os.unlink("/vol/x")
            except OSError: os.rename("/vol/x", "/vol/y%d" % os.urandom(4)[0])
"""


def test_a_link_in_a_volume_takes_no_mount_out(fleet: MovingLab) -> None:
    """CVE-2021-30465: while one container changes a directory of a volume for a link to / and back, mounts below it stay inside."""
    shared = Mount(kind="volume", source="flip", target="/vol")
    mark = f"escape-{os.getpid()}"
    outside = [Path("/", mark), *(fleet.lab.node_dir(host) / mark for host in ("host1", "host2"))]
    flip = ("/usr/bin/python3", "-c", _FLIP)
    fleet.client.run(Run(image="work", argv=flip, name="flip", host="host1", mounts=(shared,)))
    came, refusals = 0, []
    try:
        for _ in range(15):
            below = Mount(kind="bind", source="/usr/share", target=f"/vol/x/{mark}", read_only=True)
            try:
                container = fleet.client.run(
                    Run(image="work", argv=("/bin/sleep", "60"), name="below", host="host1", mounts=(shared, below))
                )
            except MigrateError as exc:  # the place was a link, or was not there
                refusals.append(exc.message)
                continue
            came += 1
            table = Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()
            assert [line for line in table if mark in line.split()[4] and "/usr/share" in line.split()[3]]
            assert not [path for path in outside if os.path.lexists(path)]
            fleet.client.remove("below", force=True)
    finally:
        for name in ("flip", "below"):
            if any(each.name == name for each in fleet.client.containers(all=True)):
                fleet.client.remove(name, force=True)
    assert not [path for path in outside if os.path.lexists(path)]
    assert came + len([each for each in refusals if each.startswith("root: ")]) == 15, refusals
