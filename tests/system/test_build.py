"""Builds on a real store and a real engine: files, commands, cache, what is left."""

from __future__ import annotations

import hashlib
import http.server
import io
import socket
import stat
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agent.build.builds import Builder
from agent.build.events import BuildCancelled, Event, Request, Said, StepBegins, StepEnds, StepFailed
from agent.engine.container import Engine
from agent.engine.spec import IdRange, Network
from agent.errors import AgentError, InvalidArgument
from agent.linux import mounts
from agent.storage import manifest, registry
from agent.storage.images import Image
from agent.storage.skopeo import Access
from tests.system import registry_host
from tests.system.engine_host import IMAGE, EngineHost, engine_host

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

ADDRESS = Network(address="10.77.9.9/16", mac="02:42:0a:4d:09:09", gateway="10.77.0.1")


class Place:
    """A host with an engine and a builder."""

    def __init__(self, host: EngineHost, engine: Engine) -> None:
        self.host, self.engine = host, engine
        self.builder = Builder(host.config, host.images, engine)
        self.events: list[Event] = []

    def build(self, dockerfile: str, context: dict[str, bytes | str] | None = None, **options: object) -> Image:
        """`context`: path -> contents, or "-> target" for a link, or a tar made by hand under the name ""."""
        options.setdefault("tags", ("built",))
        request = Request(dockerfile=dockerfile, ids=IdRange(base=5_000_000), address=ADDRESS, **options)  # type: ignore[arg-type]
        build = self.builder.build(request, access=Access(unverified=True))
        self.events = []
        for event in build.run(iter([context_tar(context or {})])):
            self.events.append(event)
        assert build.image is not None
        return build.image

    def files(self, image: Image) -> dict[str, tarfile.TarInfo]:
        """Members of the image's top layer."""
        file, _ = self.host.images.open_layer(image.layers[-1])
        with file, tarfile.open(fileobj=file) as tar:
            return {member.name: member for member in tar.getmembers()}

    def read(self, image: Image, path: str) -> str:
        for layer in reversed(image.layers):
            file = self.host.images.layer_path(layer) / path
            if file.exists():
                return file.read_text()
        raise FileNotFoundError(path)

    @property
    def cached(self) -> list[bool]:
        return [event.cached for event in self.events if isinstance(event, StepEnds)]

    @property
    def output(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, Said)).decode()

    @property
    def steps(self) -> list[str]:
        return [f"{e.number}/{e.total} {e.text}" for e in self.events if isinstance(e, StepBegins)]


def context_tar(files: dict[str, bytes | str], mtime: int = 1_000_000_000) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.mode = mtime, 0o755 if name.endswith(".sh") else 0o644
            if isinstance(data, str) and data.startswith("-> "):
                entry.type, entry.linkname = tarfile.SYMTYPE, data.removeprefix("-> ")
                tar.addfile(entry)
                continue
            raw = data.encode() if isinstance(data, str) else data
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    with engine_host() as host:
        yield host


@pytest.fixture
def place(host: EngineHost) -> Iterator[Place]:
    engine = host.engine()
    place = Place(host, engine)
    try:
        yield place
        assert engine.list() == [], "a build left a container"
        assert host.mounts() == [], "a build left a mount"
        assert list((host.config.images_dir / "tmp").iterdir()) == []
        assert list((host.config.images_dir / "holds").iterdir()) == []
        assert host.links() & {link for link in host.links() if link.startswith("vm")} == set()
    finally:
        engine.close()


