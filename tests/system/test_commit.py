"""What a container has changed: shown by diff, made an image by commit."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from agent.build import commit as commits
from agent.build.commit import Committer, Wanted
from agent.engine import adjust, stillness
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec
from agent.engine.state import State
from agent.errors import AgentError, InvalidArgument, WrongState
from agent.storage import manifest
from tests.system.engine_host import EngineHost, until

pytestmark = pytest.mark.system


def running(host: EngineHost, engine: Engine, script: str = "", **changes: object) -> ContainerSpec:
    """A container that has run `script` and goes on."""
    spec = host.spec(f"{script}\ntouch /ready; exec sleep 1000", **changes)
    engine.create(spec, 1)
    engine.start(spec.id)
    until(lambda: (engine.store.directory(spec.id) / "layer/upper/ready").exists())
    return spec


def diff(host: EngineHost, engine: Engine, spec: ContainerSpec) -> list[str]:
    found = Committer(engine, host.images).diff(spec.id)
    return [f"{one.kind} {one.path.decode()}" for one in found]


def test_a_fresh_container_has_changed_nothing(host: EngineHost, engine: Engine) -> None:
    """What the engine itself writes for it (/etc/hosts, mount points) is no change of the container's."""
    spec = host.spec("sleep 1000")
    engine.create(spec, 1)
    assert diff(host, engine, spec) == []
    engine.start(spec.id)
    assert diff(host, engine, spec) == []


def test_the_letters_are_dockers(host: EngineHost, engine: Engine) -> None:
    """Added, changed, deleted; directories that lead to a change; one that was made anew over an old one; what is only touched."""
    spec = running(
        host,
        engine,
        """
        echo x >>/etc/passwd; rm /etc/group
        mkdir -p /new/deep; echo x >/new/deep/f
        rm /bin/zcat; ln -s x /link
        chmod 700 /tmp; echo x >/tmp/gone; rm /tmp/gone
        """,
    )
    assert diff(host, engine, spec) == [
        "C /bin", "D /bin/zcat", "C /etc", "D /etc/group", "C /etc/passwd", "A /link",
        "A /new", "A /new/deep", "A /new/deep/f", "A /ready", "C /tmp",
    ]  # fmt: skip


def test_what_a_new_directory_hides_is_deleted(host: EngineHost, engine: Engine) -> None:
    """rm -r and mkdir: an opaque directory in the overlay."""
    spec = running(host, engine, "/bin/busybox mv /etc/passwd /p; rm -r /etc; mkdir /etc; mv /p /etc/passwd")
    assert diff(host, engine, spec) == ["C /etc", "D /etc/group", "C /etc/passwd", "A /ready"]


def test_an_image_of_a_container_runs_with_what_it_had_changed(host: EngineHost, engine: Engine) -> None:
    """Files, deletions and ids; its command, environment and user; author, message and history; the name."""
    spec = running(
        host,
        engine,
        "rm /etc/group; mkdir /d; echo made >/d/f; chown 1000:7 /d/f",
        env=("A=1", "PATH=/bin"),
        labels={"l": "v"},
    )
    wanted = Wanted(
        name="made:1",
        author="Ann",
        message="it works",
        changes=('CMD ["/bin/cat", "/d/f"]', "ENV B=2\nEXPOSE 80", "WORKDIR /d"),
    )
    image = Committer(engine, host.images).commit(spec.id, wanted)
    assert (image.name, image.layers[:-1]) == ("made:1", spec.layers)
    assert not engine.events.lacks(spec.id, "commit", engine.inspect(spec.id).started_unix_ns)
    assert image.config.cmd == ("/bin/cat", "/d/f")
    assert image.config.env == ("A=1", "PATH=/bin", "B=2")
    assert (image.config.exposed_ports, image.config.working_dir, image.config.labels) == (
        ("80/tcp",),
        "/d",
        {"l": "v"},
    )
    document = manifest.read(image.document)
    assert (document.author, document.history[-1].comment, document.history[-1].author) == ("Ann", "it works", "Ann")
    assert json.loads(image.document)["config"]["Cmd"] == ["/bin/cat", "/d/f"]
    layer = host.images.layer_path(image.layers[-1])
    assert sorted(one.name for one in layer.iterdir()) == ["d", "etc", "ready"]
    assert (layer / "d/f").stat().st_uid == 1000
    assert not (layer / "etc/hosts").exists()
    child = host.spec("cat /d/f; ls /etc", layers=image.layers, image_digest=image.digest)
    engine.create(child, 1)
    engine.start(child.id)
    engine.wait(child.id)
    assert b"".join(entry.data for entry in engine.logs(child.id)).split() == [
        b"made", b"hostname", b"hosts", b"passwd", b"resolv.conf",
    ]  # fmt: skip


def test_a_container_without_changes_gives_no_layer(host: EngineHost, engine: Engine) -> None:
    """Its image has the base's layers, and one more step in its history."""
    spec = host.spec("true")
    engine.create(spec, 1)
    image = Committer(engine, host.images).commit(spec.id, Wanted())
    assert image.layers == spec.layers
    assert manifest.read(image.document).history[-1].empty


