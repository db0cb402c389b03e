#!/usr/bin/python3 -IS
"""Login shell of the user that sshd lets in: hands its own stdin and stdout to the agent's door and waits.

sshd runs every command of a user as `SHELL -c COMMAND`, and the certificates of the fleet force COMMAND to be `control`
or `bulk MIGRATION_ID`; so whatever a client asks for ends here and can be nothing else. Exit status: 0 the door took
the pipes and is done with them, 1 it refused (its line is on stderr), 126 not a command of ours.

Standard library only, run with -I -S. A copy is installed where the user can read it (agent/setup/sshd.py), with DOOR
set to this host's; nothing else of the project is there.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Sequence

DOOR = "/run/migrate/door.sock"
STDIN, STDOUT, STDERR = 0, 1, 2
NOT_A_COMMAND = 126
# Duplicated in agent/door.py and migrate/tunnel/pki.py: this file stands alone.
MIGRATION_ID = re.compile(r"[0-9a-f][0-9a-f-]{0,63}")


def parse(argv: Sequence[str]) -> dict[str, str] | None:
    """The request that `SHELL -c COMMAND` means, None if it is not one of the two."""
    if len(argv) != 3 or argv[1] != "-c":
        return None
    verb, _, argument = argv[2].partition(" ")
    if verb == "control" and not argument:
        return {"verb": "control"}
    if verb == "bulk" and MIGRATION_ID.fullmatch(argument):
        return {"verb": "bulk", "migration": argument}
    return None


def say(text: str) -> None:
    os.write(STDERR, f"dial: {text}\n".encode())


def main(argv: Sequence[str]) -> int:
    request = parse(argv)
    if request is None:
        say("this account carries migrate's tunnels and has no other command")
        return NOT_A_COMMAND
    with socket.socket(socket.AF_UNIX) as door:
        try:
            door.connect(DOOR)
            socket.send_fds(door, [json.dumps(request).encode() + b"\n"], [STDIN, STDOUT])
        except BrokenPipeError:
            pass  # refused unheard: its line is there to be read all the same
        except OSError as exc:
            say(f"no agent answers on {DOOR}: {exc.strerror}")
            return 1
        # The agent must be the only holder, or neither side would ever see the other close.
        os.close(STDIN)
        os.close(STDOUT)
        refusal = b""
        try:
            while data := door.recv(4096):
                refusal += data
        except ConnectionResetError:
            pass  # the agent died; the pipes died with it, and that is what the other end sees
    if refusal:
        say(refusal.decode(errors="replace").strip())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