def test_files_and_config_without_running_anything(place: Place) -> None:
    """COPY, WORKDIR, ENV, CMD and the rest make the image that they say, with no container."""
    image = place.build(
        f"FROM {IMAGE}\n"
        "MAINTAINER me\nARG V=1\nENV A=$V B='x y'\nWORKDIR /srv\nWORKDIR app\n"
        "COPY --chown=worker --chmod=640 *.txt conf/\nCOPY tree .\nADD run.sh /bin/run\n"
        "EXPOSE 80 53/udp\nVOLUME /data\nLABEL a=b\nUSER worker\nSTOPSIGNAL SIGQUIT\n"
        "HEALTHCHECK --interval=1m30s --retries=2 CMD true\n"
        'ENTRYPOINT ["/bin/run"]\nCMD ["x"]\nONBUILD RUN x\nSHELL ["/bin/sh", "-ec"]\n',
        {"a.txt": "A", "b.txt": "B", "c.md": "C", "tree/d/e": "E", "tree/l": "-> d/e", "run.sh": "#!/bin/sh\n"},
        build_args={"V": "2"},
    )
    config = image.config
    assert config.env == ("A=2", "B=x y")
    assert (config.working_dir, config.user, config.stop_signal) == ("/srv/app", "worker", "SIGQUIT")
    assert (config.entrypoint, config.cmd) == (("/bin/run",), ("x",))
    assert (config.exposed_ports, config.volumes, config.labels) == (("53/udp", "80/tcp"), ("/data",), {"a": "b"})
    assert config.healthcheck is not None
    assert (config.healthcheck.test, config.healthcheck.interval_ns) == (("CMD-SHELL", "true"), 90 * 10**9)
    assert (config.on_build, config.shell) == (("RUN x",), ("/bin/sh", "-ec"))
    document = manifest.read(image.document)
    assert document.author == "me"
    assert [step.created_by for step in document.history][-1] == 'SHELL ["/bin/sh", "-ec"]'
    conf = place.host.images.layer_path(image.layers[3]) / "srv/app/conf"
    assert sorted(path.name for path in conf.iterdir()) == ["a.txt", "b.txt"]
    status = (conf / "a.txt").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1000, 0o640)
    assert place.read(image, "srv/app/d/e") == "E"
    assert place.read(image, "srv/app/l") == "E"
    run = place.files(image)["bin/run"]
    assert (run.mode, run.uid, run.mtime) == (0o755, 0, 1_000_000_000)
    assert place.output == ""


def test_parents_excludes_and_symbolic_modes(place: Place) -> None:
    """--parents keeps the way to a source, --exclude leaves out, --chmod takes letters, and one file can be renamed."""
    image = place.build(
        "FROM scratch\nCOPY --parents a/b/c.txt a/d /p/\nCOPY --exclude=*.md --exclude=e a/d /q\n"
        "COPY --chmod=u=rwX,go= a/b /r\nCOPY a/b/c.txt /name\nCOPY none* /s/\n",
        {"a/b/c.txt": "C", "a/d/x": "X", "a/d/y.md": "Y", "a/d/e/z": "Z"},
    )
    found = {
        str(path.relative_to(layer)): path
        for layer in map(place.host.images.layer_path, image.layers)
        for path in layer.rglob("*")
    }
    assert sorted(name for name, path in found.items() if path.is_file()) == [
        "name", "p/a/b/c.txt", "p/a/d/e/z", "p/a/d/x", "p/a/d/y.md", "q/x", "r/c.txt",
    ]  # fmt: skip
    assert (stat.S_IMODE(found["r"].stat().st_mode), stat.S_IMODE(found["r/c.txt"].stat().st_mode)) == (0o700, 0o600)


def test_directories_on_the_way_keep_their_look(place: Place) -> None:
    """A file put into /tmp and /root leaves both as they were, and the layer says so."""
    image = place.build(f"FROM {IMAGE}\nCOPY a /tmp/\nCOPY a /root/x/\n", {"a": "A"})
    assert place.files(image)["root"].mode == 0o700
    below = place.host.images.layer_path(image.layers[-2])
    assert stat.S_IMODE((below / "tmp").stat().st_mode) == 0o1777


def test_run_makes_a_layer_of_what_changed(place: Place) -> None:
    """New, changed and deleted files, hard links, owners and modes; nothing that the engine itself wrote."""
    image = place.build(
        f"FROM {IMAGE}\nENV WHO=me\nARG SECRET=arg\nWORKDIR /work\n"
        "RUN echo $WHO $SECRET $HOME $(pwd) > out && ln out link && chown worker:worker out && chmod 600 out\n"
        "RUN rm /etc/group && rm -r /root && mkdir -p /root/new && ls /work\n"
    )
    assert place.output == "link\nout\n"
    members = place.files(image)
    assert set(members) == {"etc", "etc/.wh.group", "root", "root/.wh..wh..opq", "root/new"}
    first = place.host.images.layer_path(image.layers[-2])
    assert (first / "work/out").read_text() == "me arg /root /work\n"
    assert (first / "work/out").stat().st_nlink == 2
    assert (first / "work/out").stat().st_uid == 1000
    assert not (first / "etc").exists()
    assert not (first / "proc").exists()


