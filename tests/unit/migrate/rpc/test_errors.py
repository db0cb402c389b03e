"""Errors across a real gRPC server and channel on a unix socket."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from agent import errors as agent_errors
from migrate import errors
from migrate.rpc import channels
from migrate.rpc import errors as rpc_errors
from protos import types_pb2

pytestmark = pytest.mark.unit

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Service(grpc.GenericRpcHandler):
    """/test/KIND: raises `error` after one answer (streams) or at once."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.abort = False

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        kind = details.method.rpartition("/")[2]
        if kind not in KINDS:
            return None
        behaviour = self.stream if kind.endswith("_stream") else self.unary
        return getattr(grpc, f"{kind}_rpc_method_handler")(behaviour)

    def unary(self, request: object, context: grpc.ServicerContext) -> bytes:
        if not isinstance(request, bytes):
            list(request)
        while request == b"slow" and context.is_active():
            time.sleep(0.01)
        if self.abort:
            context.abort(grpc.StatusCode.DATA_LOSS, "mine")
        if self.error:
            raise self.error
        return b"answer"

    def stream(self, request: object, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"answer"
        self.unary(request, context)


@pytest.fixture
def service() -> Iterator[tuple[Service, grpc.Channel, Path]]:
    served = Service()
    with tempfile.TemporaryDirectory(prefix="htun") as directory:
        path = Path(directory) / "s"
        server = grpc.server(
            futures.ThreadPoolExecutor(4), interceptors=[rpc_errors.ErrorInterceptor()], options=channels.SERVER_OPTIONS
        )
        server.add_generic_rpc_handlers([served])
        server.add_insecure_port(channels.unix_target(path))
        server.start()
        with channels.unix_channel(path) as channel:
            yield served, channel, path
        server.stop(None).wait()


def call(channel: grpc.Channel, kind: str) -> list[bytes]:
    request = b"q" if kind.startswith("unary") else iter([b"q", b"r"])
    answer = getattr(channel, kind)(f"/test/{kind}")(request, timeout=10)
    return [answer] if kind.endswith("_unary") else list(answer)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_survives(service: tuple[Service, grpc.Channel, Path], kind: str) -> None:
    """An agent's error arrives with its code, message, hint, touched and detail, whatever the kind of call."""
    served, channel, _ = service
    served.error = agent_errors.CriuError("dump of 12 failed: é", hint="look", detail="line 1\nline 2")
    with pytest.raises(errors.MigrateError) as caught, rpc_errors.native("host1"):
        call(channel, kind)
    error = caught.value
    assert (error.code, error.message, error.hint, error.touched, error.detail) == (
        "criu",
        "dump of 12 failed: é",
        "look",
        "undone",
        "line 1\nline 2",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_success_is_untouched(service: tuple[Service, grpc.Channel, Path], kind: str) -> None:
    """The interceptor changes nothing about a call that works."""
    assert call(service[1], kind) == [b"answer"]


@pytest.mark.parametrize("kind", KINDS)
def test_mistakes_stay_on_the_server(
    service: tuple[Service, grpc.Channel, Path], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An unforeseen exception is INTERNAL for the caller, without its text; the traceback is in the server's log."""
    served, channel, _ = service
    served.error = ZeroDivisionError("secret value 42")
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.RpcError) as caught:
        call(channel, kind)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    native = rpc_errors.to_native(caught.value)
    assert isinstance(native, errors.Internal)
    assert native.code == "internal"
    assert "secret" not in f"{caught.value.details()}{native.message}{native.detail}{native.hint}"
    assert "secret value 42" in caplog.text
    assert "Traceback" in caplog.text


def test_abort_by_the_handler_is_kept(service: tuple[Service, grpc.Channel, Path]) -> None:
    """A handler that calls context.abort() itself has said what it wants; it is not a mistake."""
    served, channel, _ = service
    served.abort = True
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "unary_unary")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "mine")


def test_long_details_reach_a_peer_with_default_options(service: tuple[Service, grpc.Channel, Path]) -> None:
    """A CRIU log of 1 MB is cut, not the error lost, even where the peer accepts only 8 KiB of metadata."""
    served, _, path = service
    served.error = agent_errors.CriuError("m" * 100_000 + "é", detail="é" * 500_000, hint="h" * 10_000)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, "unary_unary")
        native = rpc_errors.to_native(caught.value)
    assert native.code == "criu"
    assert native.detail.startswith("é" * 1000)
    assert native.detail.endswith(" ...")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("not_found", errors.NotFound),
        ("container.not_found", errors.NotFound),
        ("wrong_state", errors.WrongState),
        ("migration.precheck", errors.PrecheckError),
        ("migration.needs_attention", errors.NeedsAttention),
        ("unreachable", errors.Unreachable),
        ("tunnel.agent", errors.Unreachable),
        ("internal", errors.Internal),
        ("storage", errors.MigrateError),
        ("never.heard.of", errors.MigrateError),
    ],
)
def test_codes_choose_classes(code: str, expected: type) -> None:
    """The class follows from the code, dotted or not; an unknown code keeps its name in the base class."""
    native = rpc_errors.from_detail(types_pb2.ErrorDetail(code=code, message="m", touched="something"))
    assert type(native) is expected
    assert (native.code, native.touched) == (code, "something")


def test_a_dead_socket_is_unreachable(tmp_path: Path) -> None:
    """UNAVAILABLE without detail names the host."""
    with (
        channels.unix_channel(tmp_path / "none") as channel,
        pytest.raises(errors.Unreachable, match="host7"),
        rpc_errors.native("host7"),
    ):
        call(channel, "unary_unary")


def test_no_answer_in_time_is_unreachable(service: tuple[Service, grpc.Channel, Path]) -> None:
    """DEADLINE_EXCEEDED without detail names the host and admits that something may have happened."""
    channel = service[1]
    with pytest.raises(errors.Unreachable, match="host7") as caught, rpc_errors.native("host7"):
        channel.unary_unary("/test/unary_unary")(b"slow", timeout=0.1)
    assert caught.value.touched == "something"


def test_an_older_peer_is_named(service: tuple[Service, grpc.Channel, Path]) -> None:
    """A method that the peer lacks is "unsupported", with upgrading as the hint."""
    with pytest.raises(errors.MigrateError) as caught, rpc_errors.native("host7"):
        service[1].unary_unary("/test/future")(b"", timeout=10)
    assert (caught.value.code, caught.value.hint) == ("unsupported", "upgrade migrate on host7")
