"""The demo's client: `python -m migrate.lab.client ADDRESS PORT [RATE]`, outside of the hosts, in the lab's client
namespace.

One TCP connection for its whole life, INCR after INCR as fast as the answers come, or RATE a second. Each answer must be exactly one
more than the one before: a lost answer, a repeated one or a second process in the container's place shows at once.
Each line that it reads on stdin makes it say, as one line of JSON, what has happened since the line before; at the
end of stdin it goes. Standard library only.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass, field

KEY = "demo:counter"
TIMEOUT_S = 120.0  # without an answer: the connection is dead, whatever the kernel still believes
_REQUEST = f"*2\r\n$4\r\nINCR\r\n${len(KEY)}\r\n{KEY}\r\n".encode()
_LOOK_EVERY_S = 0.01


@dataclass
class Since:
    """What happened since the last report. `value`: of the counter now; it never jumps. `port`: ours, that of the connection."""

    port: int
    value: int
    began_unix_ns: int
    replies: int = 0
    longest_gap_s: float = 0.0
    longest_gap_unix_ns: int = 0  # when it ended
    problems: list[str] = field(default_factory=list)


class Connection:
    """A dialogue of one kind of request, over one connection that is never opened again."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.create_connection((address, port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb")
        self._last = time.monotonic()
        self.since = Since(port=self._socket.getsockname()[1], value=0, began_unix_ns=time.time_ns())

    def ask(self) -> None:
        """One INCR. Raises OSError when the connection is dead, EOFError when the other end closed it."""
        self._socket.sendall(_REQUEST)
        reply = self._replies.readline()
        now = time.monotonic()
        if now - self._last > self.since.longest_gap_s:
            self.since.longest_gap_s = now - self._last
            self.since.longest_gap_unix_ns = time.time_ns()
        self._last = now
        if not reply:
            raise EOFError("the server closed the connection")
        wanted = self.since.value + 1
        if reply != b":%d\r\n" % wanted:
            self.since.problems.append(f"the answer was {reply!r}, not {wanted}")
            if not reply.startswith(b":"):
                raise EOFError(f"the server answered {reply!r}")
        self.since.value = int(reply[1:])
        self.since.replies += 1

    def report(self) -> None:
        """Print what happened and begin anew."""
        print(json.dumps(asdict(self.since)), flush=True)  # noqa: T201  the demo reads it
        self.since = Since(port=self.since.port, value=self.since.value, began_unix_ns=time.time_ns())


def main() -> int:
    connection = Connection(sys.argv[1], int(sys.argv[2]))
    rate = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    look_at = due = 0.0
    try:
        while True:
            connection.ask()
            now = time.monotonic()
            due = max(due + 1 / rate, now) if rate else now  # what a gap swallowed is not caught up with
            if due == now < look_at:
                continue
            look_at = now + _LOOK_EVERY_S
            if select.select([sys.stdin], [], [], due - now)[0]:
                if not sys.stdin.readline():
                    return 0
                connection.report()
    except (OSError, EOFError) as exc:
        connection.since.problems.append(f"the connection is lost: {exc}")
        connection.report()
        return 1


if __name__ == "__main__":
    sys.exit(main())
