"""Both directions of a program's stdio over one gRPC call: output by the call's own thread, input by another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

import grpc

from agent.engine.attach import Attachment, Output
from agent.engine.container import Engine
from agent.engine.session import Session
from agent.engine.signals import signal_number
from agent.errors import AgentError, NotFound, TransferError, WrongState
from protos import agent_pb2 as pb


class Conversation(Protocol):
    """A program that is talked to: agent.engine.session.Session, or Attached."""

    @property
    def exit_code(self) -> int | None: ...
    def __iter__(self) -> Iterator[Output]: ...
    def write(self, data: bytes) -> None: ...
    def close_stdin(self) -> None: ...
    def resize(self, rows: int, columns: int) -> None: ...
    def signal(self, number: int) -> None: ...
    def hang_up(self) -> None: ...


class Attached:
    """An Attachment as a Conversation: signals go to the container's init, hanging up only detaches. Goes on with the next life
    of a container that its restart policy brings back.
    """

    def __init__(self, engine: Engine, container_id: str, attachment: Attachment) -> None:
        self._engine, self._id, self._attachment = engine, container_id, attachment
        self._over = threading.Event()

    @property
    def exit_code(self) -> int | None:
        return self._attachment.exit_code

    def __iter__(self) -> Iterator[Output]:
        while True:
            yield from self._attachment
            if self._over.is_set() or self._attachment.exit_code is None or not self._engine.comes_back(self._id):
                return
            try:
                self._attachment = self._engine.attach(self._id)
            except (NotFound, WrongState):
                return  # removed, or a move has begun: the exit code stays that of the last life
            if self._over.is_set():
                self._attachment.close()

    def write(self, data: bytes) -> None:
        self._attachment.write(data)

    def close_stdin(self) -> None:
        self._attachment.close_stdin()

    def resize(self, rows: int, columns: int) -> None:
        self._attachment.resize(rows, columns)

    def signal(self, number: int) -> None:
        self._engine.kill(self._id, str(number))

    def hang_up(self) -> None:
        self._over.set()
        self._attachment.close()


def converse(
    program: Conversation, requests: Iterator[pb.ExecInput], context: grpc.ServicerContext
) -> Iterator[pb.ExecOutput]:
    """`started`, output as it comes, `exit_code` unless it was cut off. The end of `requests` lets go of nothing."""
    # The caller is gone; also called at an ordinary end, when it does nothing.
    if not context.add_callback(program.hang_up):
        return  # gone before it began: nobody would call hang_up
    threading.Thread(target=_feed, args=(program, requests), daemon=True).start()
    yield pb.ExecOutput(started=True)
    for output in program:
        yield pb.ExecOutput(stderr=output.data) if output.stream == "stderr" else pb.ExecOutput(stdout=output.data)
    if program.exit_code is not None:
        yield pb.ExecOutput(exit_code=program.exit_code)


def let_run(program: Session) -> None:
    """Nobody listens: what it writes is thrown away until it ends."""

    def drain() -> None:
        with program:
            for _ in program:
                continue

    threading.Thread(target=drain, name="detached", daemon=True).start()


def _feed(program: Conversation, requests: Iterator[pb.ExecInput]) -> None:
    try:
        for request in requests:
            kind = request.WhichOneof("kind")
            try:
                if kind == "stdin":
                    program.write(request.stdin)
                elif kind == "close_stdin":
                    program.close_stdin()
                elif kind == "resize":
                    program.resize(request.resize.rows, request.resize.columns)
                elif kind == "signal":
                    program.signal(signal_number(request.signal))
            except (AgentError, OSError):
                continue  # it reads no more, or has ended: its output and its end say so
    except grpc.RpcError:
        return  # the caller is gone: the callback acts


def whole(
    chunks: Iterator[pb.ImportChunk] | Iterator[pb.BuildChunk] | Iterator[pb.CopyInChunk], what: str, *, hint: str
) -> Iterator[bytes]:
    """The bytes that are streamed here. A call that was cut off can look like one that has ended: the sender says where the end is."""
    size = 0
    for chunk in chunks:
        if chunk.HasField("end"):
            if chunk.end != size:
                raise TransferError(f"{size} bytes of the {what} arrived, {chunk.end} were sent", touched="nothing")
            return
        size += len(chunk.data)
        yield chunk.data
    raise TransferError(f"the {what} was cut off after {size} bytes", hint=hint, touched="nothing")
