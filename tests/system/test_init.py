"""Stage and init, from the plan to the program: user, directory, privileges, stdio, errors by step."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from tests.system.small_container import SmallContainer, busybox_like_layer, plan, run

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_like_layer(tmp_path_factory.mktemp("base"))


def test_program_is_pid_1_in_namespaces_of_its_own(tmp_path: Path, base: Path) -> None:
    """The program leads a session as pid 1, sees its host name, and shares no namespace but time with the host."""
    kinds = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
    script = "echo $$; cut -d' ' -f6 /proc/self/stat; uname -n; readlink " + " ".join(
        f"/proc/self/ns/{k}" for k in kinds
    )
    status, text = run(tmp_path, [base], ["sh", "-c", script])
    pid, session, name, *namespaces = text.split()
    assert (status, pid, session, name) == (0, "1", "1", "small")
    assert len(namespaces) == len(kinds)
    assert all(
        inside != str(Path(f"/proc/self/ns/{kind}").readlink()) for kind, inside in zip(kinds, namespaces, strict=True)
    )


def test_ids_and_capabilities_of_root(tmp_path: Path, base: Path) -> None:
    """Root has the plan's capabilities, permitted, effective and bounding, no others, and may gain none."""
    status, text = run(tmp_path, [base], ["grep", "-E", "^(Uid|Gid|Groups|Cap|NoNew)", "/proc/self/status"])
    fields = {line.split(":")[0]: line.split()[1:] for line in text.splitlines()}
    assert status == 0
    assert fields["Uid"] == ["0"] * 4
    assert fields["Groups"] == []
    assert fields["CapPrm"] == fields["CapEff"] == fields["CapBnd"] == ["00000000a80425fb"]  # Docker's default set
    assert fields["CapInh"] == fields["CapAmb"] == ["0" * 16]
    assert fields["NoNewPrivs"] == ["1"]


def test_a_user_by_name_has_groups_home_and_no_capability(tmp_path: Path, base: Path) -> None:
    """`--user app` means what the image's files say, and a user that is not root has no capability at all."""
    script = "id; echo $HOME; grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status; touch /root/x"
    status, text = run(tmp_path, [base], ["sh", "-c", script], user="app")
    assert "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)" in text
    assert "/home/app" in text
    assert text.count("0000000000000000") == 3
    assert "Permission denied" in text
    assert status == 1


def test_fewer_capabilities_are_really_gone(tmp_path: Path, base: Path) -> None:
    """Without CAP_CHOWN root may not chown, and cannot get it back."""
    status, text = run(tmp_path, [base], ["sh", "-c", "chown app /tmp || echo refused"], capabilities=["CAP_KILL"])
    assert status == 0
    assert "refused" in text


def test_a_missing_working_directory_is_made(tmp_path: Path, base: Path) -> None:
    """The working directory exists when the program starts, as with Docker."""
    assert run(tmp_path, [base], ["sh", "-c", "echo $PWD"], cwd="/made/for/it", user="app") == (0, "/made/for/it\n")


def test_a_user_that_is_not_root_may_reopen_its_output(tmp_path: Path, base: Path) -> None:
    """Writing to /dev/stdout and /dev/stderr works: images log that way."""
    script = "echo out > /dev/stdout; echo err > /dev/stderr; echo lost > /dev/null"
    assert run(tmp_path, [base], ["sh", "-c", script], user="app") == (0, "out\nerr\n")


def test_no_descriptor_of_the_host_gets_in(tmp_path: Path, base: Path) -> None:
    """The program has 0, 1 and 2 and nothing else."""
    status, text = run(tmp_path, [base], ["ls", "/proc/self/fd"])
    assert status == 0
    assert text.split() == ["0", "1", "2", "3"]  # 3 is what ls reads the directory with