def test_what_is_no_configuration_is_refused_before_any_work(host: EngineHost, engine: Engine) -> None:
    """RUN in --change, a wrong name."""
    spec = running(host, engine)
    for wanted in (Wanted(changes=("RUN true",)), Wanted(name="Not A Name"), Wanted(changes=("CMD [",))):
        if wanted.changes == ("CMD [",):
            continue  # a shell form, as Docker takes it
        with pytest.raises(InvalidArgument):
            Committer(engine, host.images).commit(spec.id, wanted)
    assert engine.inspect(spec.id).state == State.RUNNING


@pytest.mark.parametrize("before", [State.RUNNING, State.PAUSED])
def test_it_stands_still_while_it_is_read_and_is_afterwards_as_it_was(
    host: EngineHost, engine: Engine, before: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the reading fails."""
    spec = running(host, engine)
    if before == State.PAUSED:
        adjust.pause(engine, spec.id)
    seen: list[State] = []

    def write(*_: object, **__: object) -> bool:
        seen.append(engine.inspect(spec.id).state)
        raise AgentError("no")

    monkeypatch.setattr(commits.Committer, "_write", write)
    with pytest.raises(AgentError, match="no"):
        Committer(engine, host.images).commit(spec.id, Wanted())
    assert seen == [State.PAUSED]
    assert engine.inspect(spec.id).state == before
    with pytest.raises(AgentError, match="no"):
        Committer(engine, host.images).commit(spec.id, Wanted(running=True))
    assert seen[1:] == [before]
    if before == State.PAUSED:
        adjust.unpause(engine, spec.id)


def test_a_dead_agent_leaves_no_container_standing_still(host: EngineHost, engine: Engine) -> None:
    """The next one lets it go on; a container that somebody has paused stays so."""
    spec, paused = running(host, engine), running(host, engine)
    adjust.pause(engine, paused.id)
    held = stillness.still(engine, spec.id)
    held.__enter__()  # and never leaves it
    assert engine.inspect(spec.id).state == State.PAUSED
    with engine.store.lock(paused.id), stillness.still(engine, paused.id):
        pass
    stillness.recover(engine)
    assert engine.inspect(spec.id).state == State.RUNNING
    assert engine.inspect(paused.id).state == State.PAUSED
    assert not list(engine.store.directory(spec.id).glob("standing*"))
    adjust.unpause(engine, paused.id)
    del held


def test_a_container_that_runs_on_is_committed_though_its_files_come_and_go(host: EngineHost, engine: Engine) -> None:
    """--pause=false: what is gone when its turn comes is left out, and the image can be used."""
    script = """
        mkdir /w; echo stays >/w/stays
        (while :; do for i in 1 2 3 4 5 6 7 8; do
            mkdir -p /w/d$i; echo $i >/w/d$i/f; dd if=/dev/zero of=/w/z$i bs=64k count=8; : >/w/z$i
            rm -r /w/d$i /w/z$i; ln -s x /w/d$i; rm /w/d$i
        done; done) &
    """
    spec = running(host, engine, script)
    for _ in range(5):
        image = Committer(engine, host.images).commit(spec.id, Wanted(running=True))
        assert (host.images.layer_path(image.layers[-1]) / "w/stays").read_text() == "stays\n"
        assert "A /w/stays" in diff(host, engine, spec)
    assert engine.inspect(spec.id).state == State.RUNNING


def test_others_wait_for_a_commit(host: EngineHost, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause of somebody else's meanwhile is not undone by its end."""
    spec = running(host, engine)
    reading, go = threading.Event(), threading.Event()
    write = commits.Committer._write

    def slow(self: Committer, spec: ContainerSpec, archive: Path, *, steady: bool) -> bool:
        reading.set()
        assert go.wait(30)
        return write(self, spec, archive, steady=steady)

    monkeypatch.setattr(commits.Committer, "_write", slow)
    committing = threading.Thread(target=Committer(engine, host.images).commit, args=(spec.id, Wanted()))
    committing.start()
    assert reading.wait(30)
    pausing = threading.Thread(target=adjust.pause, args=(engine, spec.id))
    pausing.start()
    time.sleep(0.2)
    go.set()
    for thread in (committing, pausing):
        thread.join()
    assert engine.inspect(spec.id).state == State.PAUSED
    adjust.unpause(engine, spec.id)


def test_diff_and_commit_are_refused_during_a_move(host: EngineHost, engine: Engine) -> None:
    """With the move's id."""
    spec = running(host, engine)
    engine.roles.begin(spec.id, "m1", "source", 1)
    committer = Committer(engine, host.images)
    for act in (lambda: committer.diff(spec.id), lambda: committer.commit(spec.id, Wanted())):
        with pytest.raises(WrongState, match="move m1"):
            act()
    engine.roles.end(spec.id, "m1", 1)
