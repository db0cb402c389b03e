"""family.py PORT [PROGRAM[:ARGUMENT...]...]: a container's init with a whole family, asked over one connection how all are.

Starts the named programs of this folder as children, each with its usual status file, and beside them a zombie, a stopped
process and a session of its own with a grandchild. Answers lines on PORT, one connection after the other:

    facts         one line of JSON: environment, names, ids, limits, the process tree, the children's status files
    stdin         one line of JSON: what could be read from stdin without waiting, as text
    say TEXT      prints TEXT to stdout and to stderr; answers "said"

SIGTERM: ends with status 42.
"""
# ruff: noqa: PTH109, PTH208

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent


def tree() -> list:
    """[pid, parent, group, session, state, threads, name] of each process that this container has."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            text = Path("/proc", name, "stat").read_text()
            fields = text[text.rindex(")") + 2 :].split()
            title = text[text.index("(") + 1 : text.rindex(")")]
            found.append([int(name), *(int(fields[n]) for n in (1, 2, 3)), fields[0], int(fields[17]), title])
    return sorted(found)


def facts(children: dict) -> dict:
    return {
        "token": TOKEN,
        "environment": dict(os.environ),
        "hostname": socket.gethostname(),
        "hosts": Path("/etc/hosts").read_text(),
        "resolv": Path("/etc/resolv.conf").read_text(),
        "cwd": os.getcwd(),
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_NOFILE", "RLIMIT_CORE")},
        "capabilities": [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cap")],
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "tree": [[*each[:4], each[4] if each[4] in "ZT" else "-", *each[5:]] for each in tree()],
        "children": {
            name: {
                "alive": child.poll() is None,
                "code": child.returncode,
                "status": json.loads(Path(f"/srv/{name}.json").read_text()),
            }
            for name, child in children.items()
        },
    }


def stdin() -> str:
    text = b""
    while select.select([0], [], [], 0)[0]:
        data = os.read(0, 65536)
        if not data:
            break
        text += data
    return text.decode()


def relatives() -> None:
    """A zombie, a stopped process, and a session with a child in it."""
    if os.fork() == 0:
        os._exit(7)
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    if os.fork() == 0:
        os.setsid()
        os.fork()
        while True:
            time.sleep(60)


TOKEN = os.urandom(16).hex()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(42))
    listener = socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=4)
    relatives()
    children = {}
    for words in sys.argv[2:]:
        name, *arguments = words.split(":")
        status = f"/srv/{name}.json"
        children[name] = subprocess.Popen(
            [sys.executable, "-u", str(FOLDER / f"{name}.py"), *arguments, status], stdin=subprocess.DEVNULL
        )
        while not Path(status).exists():
            if children[name].poll() is not None:
                sys.exit(f"{name} ended with {children[name].returncode}")
            time.sleep(0.01)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                verb, _, text = line.decode().rstrip("\n").partition(" ")
                if verb == "facts":
                    answer = json.dumps(facts(children))
                elif verb == "stdin":
                    answer = json.dumps(stdin())
                else:
                    print(text, flush=True)
                    print(text, file=sys.stderr, flush=True)
                    answer = "said"
                stream.write(answer.encode() + b"\n")
                stream.flush()


if __name__ == "__main__":
    main()
