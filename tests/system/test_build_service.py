"""Builds asked over gRPC of an agent that runs as a process: events, errors, callers that go away, agents that die."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import grpc
import pytest

from migrate import errors
from migrate.rpc.errors import native
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc, types_pb2
from tests.system.engine_host import IMAGE, EngineHost, engine_host, until
from tests.system.test_agent import Running
from tests.system.test_build import context_tar

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    with engine_host() as host:
        yield host


def chunks(dockerfile: str, *, cut: bool = False, **options: object) -> Iterator[pb.BuildChunk]:
    network = types_pb2.Network(address="10.77.9.9/16", mac="02:42:0a:4d:09:09", gateway="10.77.0.1")
    options.setdefault("ids", types_pb2.IdRange(base=5_000_000, count=65536))
    yield pb.BuildChunk(start=pb.BuildStart(dockerfile=dockerfile, address=network, **options))  # type: ignore[arg-type]
    data = context_tar({"a": "A" * 100_000})
    yield pb.BuildChunk(data=data[:5000])
    if not cut:
        yield pb.BuildChunk(data=data[5000:])
        yield pb.BuildChunk(end=len(data))


def test_a_build_over_the_wire(host: EngineHost) -> None:
    """Steps, output and the image arrive; a second agent finds the cache of the first; prune --all empties it."""
    text = f"FROM {IMAGE}\nARG X\nCOPY a /a\nRUN wc -c < /a; echo $X >&2\n"
    running = Running(host)
    try:
        builds = agent_pb2_grpc.BuildsStub(running.channel)
        events = list(builds.Build(chunks(text, tags=["wire"], build_args={"X": "x", "Y": "y"})))
        assert [event.WhichOneof("kind") for event in events if event.HasField("warning")] == ["warning"]
        assert b"".join(event.stdout for event in events) == b"100000\n"
        assert b"".join(event.stderr for event in events) == b"x\n"
        assert events[-1].done.name == "wire:latest"
        assert [event.step.text for event in events if event.HasField("step")][-1].startswith("RUN wc")
        running.images.Remove(pb.RemoveImageRequest(name="wire"))
    finally:
        assert running.stop() == 0
    running = Running(host)
    try:
        builds = agent_pb2_grpc.BuildsStub(running.channel)
        again = list(builds.Build(chunks(text, build_args={"X": "x"})))
        assert [e.step_done.cached for e in again if e.HasField("step_done")] == [False, False, True, True]
        assert again[-1].done.layers == events[-1].done.layers
        images = [one.name for one in running.images.List(pb.ListImagesRequest()).images]
        assert IMAGE in images
        running.images.Remove(pb.RemoveImageRequest(name=again[-1].done.digest))
        pruned = running.images.Prune(pb.PruneImagesRequest(all=True, labels=["none-has-this"]))
        assert set(pruned.layers) == set(again[-1].done.layers) - set(host.images.get(IMAGE).layers)
    finally:
        assert running.stop() == 0


def test_mistakes_come_back_as_errors(host: EngineHost) -> None:
    """A Dockerfile that is wrong, a command that fails, a context that is cut, ids of the host: each with its code."""
    running = Running(host)
    try:
        builds = agent_pb2_grpc.BuildsStub(running.channel)
        for code, requests, message in (
            ("build.dockerfile", chunks("FROM x\nWHAT\n", file="d/Dockerfile"), "d/Dockerfile:2: unknown instruction"),
            ("build.step_failed", chunks(f"FROM {IMAGE}\nRUN echo last words; exit 3\n"), "exit status 3"),
            ("transfer", chunks(f"FROM {IMAGE}\n", cut=True), "cut off after 5000 bytes"),
            (
                "invalid_argument",
                chunks("FROM x\n", ids=types_pb2.IdRange(base=0, count=9)),
                "cannot have the host's ids",
            ),
        ):
            with pytest.raises(errors.MigrateError, match=message) as caught, native("host1"):
                list(builds.Build(requests))
            assert caught.value.code == code
            if code == "build.step_failed":
                assert "last words" in caught.value.detail
        assert list(running.containers.List(pb.ListRequest()).containers) == []
    finally:
        assert running.stop() == 0


def test_a_caller_that_goes_away_ends_the_build(host: EngineHost) -> None:
    """Its container goes at once."""
    running = Running(host)
    try:
        call = agent_pb2_grpc.BuildsStub(running.channel).Build(chunks(f"FROM {IMAGE}\nRUN echo up; sleep 100\n"))
        for event in call:
            if event.stdout:
                break
        assert len(running.containers.List(pb.ListRequest()).containers) == 1
        call.cancel()
        until(lambda: not running.containers.List(pb.ListRequest()).containers, 30)
    finally:
        assert running.stop() == 0


def test_an_agent_that_dies_in_a_build_leaves_nothing_for_the_next(host: EngineHost) -> None:
    """The next agent removes the container, the mounts and the half-made files; the image was never named."""
    running = Running(host)
    call = agent_pb2_grpc.BuildsStub(running.channel).Build(
        chunks(f"FROM {IMAGE}\nRUN echo up; while :; do sleep 1; done\n", tags=["dead"])
    )
    with pytest.raises(grpc.RpcError):
        for event in call:
            if event.stdout:
                running.stop(signal.SIGKILL)
    began = time.monotonic()
    running = Running(host)
    try:
        assert list(running.containers.List(pb.ListRequest()).containers) == []
        assert "dead:latest" not in {one.name for one in running.images.List(pb.ListImagesRequest()).images}
        assert [line for line in host.mounts() if "/builds/" in line or "rootfs" in line] == []
        assert host.cgroups() == []
        assert list((host.config.images_dir / "tmp").iterdir()) == []
        assert time.monotonic() - began < 60
    finally:
        assert running.stop() == 0
