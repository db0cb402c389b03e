"""The command line as people use it: `main([...])` and real processes on terminals, against a fleet in memory."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from agent import errors as agent_errors
from migrate.cli.main import main
from tests.contract.terminals import ROOT, Terminal
from tests.fakes.fleet import FakeFleet, eventually

pytestmark = pytest.mark.contract


# ---------------------------------------------------------------- containers


def test_the_life_of_a_container(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """run -d prints the id; ps, inspect, stop, wait and rm do what their names say."""
    assert main(["run", "-d", "--name", "web1", "--host", "host1", "-e", "A=b", "base", "serve", "--port", "80"]) == 0
    container_id = capsys.readouterr().out.strip()
    assert len(container_id) == 32
    assert main(["ps"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["CONTAINER", "ID", "NAME"]
    assert row.startswith(container_id[:12])
    assert " web1  host1  running" in row
    assert main(["ps", "-q", "--filter", "name=nothing"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["inspect", "web1"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["argv"], shown["host"]) == (container_id, ["serve", "--port", "80"], "host1")
    assert "A=b" in shown["env"]
    assert main(["stop", "web1"]) == 0
    assert main(["wait", "web1"]) == 0
    assert capsys.readouterr().out.splitlines() == ["web1", "143"]
    assert main(["ps", "--filter", "status=exited", "-q"]) == 0
    assert capsys.readouterr().out.strip() == container_id[:12]
    assert main(["rm", "web1"]) == 0
    assert main(["ps", "-a", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out.removeprefix("web1\n")) == []


def test_one_wrong_name_does_not_stop_the_others(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Each container is told, each error is reported, and the exit status says that there was one."""
    fleet.run("web1")
    assert main(["stop", "web9", "web1"]) == 3
    captured = capsys.readouterr()
    assert captured.out == "web1\n"
    assert captured.err == "error: no container 'web9'\nhint: migrate ps --all\n"


