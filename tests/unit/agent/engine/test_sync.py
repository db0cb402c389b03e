import errno
import os
import socket
from collections.abc import Iterator

import pytest

from agent.engine import sync

pytestmark = pytest.mark.unit

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


def test_messages_keep_their_boundaries_and_descriptors(pair: Pair) -> None:
    """Two messages stay two, and the descriptors belong to the one they came with."""
    read_end, write_end = os.pipe()
    sync.send(pair[0], {"type": "first"}, [write_end])
    sync.send(pair[0], {"type": "second"})
    first, fds = sync.receive(pair[1])
    second, none = sync.receive(pair[1])
    assert (first, second, none) == ({"type": "first"}, {"type": "second"}, [])
    os.write(fds[0], b"x")
    assert os.read(read_end, 1) == b"x"
    assert not os.get_inheritable(fds[0])
    for fd in (read_end, write_end, *fds):
        os.close(fd)


def test_end_of_file_is_none(pair: Pair) -> None:
    """A closed peer is not an error: it is how a successful execve looks."""
    pair[0].close()
    assert sync.receive(pair[1]) == (None, [])


@pytest.mark.parametrize("data", [b"{", b"[1]", b'"x"', b"\xff"])
def test_what_is_no_json_object_is_a_protocol_error(pair: Pair, data: bytes) -> None:
    """Nothing but an object is a message."""
    pair[0].send(data)
    with pytest.raises(sync.ProtocolError):
        sync.receive(pair[1])


def test_a_message_too_large_is_refused_not_cut(pair: Pair) -> None:
    """A packet beyond the limit is an error, never half a message."""
    pair[0].send(b'{"a": "' + b"x" * sync.MAX_MESSAGE_BYTES + b'"}')
    with pytest.raises(sync.ProtocolError, match=r"more than"):
        sync.receive(pair[1])


def test_expect_names_what_came_instead(pair: Pair) -> None:
    """An unexpected message, or none, says what was waited for."""
    sync.send(pair[0], {"type": "other"})
    with pytest.raises(sync.ProtocolError, match=r"other.*instead of 'start'"):
        sync.expect(pair[1], "start")
    pair[0].close()
    with pytest.raises(sync.ProtocolError, match=r"end of file instead of 'start'"):
        sync.expect(pair[1], "start")


def test_send_error_carries_step_errno_and_path(pair: Pair) -> None:
    """The other side learns the step, the errno and the file."""
    sync.send_error(pair[0], "dev", OSError(errno.ENOENT, "No such file or directory", "/dev/null"))
    message, _ = sync.receive(pair[1])
    assert message == {
        "type": "error",
        "step": "dev",
        "errno": errno.ENOENT,
        "text": "No such file or directory: /dev/null",
    }


def test_sending_to_nobody_is_epipe_and_no_signal(pair: Pair) -> None:
    """A dead peer raises BrokenPipeError instead of killing the sender."""
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        sync.send(pair[0], {"type": "x"})