def test_a_command_that_fails_shows_its_line_and_its_words(place: Place) -> None:
    """The error has file, line, exit status and the last output; the image is not named; the steps before are kept."""
    text = f"FROM {IMAGE}\nRUN echo one\n\nRUN echo two; echo bad >&2; \\\n  exit 7\n"
    with pytest.raises(StepFailed) as caught:
        place.build(text, tags=("never",), file="sub/Dockerfile")
    assert caught.value.message.startswith("sub/Dockerfile:4: RUN echo two;")
    assert caught.value.message.endswith("exit status 7")
    assert caught.value.detail.splitlines() == ["4 | RUN echo two; echo bad >&2; \\", "two", "bad"]
    with pytest.raises(AgentError, match="no image 'never'"):
        place.host.images.get("never")
    with pytest.raises(StepFailed):
        place.build(text)
    assert place.cached == [False, True]


def test_a_program_that_is_not_there(place: Place) -> None:
    """The shell that the image lacks is an error with the line."""
    with pytest.raises(AgentError, match=r"Dockerfile:2: exec: .*/bin/nothing"):
        place.build(f'FROM {IMAGE}\nRUN ["/bin/nothing"]\n')


def test_the_second_build_does_nothing(place: Place) -> None:
    """Everything comes from the cache, times of files do not matter, and the image is the same one."""
    text = f"FROM {IMAGE}\nWORKDIR /w\nCOPY a b /w/\nRUN cat a b > c\nCMD x\n"
    first = place.build(text, {"a": "1", "b": "2"})
    assert place.cached == [False, False, False, False, False]
    again = place.build(text, {"a": "1", "b": "2"})
    assert place.cached == [False, True, True, True, False]
    assert again.digest == first.digest
    other = context_tar({"a": "1", "b": "2"}, mtime=5)
    build = place.builder.build(Request(dockerfile=text, ids=IdRange(base=5_000_000), address=ADDRESS), access=Access())
    events = list(build.run(iter([other])))
    assert [event.cached for event in events if isinstance(event, StepEnds)] == [False, True, True, True, False]


def test_what_makes_a_step_run_again(place: Place) -> None:
    """Other bytes, another mode, another ENV before, --no-cache: yes. A label, another file: no."""
    text = "FROM {}\n{}\nCOPY a /a\nRUN echo $X\n"

    def cached(before: str = "ENV X=1", files: dict[str, bytes | str] | None = None, **options: object) -> list[bool]:
        place.build(text.format(IMAGE, before), files or {"a": "1"}, **options)
        return place.cached[2:]

    assert cached() == [False, False]
    assert cached() == [True, True]
    assert cached(files={"a": "1", "other": "x"}) == [True, True]
    assert cached("ENV X=1\nLABEL v=2")[1:] == [True, True]
    assert cached("ENV X=2") == [True, False]
    assert cached(files={"a": "2"}) == [False, False]
    assert cached(no_cache=True) == [False, False]


def test_stages(place: Place) -> None:
    """Files go from stage to stage and from images, by name, number and image; what is not needed does not run."""
    text = (
        f"FROM {IMAGE} AS base\nRUN echo hello > /out && chown 7:8 /out\n"
        f"FROM {IMAGE} AS unused\nRUN exit 1\n"
        "FROM base AS more\nRUN echo more >> /out\n"
        f"FROM scratch\nCOPY --from=base /out /a/\nCOPY --from=2 /out /b/\nCOPY --from={IMAGE} /etc/passwd /p\n"
    )
    image = place.build(text)
    assert [place.read(image, name) for name in ("a/out", "b/out")] == ["hello\n", "hello\nmore\n"]
    assert (place.host.images.layer_path(image.layers[0]) / "a/out").stat().st_uid == 7
    assert len(image.layers) == 3
    assert place.read(image, "p").startswith("root:")
    assert place.steps[0] == f"1/8 FROM {IMAGE} AS base"
    assert len(place.build(text, target="more").layers) == 3


