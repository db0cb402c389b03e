"""Writes pages of a Redis at a steady rate: `python -m bench.dirty ADDRESS PORT SIZE_MB MB_PER_S`, from outside.

SIZE_MB of values of its own; a script in Redis writes a word into one page after the other (SETRANGE), round and round, so that
next to nothing goes over the network for it. Each line on stdin makes it say, as a line of JSON, what it has done since the line
before: the rate is what it reached, without the one longest wait for an answer. The word "verify" makes it look at every page: each
must have the word of its last round, for Redis has said that it was written.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from typing import Any

PAGE, PAGES_A_KEY = 4096, 4
PERIOD_S = 0.01
_SCRIPT = """
local first, count, pages = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local wrong = 0
for n = first, first + count - 1 do
  local page = n % pages
  local key, offset = string.format('hot:%06d', math.floor(page / 4)), (page % 4) * 4096
  local word = string.format('%016d', math.floor(n / pages))
  if ARGV[4] == 'write' then
    redis.call('SETRANGE', key, offset, word)
  elseif redis.call('GETRANGE', key, offset, offset + 15) ~= word then
    wrong = wrong + 1
  end
end
return wrong
"""


class Dirtier:
    """One connection; `cursor` pages were written since the beginning."""

    def __init__(self, address: str, port: int, size_mb: float) -> None:
        self._socket = socket.create_connection((address, port), timeout=120)
        self._replies = self._socket.makefile("rb")
        self.pages = max(PAGES_A_KEY, int(size_mb * 1e6) // PAGE // PAGES_A_KEY * PAGES_A_KEY)
        self.cursor = 0
        self._fill()

    def _send(self, *words: bytes) -> None:
        self._socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))

    def _reply(self) -> bytes:
        line = self._replies.readline()
        if not line or line.startswith(b"-"):
            raise ConnectionError(f"redis answered {line!r}")
        return line

    def _fill(self) -> None:
        for number in range(self.pages // PAGES_A_KEY):
            self._send(b"SET", b"hot:%06d" % number, os.urandom(PAGE * PAGES_A_KEY))
            self._reply()
        self.write(self.pages)

    def write(self, count: int) -> None:
        self._run(self.cursor, count, b"write")
        self.cursor += count

    def verify(self) -> int:
        """How many pages lack the word of their last round."""
        return self._run(self.cursor - self.pages, self.pages, b"verify")

    def _run(self, first: int, count: int, verb: bytes) -> int:
        wrong = 0
        for at in range(first, first + count, 10_000):  # Redis serves nobody else meanwhile
            words = (at, min(10_000, first + count - at), self.pages)
            self._send(b"EVAL", _SCRIPT.encode(), b"0", *(b"%d" % word for word in words), verb)
            wrong += int(self._reply()[1:])
        return wrong


def main() -> int:
    address, port, size_mb, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    dirtier = Dirtier(address, port, size_mb)
    pages_a_second = rate * 1e6 / PAGE
    say({"ready": True})
    last = began = time.monotonic()
    written, longest_s, owed = 0, 0.0, 0.0
    while True:
        now = time.monotonic()
        longest_s = max(longest_s, now - last)
        owed += min(now - last, 5 * PERIOD_S) * pages_a_second  # what a standstill swallowed is not caught up with
        last = now
        if count := int(owed):
            dirtier.write(count)
            written, owed = written + count, owed - count
        due = max(0.0, now + PERIOD_S - time.monotonic())
        if not select.select([sys.stdin], [], [], due)[0]:
            continue
        if not (line := sys.stdin.readline()):
            return 0
        spent_s = time.monotonic() - began - longest_s
        found: dict[str, Any] = {"mb_s": written * PAGE / 1e6 / max(spent_s, 1e-3), "longest_gap_s": longest_s}
        if line.strip() == "verify":
            found |= {"pages": dirtier.pages, "wrong": dirtier.verify()}
        say(found)
        began = last = time.monotonic()
        written, longest_s = 0, 0.0


def say(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    sys.exit(main())