def test_limits_signals_and_oom_score_are_reset(tmp_path: Path, base: Path) -> None:
    """Limits are the plan's, no signal is ignored or blocked, and the kernel may kill it before the monitor."""
    script = "ulimit -n; cat /proc/self/oom_score_adj; grep -E '^Sig(Ign|Blk)' /proc/self/status"
    status, text = run(tmp_path, [base], ["sh", "-c", script], rlimits={"RLIMIT_NOFILE": [100, 200]})
    assert status == 0
    *limits, _, blocked, _, ignored = text.split()
    assert limits == ["100", "0"]
    libc_own = 0b11 << 31  # signals 32 and 33 are the C library's: a shell above us may have left them ignored
    assert (int(blocked, 16), int(ignored, 16) & ~libc_own) == (0, 0)


def test_exit_code_and_signal_arrive(tmp_path: Path, base: Path) -> None:
    """The monitor's wait sees the program's own status."""
    assert run(tmp_path / "a", [base], ["sh", "-c", "exit 7"])[0] == 7
    with SmallContainer(tmp_path / "b", [base], plan(tmp_path / "b", argv=["sleep", "60"])) as container:
        container.start()
        os.kill(container.pid, signal.SIGKILL)
        assert container.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("changes", "step", "number"),
    [
        ({"argv": ["no-such-program"]}, "exec", errno.ENOENT),
        ({"argv": ["/bin/nothing"]}, "exec", errno.ENOENT),
        ({"argv": ["/etc/passwd"]}, "exec", errno.EACCES),
        ({"argv": ["/tmp"]}, "exec", errno.EACCES),
        ({"argv": [""]}, "exec", errno.ENOENT),
        ({"user": "bob"}, "user", errno.ENOENT),
        ({"cwd": "/etc/passwd"}, "cwd", errno.ENOTDIR),
    ],
)
def test_what_cannot_start_says_which_step_and_why(
    tmp_path: Path, base: Path, changes: dict[str, object], step: str, number: int
) -> None:
    """An error names its step and errno, and init is gone after it."""
    with SmallContainer(tmp_path, [base], plan(tmp_path, **{"argv": ["true"], **changes})) as container:
        container.start()
        assert container.error is not None
        assert (container.error["step"], container.error["errno"]) == (step, number)
        assert container.wait() == 1


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"root": "/no/such/directory/at/all"}, "root"),
        ({"rlimits": {"RLIMIT_NOFILE": [10, 5]}}, "plan"),
    ],
)
def test_what_fails_before_init_exists_says_so_too(
    tmp_path: Path, base: Path, changes: dict[str, object], step: str
) -> None:
    """What is done for init from the host's side reports like its own steps."""
    with SmallContainer(tmp_path, [base], plan(tmp_path, argv=["true"], **changes)) as container:
        assert container.error is not None
        assert container.error["step"] == step
        container.wait()  # nothing of it stays
        assert not Path(f"/proc/{container.pid}").exists()


def test_a_container_that_is_never_started_ends_with_its_monitor(tmp_path: Path, base: Path) -> None:
    """Init waits for `start`; when the monitor goes, so does init, and the program has never run."""
    container = SmallContainer(tmp_path, [base], plan(tmp_path, argv=["touch", "/tmp/ran"]))
    pid = container.pid
    assert Path(f"/proc/{pid}").exists()
    container.close()
    assert not Path(f"/proc/{pid}/exe").exists()
    assert not (tmp_path / "layer/upper/tmp/ran").exists()


def test_a_terminal_is_the_programs_own(tmp_path: Path, base: Path) -> None:
    """With a tty the program has one of its own devpts as controlling terminal, owned by its user, and ^C is a signal."""
    script = "stty -echo; tty; stat -c '%u %g %a' -L /dev/stdin; trap 'echo caught; exit 5' INT; echo r''eady; while :; do sleep 0.1; done"
    the_plan = plan(tmp_path, argv=["sh", "-c", script], tty=True, user="app")
    with SmallContainer(tmp_path, [base], the_plan) as container:
        master = container.terminal
        container.start()
        assert container.error is None
        seen = b""
        while b"ready" not in seen:
            seen += os.read(master, 1000)
        os.write(master, b"\x03")
        while b"caught" not in seen:
            seen += os.read(master, 1000)
        assert b"1000 5 620" in seen
        assert b"/dev/pts/0" in seen
        assert container.wait() == 5
    os.close(master)