def test_heredocs(place: Place) -> None:
    """Files from here-documents, with and without variables, and scripts of RUN."""
    image = place.build(
        f"FROM {IMAGE}\nENV N=1\nCOPY <<a <<'b' /d/\nn=$N\na\nn=$N\nb\n"
        "RUN <<EOF\necho $((N + 1)) > /run1\nsleep 0\nEOF\n"
        "RUN cat <<EOF > /run2 && echo ok\nx $N\nEOF\n"
    )
    found = [place.read(image, name) for name in ("d/a", "d/b", "run1", "run2")]
    assert found == ["n=1\n", "n=$N\n", "2\n", "x 1\n"]
    assert place.output == "ok\n"


def test_add_unpacks_archives(place: Place) -> None:
    """Tars, whatever their compression, are unpacked with their owners; COPY copies them; a gzip of something else too."""
    plain = context_tar({"inner/f": "F", ".wh.x": "kept"})
    packed = {
        "a.tar": plain,
        "b.tgz": subprocess.run(["gzip"], input=plain, capture_output=True, check=True).stdout,
        "c.txz": subprocess.run(["xz"], input=plain, capture_output=True, check=True).stdout,
        "d.tbz": subprocess.run(["bzip2"], input=plain, capture_output=True, check=True).stdout,
        "e.gz": subprocess.run(["gzip"], input=b"text", capture_output=True, check=True).stdout,
    }
    lines = "".join(f"ADD {name} /{name[0]}\n" for name in packed)
    image = place.build(f"FROM scratch\n{lines}COPY a.tar /raw.tar\n", dict(packed))
    for name in "abcd":
        assert place.read(image, f"{name}/inner/f") == "F"
    layer = place.host.images.layer_path(image.layers[-1])
    assert hashlib.sha256((layer / "raw.tar").read_bytes()).digest() == hashlib.sha256(plain).digest()
    assert (place.host.images.layer_path(image.layers[4]) / "e").read_bytes() == packed["e.gz"]


@pytest.mark.parametrize(
    ("source", "target"),
    [("link", "/x"), ("dir/link", "/x"), ("up", "/x"), ("inner/../../../etc/hostname", "/x")],
)
def test_links_in_the_context_do_not_lead_out(place: Place, source: str, target: str) -> None:
    """Whatever a context's links point at on the host, a build cannot read it."""
    files: dict[str, bytes | str] = {
        "link": "-> /etc/hostname",
        "dir": "-> /etc",
        "up": "-> ../../../../../../../../etc/hostname",
        "inner/x": "",
    }
    with pytest.raises(InvalidArgument, match="is not there"):
        place.build(f"FROM scratch\nCOPY {source} {target}\n", files)


def test_links_in_the_image_do_not_lead_out(place: Place, tmp_path: Path) -> None:
    """A destination behind a link of the image stays in the image, and a linked file is replaced, not followed."""
    victim = tmp_path / "victim"
    victim.write_text("safe")
    image = place.build(
        f"FROM {IMAGE}\nRUN ln -s {tmp_path} /out && ln -s {victim} /file && mkdir -p {tmp_path}\n"
        "COPY a /out/\nCOPY a /file\n",
        {"a": "A"},
    )
    assert victim.read_text() == "safe"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim"]
    assert place.read(image, f"{tmp_path}/a".removeprefix("/")) == "A"
    assert place.files(image)["file"].isreg()


