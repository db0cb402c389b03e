"""Builds through the coordinator: which host, which address and ids, what comes back, who goes away."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from migrate.cli.main import main
from migrate.errors import MigrateError, NotFound
from migrate.records import Build, BuildStep, BuildWarning, Output
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FakeFleet]:
    world = FakeFleet(tmp_path)
    yield world
    world.close()


def warning(world: FakeFleet, **options: object) -> str:
    """What the fake host says that it got."""
    building = world.client.build(Build(dockerfile="FROM x", tags=("t",), **options), repeat(b"x" * 1000, 3))  # type: ignore[arg-type]
    events = list(building)
    assert events[1:] == [Output(stream="stderr", data=b"said")]
    assert building.image is not None
    assert building.image.host == (options.get("host") or "host1")
    assert isinstance(events[0], BuildWarning)
    return events[0].text


def test_a_build_goes_to_its_host(world: FakeFleet) -> None:
    """--host says where, else it is the first; the context arrives whole; events and the image come back."""
    assert warning(world).startswith("3000 bytes")
    warning(world, host="host2")
    assert (world.hosts["host1"].calls.count("Builds.Build"), world.hosts["host2"].calls.count("Builds.Build")) == (
        1,
        1,
    )
    with pytest.raises(NotFound, match="host9"):
        warning(world, host="host9")


def test_a_caller_that_goes_away_ends_the_build_on_the_host(world: FakeFleet) -> None:
    """Leaving the iteration is enough; address and ids are free again."""
    before = warning(world)
    for event in world.client.build(Build(dockerfile="WAIT"), repeat(b"x")):
        assert isinstance(event, BuildStep)
        assert warning(world) != before  # the first build still has its own
        break
    assert world.hosts["host1"].cancelled.wait(10)
    for _ in range(100):
        if warning(world) == before:
            return
    pytest.fail("the address was not given back")


def test_a_context_that_cannot_be_read_is_told(world: FakeFleet) -> None:
    """The error is the reader's own, not the transport's."""

    def broken() -> Iterator[bytes]:
        yield b"x"
        raise MigrateError("the file became shorter")

    with pytest.raises(MigrateError, match="became shorter"):
        list(world.client.build(Build(dockerfile="FROM x", tags=("t",)), broken()))


@pytest.fixture
def project(world: FakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to build, and the fleet in the environment."""
    monkeypatch.setenv("MIGRATE_COORDINATOR", str(world.socket))
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "Steps").write_text("FROM x\nRUN y\n")
    (directory / "Dockerfile").write_text("FROM x\n")
    (directory / "big").write_bytes(bytes(3 << 20))
    return directory


def test_what_the_command_prints(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps as Docker numbers them, what came from the cache, the image at the end; with -q its digest alone."""
    assert main(["build", "-t", "web", "-f", str(project / "Steps"), str(project)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "STEP 1/2: FROM x",
        "--> CACHED",
        "STEP 2/2: RUN y",
        "--> aaaaaaaaaaaa 0.0 s",
        "built web on host1: sha256:1",
    ]
    assert "warning: " in err
    assert "said" in err
    assert main(["build", "-q", "-t", "web", str(project)]) == 0
    assert capsys.readouterr().out == "sha256:1\n"
    assert main(["build", "--format", "json", "-t", "web", "-f", str(project / "Steps"), str(project)]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == [
        "BuildWarning", "Output", "BuildStep", "BuildStepDone", "BuildStep", "BuildStepDone", "Image",
    ]  # fmt: skip


def test_a_dockerfile_on_stdin(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-` as context: no files; `-f -`: with those of the directory."""
    for argv, size in ((["-"], 1024), (["-f", "-", str(project)], 3 << 20)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"FROM x\n")))
        monkeypatch.setattr("os.isatty", lambda _fd: False)
        assert main(["build", "-t", "web", *argv]) == 0
        sent = int(capsys.readouterr().err.split()[1])
        assert size <= sent < size + 20_000


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/no/such"], "is no directory"),
        (["-f", "/no/such", "."], "cannot read /no/such"),
        (["--build-arg", "=x", "."], "is not KEY=VALUE"),
        (["--secret", "src=/etc/passwd", "."], "--secret takes id=NAME,src=FILE"),
        (["--secret", "id=a,src=/no/such", "."], "cannot read /no/such"),
        (["--secret", "id=a,env=NO_SUCH_VARIABLE", "."], "there is no variable NO_SUCH_VARIABLE"),
        (["-f", "x", "-"], "leave -f out"),
    ],
)
def test_wrong_arguments(
    project: Path, argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is told before the coordinator is asked, with exit status 2."""
    monkeypatch.chdir(project)
    assert main(["build", *argv]) == 2
    assert message in capsys.readouterr().err


def test_only_the_credentials_of_named_registries_go_along(
    world: FakeFleet, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the file of `migrate login`: Docker's, and those of registries in the Dockerfile or a build argument."""
    auth = {"auths": {name: {"auth": name} for name in ("docker.io", "one:5000", "two:5000", "three:5000")}}
    (project / "auth.json").write_text(json.dumps(auth))
    monkeypatch.setenv("MIGRATE_AUTH_FILE", str(project / "auth.json"))
    (project / "Dockerfile").write_text("ARG R\nFROM $R/x\nCOPY --from=one:5000/y /a /a\n")
    assert main(["build", "-q", "-t", "web", "--build-arg", "R=two:5000", "--tls-verify", "false", str(project)]) == 0
    access = world.hosts["host1"].access
    assert set(json.loads(access.credentials)["auths"]) == {"docker.io", "one:5000", "two:5000"}
    assert access.unverified
