import errno
import os
from pathlib import Path

import pytest

from agent.engine import program
from agent.engine.program import Program, StepError, User

pytestmark = pytest.mark.unit

PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken line\n7:x:55:56::/seven:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\nextra:x:2000:app,other\nmore:x:2001:app\nwheel:x:2002:other\n"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


APP = User(uid=1000, gid=1001, groups=(2000, 2001), home="/home/app", name="app")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", User(uid=0, gid=0, home="/root", name="root")),
        ("app", APP),
        ("1000", APP),
        ("4242", User(uid=4242, gid=0)),
        ("4242:77", User(uid=4242, gid=77)),
        ("app:extra", User(uid=1000, gid=2000, home="/home/app", name="app")),
        ("app:2002", User(uid=1000, gid=2002, home="/home/app", name="app")),
        ("0:0", User(uid=0, gid=0, home="/root", name="root")),
        ("7", User(uid=55, gid=56, home="/seven", name="7")),
    ],
)
def test_users_are_resolved_by_dockers_rules(image: Path, text: str, expected: User) -> None:
    """Names, numbers, groups after a colon, and further groups only without one; a name wins over a number."""
    assert program.resolve_user(text, image) == expected


@pytest.mark.parametrize(
    ("text", "number"), [("bob", errno.ENOENT), ("app:nogroup", errno.ENOENT), (str(1 << 31), errno.EINVAL)]
)
def test_a_user_that_is_not_there_is_an_error_of_the_step_user(image: Path, text: str, number: int) -> None:
    """An unknown name and an impossible id say so, with the step."""
    with pytest.raises(StepError) as caught:
        program.resolve_user(text, image)
    assert (caught.value.step, caught.value.errno) == ("user", number)


def test_an_image_without_databases_still_has_numbers(tmp_path: Path) -> None:
    """A scratch image runs as root or as any number."""
    assert program.resolve_user("", tmp_path) == User(uid=0, gid=0)
    assert program.resolve_user("12:13", tmp_path) == User(uid=12, gid=13)


def test_a_fifo_as_database_does_not_hold_anybody_up(image: Path) -> None:
    """An image cannot stop its own start by making /etc/passwd a pipe."""
    (image / "etc/passwd").unlink()
    os.mkfifo(image / "etc/passwd")
    assert program.resolve_user("5", image) == User(uid=5, gid=0)


def _program(**changes: object) -> Program:
    values: dict[str, object] = {"argv": ("x",), "env": (), "cwd": "/", "user": "", "capabilities": (), **changes}
    return Program(**values)  # type: ignore[arg-type]


def test_environment_has_defaults_that_the_image_may_replace() -> None:
    """PATH and HOME are always there, HOSTNAME and TERM where they mean something; what is given wins."""
    assert program.environment(_program(), User(uid=1, gid=1, home="/home/x")) == {
        "PATH": program.DEFAULT_PATH,
        "HOME": "/home/x",
    }
    env = program.environment(
        _program(env=("PATH=/bin", "A=b=c", "bad", "=x", "HOME="), tty=True, hostname="web1"), User(uid=0, gid=0)
    )
    assert env == {"PATH": "/bin", "HOME": "", "HOSTNAME": "web1", "TERM": "xterm", "A": "b=c"}


def test_step_names_an_oserror_once() -> None:
    """The innermost step keeps its name; the path is in the text."""
    with pytest.raises(StepError) as caught, program.step("outer"), program.step("inner"):
        Path("/no/such/file").stat()
    assert caught.value.step == "inner"
    assert caught.value.errno == errno.ENOENT
    assert "/no/such/file" in str(caught.value)


def test_close_others_leaves_stdio_and_one_channel() -> None:
    """A child has 0, 1, 2 and the channel, which closes on exec."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.set_inheritable(write_end, True)
        program.close_others(write_end)
        left = sorted(fd for fd in range(write_end + 50) if _is_open(fd))
        good = left == [0, 1, 2, write_end] and not os.get_inheritable(write_end)
        os.write(write_end, b"ok" if good else repr(left).encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as file:
        assert file.read() == b"ok"
    os.waitpid(pid, 0)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_further_groups_come_on_top(image: Path) -> None:
    """By name or number, also beside a group after the colon, which ends those of the database; an unknown name is an error."""
    of_database = program.resolve_user("5", image).groups
    assert program.resolve_user("5", image, ("77",)).groups == tuple(sorted({*of_database, 77}))
    assert program.resolve_user("5:6", image, ("77", "78")) == User(uid=5, gid=6, groups=(77, 78))
    with pytest.raises(StepError, match="no group 'nobody-has-it'"):
        program.resolve_user("5", image, ("nobody-has-it",))