def test_mistakes_name_the_line(place: Place) -> None:
    """A missing file, a user that the image lacks, a directory in the way, a base that is not there."""
    for text, message in (
        ("COPY nothing /x", r"Dockerfile:2: 'nothing' is not there"),
        ("COPY --chown=nobody a /x", r"Dockerfile:2: --chown=nobody: 'nobody' is not in the image's /etc/passwd"),
        ("COPY a /etc/passwd/x", r"Dockerfile:2: /etc/passwd is no directory"),
        ("COPY --chmod=9 a /x", r"Dockerfile:2: --chmod takes a mode"),
        ("COPY --from=no/such /a /x", r"Dockerfile:2: no image 'no/such'"),
    ):
        with pytest.raises(AgentError, match=message) as caught:
            place.build(f"FROM {IMAGE}\n{text}\n", {"a": "A"})
        assert caught.value.detail == f"2 | {text}"
    with pytest.raises(AgentError, match=r"Dockerfile:1: no image 'absent' on this host, and it cannot be pulled"):
        place.build("FROM absent\n")


def test_triggers_of_the_base(place: Place) -> None:
    """ONBUILD waits for the next build and is gone after it."""
    base = place.build(f"FROM {IMAGE}\nONBUILD COPY a /a\nONBUILD RUN cat /a\n", tags=("base",))
    assert base.config.on_build == ("COPY a /a", "RUN cat /a")
    image = place.build("FROM base\nCMD x\n", {"a": "trigger"})
    assert place.output == "trigger"
    assert image.config.on_build == ()
    assert place.steps[1] == "1/2 ONBUILD COPY a /a"


def test_a_build_that_is_cancelled_leaves_nothing(place: Place) -> None:
    """Its command is killed at once, and the container goes."""
    request = Request(
        dockerfile=f"FROM {IMAGE}\nRUN echo now; sleep 100\n", ids=IdRange(base=5_000_000), address=ADDRESS
    )
    build = place.builder.build(request, access=Access())
    with pytest.raises(BuildCancelled):
        for event in build.run(iter([context_tar({})])):
            if isinstance(event, Said):
                threading.Thread(target=build.cancel).start()
    assert build.image is None


def test_a_new_agent_clears_what_a_dead_one_left(place: Place) -> None:
    """An overlay from the moment between mounting and letting go, and secrets of a command."""
    builds = place.host.config.run_dir / "builds"
    (builds / "dead").mkdir(parents=True)
    mounts.mount("build", builds / "dead", "tmpfs")
    (builds / "dead.private").mkdir()
    (builds / "dead.private/secret-0").write_text("hidden")
    place.builder.recover()
    assert list(builds.iterdir()) == []


def test_the_network_of_commands(place: Place) -> None:
    """On the bridge with the given address, or, asked so, with nothing but lo."""
    place.build(f"FROM {IMAGE}\nRUN ip -o -4 address show dev eth0\n")
    assert "10.77.9.9/16" in place.output
    place.build(f"FROM {IMAGE}\nRUN --network=none ip -o link | cut -d: -f2\n")
    assert place.output == " lo\n"


def test_proxies_reach_commands_and_nothing_else(place: Place) -> None:
    """HTTP_PROXY needs no ARG, and is neither in the image nor in the cache's key."""
    text = f"FROM {IMAGE}\nRUN echo $HTTP_PROXY $OTHER.\n"
    image = place.build(text, build_args={"HTTP_PROXY": "http://p", "OTHER": "x"})
    assert place.output == "http://p .\n"
    assert "http://p" not in image.document
    place.build(text, build_args={"HTTP_PROXY": "http://q"})
    assert place.cached[1]


def test_scripts_of_here_documents(place: Place) -> None:
    """One that begins with #! is run as a program, and nothing of it is in the layer."""
    image = place.build(f"FROM {IMAGE}\nRUN <<EOF\n#!/bin/busybox sh\necho $0 > /out\nEOF\n")
    assert place.read(image, "out") == "/run/build-scripts/EOF\n"
    assert set(place.files(image)) == {"out"}


def test_cache_mounts(place: Place) -> None:
    """What is written there is there again in the next build, owned by the container's root, and in no layer."""
    text = "FROM {}\nRUN --mount=type=cache,target=/c/d,uid=1000,mode=750 stat -c '%u %a' /c/d; cat /c/d/f; date +%N{} >> /c/d/f\n"
    image = place.build(text.format(IMAGE, "1"))
    assert place.output.startswith("1000 750\n")
    assert len(image.layers) == 1, "only a mount point was made"
    place.build(text.format(IMAGE, "2"))
    assert place.output.count("1\n") == 1
    (directory,) = place.builder.cache.mounts.iterdir()
    assert (directory / "f").stat().st_uid == 0
    place.builder.cache.forget(older_than_s=0)
    place.build(text.format(IMAGE, "1"))
    assert "can't open" in place.output