def test_docker_s_exit_codes_of_run(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """127: no such program; 126: it cannot be executed; 125: everything else."""
    host = fleet.hosts["host1"]
    for text, status in (
        ("exec: nope: no such file in PATH=/bin", 127),
        ("exec: /etc/passwd: Permission denied", 126),
        ("user: no user 'x' in the image's /etc/passwd", 125),
    ):
        host.fail["Containers.Start"] = agent_errors.StartError(text)
        assert main(["run", "-d", "--host", "host1", "base"]) == status
        assert text in capsys.readouterr().err
    host.fail.clear()
    assert main(["run", "-d", "--host", "host9", "base"]) == 125
    fleet.run("web1")
    assert main(["exec", "web1", "nope"]) == 127


def test_run_in_the_foreground_gives_output_and_exit_code(
    fleet: FakeFleet, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """What the process writes comes out and its exit code is the command's; --rm leaves nothing."""
    process = subprocess.Popen(
        [sys.executable, "-m", "migrate", "run", "-i", "--rm", "--name", "job", "--host", "host1", "base"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"ping")
        process.stdin.flush()
        assert process.stdout.read(10) == b"host1:ping"
        fleet.hosts["host1"].exit(fleet.store.container("job").id, 5)
        assert process.wait(15) == 5
    assert fleet.store.containers() == []


def test_run_detached_takes_rm(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """`run -d --rm` prints the id; that it is removed at its exit is in its spec, where its host finds it."""
    assert main(["run", "-d", "--rm", "--host", "host1", "--name", "job", "base"]) == 0
    container_id = capsys.readouterr().out.strip()
    assert fleet.hosts["host1"].containers[container_id].spec.remove_on_exit
    assert main(["run", "-d", "--host", "host1", "--name", "stays", "base"]) == 0
    assert not fleet.hosts["host1"].containers[capsys.readouterr().out.strip()].spec.remove_on_exit


def test_signals_go_to_the_container(fleet: FakeFleet) -> None:
    """Without a terminal SIGTERM is passed on instead of ending the client."""
    process = subprocess.Popen(
        [sys.executable, "-m", "migrate", "run", "--name", "job", "--host", "host1", "base"],
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    eventually(lambda: "Containers.Start" in fleet.hosts["host1"].calls, 15)
    container = next(iter(fleet.hosts["host1"].containers.values()))
    time.sleep(0.5)  # until the client listens to signals
    process.send_signal(signal.SIGTERM)
    eventually(lambda: container.signals == ["SIGTERM"], 15)
    assert process.poll() is None
    fleet.hosts["host1"].exit(container.spec.id, 143)
    assert process.wait(15) == 143


def test_logs_go_to_the_stream_they_came_from(fleet: FakeFleet, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """stderr's lines to stderr; -t puts the time before each."""
    container = fleet.run("web1")
    fleet.hosts["host1"].write(container.id, "out\n", unix_ns=1_000_000_001)
    fleet.hosts["host1"].write(container.id, "err\n", unix_ns=2_000_000_000, stream="stderr")
    assert main(["logs", "-t", "web1"]) == 0
    captured = capfdbinary.readouterr()
    assert captured.out == b"1970-01-01T00:00:01.000000001Z out\n"
    assert captured.err == b"1970-01-01T00:00:02.000000000Z err\n"


# ---------------------------------------------------------------- terminals


def test_a_terminal_is_raw_while_a_command_runs_and_restored_after(fleet: FakeFleet, terminals: list[Terminal]) -> None:
    """exec -it: keys arrive as typed, the window's size is told, and the exit status is the command's."""
    fleet.run("web1")
    terminals.append(terminal := Terminal("exec", "-it", "web1", "cat"))
    eventually(terminal.is_raw, 15)
    terminal.type(b"\x03x")  # ctrl-c is a key like any other
    terminal.read_until(b"\x03x")
    termios.tcsetwinsize(terminal.master, (33, 99))
    os.kill(terminal.process.pid, signal.SIGWINCH)
    terminal.read_until(b"33x99")
    terminal.process.terminate()
    assert terminal.wait() == 128 + signal.SIGTERM


def test_the_detach_keys_leave_the_container_running(fleet: FakeFleet, terminals: list[Terminal]) -> None:
    """ctrl-p ctrl-q ends the client, not the container."""
    terminals.append(terminal := Terminal("run", "-it", "--name", "shell", "--host", "host1", "base"))
    eventually(terminal.is_raw, 15)
    terminal.type(b"hi")
    terminal.read_until(b"host1:hi")
    terminal.type(b"\x10\x11")
    terminal.read_until(b"detached; shell runs on")
    assert terminal.wait() == 0
    assert fleet.client.inspect("shell").state == "running"


def test_the_terminal_is_restored_when_the_host_dies(fleet: FakeFleet, terminals: list[Terminal]) -> None:
    """An error in the middle of a session is printed on a terminal that works."""
    fleet.run("web1")
    terminals.append(terminal := Terminal("exec", "-it", "web1", "cat"))
    eventually(terminal.is_raw, 15)
    terminal.type(b"x")
    terminal.read_until(b"x")
    fleet.hosts["host1"].stop()
    terminal.read_until(b"error: ")
    assert terminal.wait() == 125


def test_t_needs_a_terminal(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before anything is created."""
    done = subprocess.run(
        [sys.executable, "-m", "migrate", "run", "-it", "--host", "host1", "base"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=ROOT,
        text=True,
    )
    assert done.returncode == 125
    assert "not a terminal" in done.stderr
    assert fleet.store.containers() == []


# ---------------------------------------------------------------- images, hosts


def test_images_are_imported_with_changes_and_listed(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for an image that several hosts have."""
    (tmp_path / "root.tar").write_bytes(bytes(1000))
    status = main(["image", "import", str(tmp_path / "root.tar"), "app", "-c", 'CMD ["a", "b"]', "-c", "ENV X=1"])
    assert status == 0
    assert capsys.readouterr().out.count("app") == 2
    assert list(fleet.hosts["host2"].images["app"].config.cmd) == ["a", "b"]
    assert main(["images"]) == 0
    assert "host1,host2" in capsys.readouterr().out
    assert main(["rmi", "app"]) == 0
    assert "1 layer that" in capsys.readouterr().out
    assert main(["image", "import", str(tmp_path / "root.tar"), "app", "-c", "NONSENSE"]) == 2
    assert main(["image", "import", str(tmp_path / "nothing.tar"), "app"]) == 1
    assert "No such file" in capsys.readouterr().err


def test_images_by_name_filter_and_digest(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Docker's columns, filters and -q; an image whose tag another one took shows <none>."""
    host = fleet.hosts["host1"]
    host.add_image("team/web:1", labels={"tier": "web"})
    host.add_image("team/web:1@sha256:" + "a" * 64)
    assert main(["images", "team/web"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "HOSTS", "CREATED", "SIZE"]
    assert sorted(line.split()[1] for line in lines[1:]) == ["1", "<none>"]
    for words, expected in (
        (["team/web", "--filter", "dangling=true"], ["team/web:1@sha256:" + "a" * 64]),
        (["--filter", "label=tier=web"], ["team/web:1"]),
        (["--filter", "label=tier=db"], []),
        (["team/*:1"], ["team/web:1"]),
        (["--filter", "reference=base", "--host", "host2"], ["base"]),
    ):
        assert main(["image", "ls", "--format", "json", *words]) == 0
        assert [image["name"] for image in json.loads(capsys.readouterr().out)] == expected, words
    assert main(["images", "-q", "--no-trunc", "team/web:1"]) == 0
    assert capsys.readouterr().out == "sha256:team/web:1\n"
    assert main(["images", "--filter", "colour=blue"]) == 2
    assert "no filter 'colour'" in capsys.readouterr().err


def test_history_and_inspect_read_the_images_own_document(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps newest first, with the size of the layer that each made; steps without a layer have none."""
    image = fleet.hosts["host2"].add_image("app")
    image.layers[:] = ["sha256:" + "1" * 64, "sha256:" + "2" * 64]
    image.layer_bytes[:] = [1000, 2000]
    image.document = json.dumps(
        {
            "config": {"Cmd": ["serve"]},
            "rootfs": {"diff_ids": list(image.layers)},
            "history": [
                {"created": "2023-11-14T22:13:20Z", "created_by": "ADD rootfs"},
                {"created_by": "CMD serve", "empty_layer": True},
                {"created_by": "RUN make", "comment": "c"},
            ],
        }
    )
    assert main(["history", "app", "--format", "json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [(one["created_by"], one["layer"][7:9], one["size_bytes"]) for one in steps] == [
        ("RUN make", "22", 2000),
        ("CMD serve", "", 0),
        ("ADD rootfs", "11", 1000),
    ]
    assert steps[2]["created_unix_ns"] == 1_700_000_000 * 10**9
    assert main(["history", "app"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["LAYER", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert main(["image", "inspect", "app"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["hosts"], shown["config"]) == (["host2"], {"Cmd": ["serve"]})
    assert shown["layers"][1] == {"diff_id": "sha256:" + "2" * 64, "size_bytes": 2000}


def test_prune_asks_first_unless_forced(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal to ask on it refuses and says what to type."""
    fleet.hosts["host1"].add_image("web:1@sha256:" + "a" * 64)
    assert main(["image", "prune"]) == 2
    assert "hint: migrate image prune -f" in capsys.readouterr().err
    assert main(["image", "prune", "-f"]) == 0
    out = capsys.readouterr().out
    assert "Untagged: web:1@sha256" in out and "host2: 0 B free again" in out
    assert main(["image", "prune", "-f", "--filter", "dangling=true"]) == 2


def test_load_and_save_show_progress_apart_from_results(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Progress goes to stderr, what came of it to stdout; a file appears only when it is whole."""
    (tmp_path / "in.tar").write_bytes(bytes(1000))
    assert main(["load", "-i", str(tmp_path / "in.tar"), "--host", "host2"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("host2: loaded loaded:1 ")
    assert "host2: archive      reading" in err
    assert main(["save", "-q", "-o", str(tmp_path / "out.tar"), "base"]) == 0
    assert (tmp_path / "out.tar").read_bytes() == b"host1 base"
    assert main(["save", "-o", str(tmp_path / "none.tar"), "nothing"]) == 3
    assert sorted(path.name for path in tmp_path.glob("*.tar*")) == ["in.tar", "out.tar"]


def test_pull_and_push_say_a_line_a_layer_and_what_came_of_it(
    fleet: FakeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into a pipe: a line for each change of a layer's state, on stderr; results on stdout, a line a host."""
    assert main(["pull", "registry.example/web:1"]) == 0
    out, err = capsys.readouterr()
    assert sorted(line.split()[0] for line in out.splitlines()) == ["host1:", "host2:"]
    assert "pulled registry.example/web:1" in out
    lines = [line.split() for line in err.splitlines() if line.startswith("host1")]
    assert [words[1:3] for words in lines] == [["1" * 12, word] for word in ("waiting", "fetching", "done")]
    assert main(["push", "-q", "base", "registry.example/base:2", "--host", "host2"]) == 0
    assert capsys.readouterr() == (f"host2: pushed registry.example/base:2 sha256:{'2' * 64}\n", "")


def test_login_keeps_credentials_here_and_sends_those_of_one_registry(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of this user only; tried by a host first; a call gets the entry of its registry and no other."""
    path = tmp_path / "config" / "auth.json"
    monkeypatch.setenv("MIGRATE_AUTH_FILE", str(path))
    login = ["login", "-u", "me", "--password-stdin"]
    for registry, password, status in (
        ("r.example:5000", "secret", 0),
        ("other.example", "secret", 0),
        ("x", "bad", 1),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
        assert main([*login, registry]) == status
    out, err = capsys.readouterr()
    assert "secret" not in out + err and "the registry refused" in err
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(json.loads(path.read_text())["auths"]) == ["other.example", "r.example:5000"]
    assert main(["pull", "-q", "r.example:5000/web", "--tls-verify=false", "--host", "host1"]) == 0
    access = fleet.hosts["host1"].access
    assert access is not None and access.unverified
    sent = json.loads(access.credentials)["auths"]
    assert sent == {"r.example:5000": {"auth": base64.b64encode(b"me:secret").decode()}}
    assert main(["pull", "-q", "debian", "--host", "host1"]) == 0
    access = fleet.hosts["host1"].access
    assert access is not None and access.credentials == b"" and not access.unverified
    assert main(["logout", "r.example:5000"]) == 0
    assert main(["logout", "r.example:5000"]) == 1
    assert sorted(json.loads(path.read_text())["auths"]) == ["other.example"]


def test_hosts_show_the_silent_one(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """A table, and below it what is wrong with whom."""
    fleet.hosts["host2"].stop()
    assert main(["hosts"]) == 0
    out = capsys.readouterr().out
    assert "host1  ready" in out
    assert "host2: unreachable: " in out
    assert main(["hosts", "--format", "json"]) == 0
    assert [host["reachable"] for host in json.loads(capsys.readouterr().out)] == [True, False]


# ---------------------------------------------------------------- moves


def test_a_move_prints_a_line_a_step_and_what_it_cost(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Into a pipe: plain lines, the pivot, and the summary at the end."""
    fleet.run("web1")
    assert main(["move", "web1", "--to", "host2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != "-"][-4:] == ["restore", "resume", "release", "web1"]
    assert "-- pivot: the target owns the container --" in lines
    assert lines[-1].startswith("web1 runs on host2: moved from host1 in ")
    assert "sent 8.39 MB (memory 8.39 MB" in lines[-1]
    assert "\x1b" not in "".join(lines)


def test_a_move_in_json_ends_with_the_record(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line; success and failure alike."""
    fleet.run("web1")
    assert main(["move", "web1", "--to", "host2", "--format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["type"] for line in lines[:-1]} == {"step", "progress"}
    assert (lines[-1]["type"], lines[-1]["state"], lines[-1]["container"]) == ("record", "succeeded", "web1")

    def refuse(request, context=None):
        raise agent_errors.CriuError("cannot restore")

    fleet.world.agents["host1"].Restore = refuse
    assert main(["move", "web1", "--to", "host1", "--format", "json"]) == 6
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["state"] == "failed"
    assert "state: what had been changed was put back" in captured.err


def test_a_quiet_move_says_nothing(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the exit status; and --detach only the id."""
    fleet.run("web1")
    assert main(["move", "web1", "--to", "host2", "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["move", "web1", "--to", "host1", "--detach"]) == 0
    migration_id = capsys.readouterr().out.strip()
    assert main(["watch", migration_id]) == 0
    assert "web1 runs on host1" in capsys.readouterr().out


def test_migrations_are_listed_and_shown(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The page of one move has its journal and the frozen window."""
    fleet.run("web1")
    assert main(["move", "web1", "--to", "host2", "-q"]) == 0
    assert main(["migrations"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert "web1       host1  host2  succeeded" in row
    assert main(["migrations", "show", row.split()[0]]) == 0
    page = capsys.readouterr().out
    assert "  precheck   started" in page
    assert "frozen window:" in page
    assert "held" in page
    assert main(["migrations", "show", row.split()[0], "--timeline"]) == 0
    assert "coordinator > target" in capsys.readouterr().out
    assert main(["migrations", "show", row.split()[0], "--timeline", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]
    assert main(["migrations", "show", row.split()[0], "--format", "chrome"]) == 0
    assert json.loads(capsys.readouterr().out)["traceEvents"]
    assert main(["migrations", "show", row.split()[0], "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["journal"]
    assert main(["migrations", "list", "-n", "1", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert main(["cancel", row.split()[0]]) == 1
    assert "too late" in capsys.readouterr().err


# ---------------------------------------------------------------- completion


def test_names_are_completed(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Containers, hosts and images from the fleet; options and commands from the parsers."""
    fleet.run("web1")
    for words, expected in (
        (["mo"], ["move"]),
        (["move", "w"], ["web1"]),
        (["move", "web1", "--to", ""], ["host1", "host2"]),
        (["run", "-d", "--host", "host2", "b"], ["base"]),
        (["move", "web1", "--mode", "st"], ["stop-and-copy"]),
        (["move", "--dr"], ["--dry-run"]),
        (["image", "i"], ["import", "inspect"]),
        (["stop", "web1", "we"], ["web1"]),
        (["exec", "-it", "w"], ["web1"]),
    ):
        assert main(["__complete", "--", *words]) == 0
        assert capsys.readouterr().out.split() == expected, words
