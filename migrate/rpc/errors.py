"""One vocabulary of errors on both sides of a call.

Server: `ErrorInterceptor` turns an error that has a code, a message and a hint (AgentError, MigrateError) into a gRPC
status, with all of it in the trailing metadata as protos ErrorDetail. Everything else is a mistake of ours: the
traceback is logged here and the caller gets code "internal" and no more.

Client: `to_native` turns the failed call back into the classes of migrate.errors. The status is for programs that know
nothing of ErrorDetail; ours go by its code alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol, TypeGuard

import grpc

from migrate import errors
from protos import types_pb2

DETAIL_KEY = "migrate-error-bin"

# A peer with default options refuses trailing metadata above 8 KiB, and the caller would see that instead of the error.
MAX_MESSAGE_BYTES = 1024
MAX_DETAIL_BYTES = 4096
LOOK_FIRST = "what was asked may have happened: look (migrate ps --all; migrate hosts), then give the command again"
MAX_STATUS_TEXT = 256

# By the last part of the code: "container.not_found" is NOT_FOUND too.
_STATUS = {
    "not_found": grpc.StatusCode.NOT_FOUND,
    "already_exists": grpc.StatusCode.ALREADY_EXISTS,
    "invalid_argument": grpc.StatusCode.INVALID_ARGUMENT,
    "wrong_state": grpc.StatusCode.FAILED_PRECONDITION,
    "unsupported": grpc.StatusCode.FAILED_PRECONDITION,  # not UNIMPLEMENTED: that means that the peer lacks the method
    "stale_epoch": grpc.StatusCode.FAILED_PRECONDITION,
    "precheck": grpc.StatusCode.FAILED_PRECONDITION,
    "needs_attention": grpc.StatusCode.FAILED_PRECONDITION,
    "unreachable": grpc.StatusCode.UNAVAILABLE,
    "cancelled": grpc.StatusCode.CANCELLED,
    "internal": grpc.StatusCode.INTERNAL,
}

log = logging.getLogger(__name__)


class Reportable(Protocol):
    """What AgentError and MigrateError have in common; this module must not import the agent's."""

    code: str
    message: str
    hint: str
    touched: str
    detail: str


def is_reportable(exc: object) -> TypeGuard[Reportable]:
    """Whether `exc` was written for a caller to read."""
    return isinstance(getattr(exc, "code", None), str) and isinstance(getattr(exc, "message", None), str)


def to_detail(exc: Reportable) -> types_pb2.ErrorDetail:
    """The message for the wire or the journal; texts are cut to what trailing metadata can carry."""
    return types_pb2.ErrorDetail(
        code=exc.code,
        message=_cut(exc.message, MAX_MESSAGE_BYTES),
        hint=_cut(getattr(exc, "hint", ""), MAX_MESSAGE_BYTES),
        touched=getattr(exc, "touched", ""),
        detail=_cut(getattr(exc, "detail", ""), MAX_DETAIL_BYTES),
    )


def from_detail(detail: types_pb2.ErrorDetail) -> errors.MigrateError:
    """The class of migrate.errors for a code; the code itself is kept, known or not."""
    return _class_for(detail.code)(
        detail.message, hint=detail.hint, detail=detail.detail, code=detail.code, touched=detail.touched
    )


def status_for(code: str) -> grpc.StatusCode:
    """The gRPC status that says the most about `code`; UNKNOWN for what only ErrorDetail can say."""
    return _STATUS.get(code.rpartition(".")[2], grpc.StatusCode.UNKNOWN)


# ---------------------------------------------------------------- server


class ErrorInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """Give to grpc.server(interceptors=[...]). Works for unary calls and for all kinds of streams."""

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        if handler is None:  # no such method: gRPC answers UNIMPLEMENTED itself
            return None
        method = handler_call_details.method
        kind = (
            ("stream" if handler.request_streaming else "unary")
            + "_"
            + ("stream" if handler.response_streaming else "unary")
        )
        wrap = _guard_stream if handler.response_streaming else _guard_unary
        factory = getattr(grpc, f"{kind}_rpc_method_handler")
        return factory(
            wrap(getattr(handler, kind), method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guard_unary(behaviour: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], Any]:
    def guarded(request: Any, context: Any) -> Any:
        try:
            return behaviour(request, context)
        except Exception as exc:  # noqa: BLE001  the boundary of the process: nothing else may decide what callers see
            _abort(exc, context, method)

    return guarded


def _guard_stream(behaviour: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], Iterator[Any]]:
    def guarded(request: Any, context: Any) -> Iterator[Any]:
        try:
            yield from behaviour(request, context)
        except Exception as exc:  # noqa: BLE001  as above
            _abort(exc, context, method)

    return guarded


def _abort(exc: Exception, context: Any, method: str) -> NoReturn:
    if type(exc) is Exception and not exc.args and context.code() not in (None, grpc.StatusCode.OK):
        raise exc  # the handler itself called context.abort()
    if isinstance(exc, grpc.RpcError) and not context.is_active():
        raise exc  # the caller went away while the handler read its requests
    cause = exc.__cause__
    if is_reportable(exc):
        detail = to_detail(exc)
        log.info("%s: %s: %s", method, exc.code, exc.message, exc_info=cause)
    else:
        detail = types_pb2.ErrorDetail(
            code="internal",
            message=f"{method} failed in a way nobody foresaw",
            hint="the log of the process that served the call has the traceback",
            touched="something",
        )
        log.error("%s failed", method, exc_info=exc)
    context.set_trailing_metadata(((DETAIL_KEY, detail.SerializeToString()),))
    context.abort(status_for(detail.code), detail.message[:MAX_STATUS_TEXT])
    raise AssertionError("abort() returned")  # it never does; gRPC has no types that say so


# ---------------------------------------------------------------- client


def to_native(error: grpc.RpcError, *, host: str = "") -> errors.MigrateError:
    """The error that the server meant; `host` names the peer where only the transport can be blamed.

    Without ErrorDetail, UNAVAILABLE and DEADLINE_EXCEEDED are `Unreachable`: what was asked may have happened.
    """
    status = error.code()
    text = error.details() or status.name
    for key, value in error.trailing_metadata() or ():
        if key == DETAIL_KEY:
            return from_detail(types_pb2.ErrorDetail.FromString(value))
    peer = host or "the server"
    hint = LOOK_FIRST if host else ""
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.Unreachable(f"{peer} did not answer in time: {text}", hint=hint, touched="something")
    if status is grpc.StatusCode.UNAVAILABLE:
        return errors.Unreachable(f"{peer} cannot be reached: {text}", hint=hint, touched="something")
    if status is grpc.StatusCode.CANCELLED:
        return errors.Cancelled(f"the call to {peer} was cancelled: {text}", touched="something")
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return errors.MigrateError(
            f"{peer} does not know this call: {text}", code="unsupported", hint=f"upgrade migrate on {peer}"
        )
    return errors.Internal(f"{peer}: {status.name}: {text}", code=f"rpc.{status.name.lower()}", touched="something")


@contextlib.contextmanager
def native(host: str = "") -> Iterator[None]:
    """Around a call, or around the loop over a stream: RpcError leaves as a class of migrate.errors."""
    try:
        yield
    except grpc.RpcError as exc:
        raise to_native(exc, host=host) from exc


def _class_for(code: str) -> type[errors.MigrateError]:
    classes: dict[str, type[errors.MigrateError]] = {}
    pending: list[type[errors.MigrateError]] = errors.MigrateError.__subclasses__()
    while pending:
        cls = pending.pop()
        classes.setdefault(cls.code, cls)
        pending += cls.__subclasses__()
    if code.startswith("tunnel."):  # migrate.tunnel names the part of the way that failed: nobody was reached
        return errors.Unreachable
    return classes.get(code) or classes.get(code.rpartition(".")[2]) or errors.MigrateError


def _cut(text: str, limit_bytes: int) -> str:
    raw = text.encode(errors="replace")
    return text if len(raw) <= limit_bytes else raw[: limit_bytes - 4].decode(errors="ignore") + " ..."