def test_locked_cache_mounts_take_turns(place: Place) -> None:
    """Two builds that say sharing=locked never write at once; a private one gets a directory of its own."""
    text = (
        "FROM {}\nRUN --mount=type=cache,target=/c,sharing={},id=turn"
        " if [ -e /c/busy ]; then echo both; fi; touch /c/busy; sleep 1; rm /c/busy; echo {}\n"
    )
    outputs: list[str] = []

    def build(sharing: str, number: int) -> None:
        request = Request(
            dockerfile=text.format(IMAGE, sharing, number),
            ids=IdRange(base=5_000_000 + number * 65536),
            address=replace(ADDRESS, address=f"10.77.9.{number}/16", mac=f"02:42:0a:4d:09:0{number}"),
        )
        said = b""
        for event in place.builder.build(request, access=Access()).run(iter([context_tar({})])):
            said += event.data if isinstance(event, Said) else b""
        outputs.append(said.decode())

    for sharing in ("locked", "private"):
        outputs.clear()
        threads = [threading.Thread(target=build, args=(sharing, number)) for number in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outputs) == ["1\n", "2\n"], sharing


def test_bind_mounts(place: Place) -> None:
    """From the context, a stage and an image; read-only unless asked; what is written goes; contents count for the cache."""
    text = (
        f"FROM {IMAGE} AS s\nRUN echo stage > /f && chown 5:6 /f\nFROM {IMAGE}\n"
        "RUN --mount=type=bind,target=/ctx --mount=from=s,source=/f,target=/f"
        f" --mount=from={IMAGE},source=/etc,target=/e,rw"
        " cat /ctx/a /f /ctx/l; stat -c %u:%g /f; touch /ctx/x || echo read-only; echo x > /e/passwd; ls -l /ctx/a > /out\n"
    )
    image = place.build(text, {"a": "A\n", "l": "-> /etc/group"})
    assert place.output.splitlines()[:3] == ["A", "stage", "root:x:0:"]
    assert "5:6\n" in place.output
    assert "read-only" in place.output
    assert set(place.files(image)) == {"out"}
    assert place.read(image, "etc/passwd").startswith("root:")
    place.build(text, {"a": "A\n", "l": "-> /etc/group"})
    assert place.cached[-1]
    place.build(text, {"a": "B\n", "l": "-> /etc/group"})
    assert not place.cached[-1]


def test_secrets(place: Place) -> None:
    """A file, or a variable, of the one command; in no layer, no history, no key; missing ones only matter if required."""
    text = (
        f"FROM {IMAGE}\nUSER worker\n"
        "RUN --mount=type=secret,id=t,uid=1000 --mount=type=secret,id=e,env=TOKEN --mount=type=secret,id=none"
        " cat /run/secrets/t; echo $TOKEN; stat -c '%u %a' /run/secrets/t\nUSER 0\nRUN ls /run/secrets 2>&1; true\n"
    )
    secrets = {"t": b"hidden-file\n", "e": b"hidden-variable"}
    image = place.build(text, secrets=secrets)
    assert place.output.splitlines()[:3] == ["hidden-file", "hidden-variable", "1000 400"]
    assert "No such file" in place.output
    assert "hidden" not in image.document
    store = place.host.directory
    found = subprocess.run(["grep", "-rl", "hidden-", str(store)], capture_output=True, text=True, check=False).stdout
    assert found == ""
    place.build(text, secrets={"t": b"other"})
    assert place.cached[-3:] == [True, False, True]
    with pytest.raises(InvalidArgument, match="the secret x is required"):
        place.build(f"FROM {IMAGE}\nRUN --mount=type=secret,id=x,required true\n")


def test_tmpfs_mounts(place: Place) -> None:
    """Memory of the size that was asked, gone with the command."""
    image = place.build(
        f"FROM {IMAGE}\nRUN --mount=type=tmpfs,target=/t/u,size=1m"
        " df -k /t/u | tail -1; dd if=/dev/zero of=/t/u/f bs=1M count=2 2>/dev/null || echo full\n"
    )
    assert place.output.split()[:2] == ["tmpfs", "1024"]
    assert "full" in place.output
    assert len(image.layers) == 1


def test_a_mount_behind_a_link_stays_in_the_image(place: Place, tmp_path: Path) -> None:
    """The target of a mount is found with the image's root as "/"."""
    image = place.build(
        f"FROM {IMAGE}\nRUN ln -s {tmp_path} /out && mkdir -p {tmp_path}\n"
        "RUN --mount=type=cache,target=/out/c touch /out/c/f /out/g; ls /out\n"
    )
    assert place.output == "c\ng\n"
    assert list(tmp_path.iterdir()) == []
    assert place.read(image, f"{tmp_path}/g".removeprefix("/")) == ""


def test_the_network_of_the_host(place: Place) -> None:
    """With --network host a command reaches what listens on the host's loopback, has its resolv.conf and an empty /sys."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = f"FROM {IMAGE}\nRUN echo hi | nc 127.0.0.1 {port}; ls /sys; cat /etc/resolv.conf; id -u\n"
        heard: list[bytes] = []

        def hear() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(10))

        listener = threading.Thread(target=hear)
        listener.start()
        # The test's thread lives in the network namespace of the test's host, and so does what it starts.
        image = place.build(text, network="host")
        listener.join(5)
        assert heard == [b"hi\n"]
    assert place.output == Path("/etc/resolv.conf").read_text() + "0\n"
    assert len(image.layers) == 1


def test_bases_come_from_a_registry(place: Place, tmp_path: Path) -> None:
    """A base that is not here is pulled; one that is here is used as it is, unless --pull asks for the newest."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with registry_host.registry(tmp_path / "registry") as there:
        name = f"{there.name}/base:1"

        def push(label: str) -> None:
            image = place.build(f"FROM {IMAGE}\nLABEL v={label}\nRUN echo {label} > /v\n", tags=(name,))
            registry.push(place.host.images, image, name, Access(unverified=True), lambda _progress: None)

        push("1")
        place.host.images.remove(name, force=True)
        assert place.build(f"FROM {name}\n").config.labels == {"v": "1"}
        push("2")
        place.host.images.remove(name, force=True)
        place.build(f"FROM {IMAGE}\nLABEL v=mine\n", tags=(name,))
        assert place.build(f"FROM {name}\n").config.labels == {"v": "mine"}
        image = place.build(f"FROM {name}\nCOPY --from={there.name}/base:1 /v /w\n", pull=True)
        assert (image.config.labels, place.read(image, "w")) == ({"v": "2"}, "2\n")


def test_add_fetches_urls(place: Place, tmp_path: Path) -> None:
    """Over http, by the agent, mode 600, not unpacked; the contents count for the cache; a wrong checksum is an error."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (tmp_path / "a.tar").write_bytes(context_tar({"f": "F"}))
    right = hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()
    handler = partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.tar"
        image = place.build(f"FROM scratch\nADD --checksum=sha256:{right} {url} /d/\n")
        member = place.files(image)["d/a.tar"]
        assert (member.mode, member.uid) == (0o600, 0)
        assert place.read(place.build(f"FROM scratch\nADD --unpack=true {url} /d/\n"), "d/f") == "F"
        place.build(f"FROM scratch\nADD --checksum=sha256:{right} {url} /d/\n")
        assert place.cached[-1]
        (tmp_path / "a.tar").write_bytes(b"other")
        with pytest.raises(AgentError, match=f"Dockerfile:2: {url} has sha256:.*, not sha256:{right}"):
            place.build(f"FROM scratch\nADD --checksum=sha256:{right} {url} /d/\n")
        with pytest.raises(AgentError, match=r"Dockerfile:2: cannot fetch .*404"):
            place.build(f"FROM scratch\nADD {url}x /d/\n")
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""
