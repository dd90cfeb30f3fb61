"""Errors as gRPC statuses with google.rpc details: the one table of which error is which status.

>>> code, status = status_of(NotFoundError("name", "models/small"))
>>> code.name, status.message
('NOT_FOUND', 'name: models/small does not exist')
>>> [detail.type_url.rpartition(".")[2] for detail in status.details]
['BadRequest', 'ResourceInfo', 'ErrorInfo']
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from pointsman.bandit.errors import FieldError, NothingEligibleError
from pointsman.server.errors import (
    AlreadyExistsError,
    ExpiredError,
    ForbiddenError,
    InUseError,
    LateError,
    NotFoundError,
    OverloadedError,
    RateLimitedError,
    RequestError,
    StaleError,
    UnauthenticatedError,
    UnavailableError,
)
from pointsman.server.journal.interface import JournalError

log = logging.getLogger("pointsman.rpc")

DOMAIN = "pointsman.v1"
LONGEST = 800
"""Longest message or description of a status, in bytes. A caller's gRPC refuses statuses of more than 8 kB in all and then shows
RESOURCE_EXHAUSTED instead of what was wrong."""
LONGEST_FIELD = 300
"""Longest path of a field, in bytes."""
LONGEST_DETAILS = 1600
"""Most bytes of the violations that say, model by model, why nothing is eligible."""
_MORE = " …"
STATUSES: dict[type[Exception], tuple[grpc.StatusCode, str]] = {
    FieldError: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    NothingEligibleError: (grpc.StatusCode.FAILED_PRECONDITION, "NOTHING_ELIGIBLE"),
    NotFoundError: (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    AlreadyExistsError: (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"),
    ExpiredError: (grpc.StatusCode.FAILED_PRECONDITION, "ATTRIBUTION_WINDOW_ENDED"),
    InUseError: (grpc.StatusCode.FAILED_PRECONDITION, "IN_USE"),
    StaleError: (grpc.StatusCode.ABORTED, "STALE_ETAG"),
    OverloadedError: (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    RateLimitedError: (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
    UnauthenticatedError: (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    ForbiddenError: (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    LateError: (grpc.StatusCode.DEADLINE_EXCEEDED, "LATE"),
    UnavailableError: (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    JournalError: (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
}
"""The code and the reason of each error, or of its base class."""
KNOWN_ERRORS = tuple(STATUSES)
"""The errors that are statuses; any other is a fault of the server."""

Call = grpc.aio.ServicerContext[Any, Any]
"""A call as its handler sees it."""
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


def status_of(error: Exception) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The code and the full status of one of ``KNOWN_ERRORS``, with google.rpc details."""
    code, reason = next(status for kind, status in STATUSES.items() if isinstance(error, kind))
    message = _message(error)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    packed = []
    for detail in (*_details(error, message), info):
        any_ = any_pb2.Any()
        any_.Pack(detail)
        packed.append(any_)
    return code, status_pb2.Status(code=code.value[0], message=_clipped(message), details=packed)


def _message(error: Exception) -> str:
    match error:
        case NothingEligibleError():
            return _listed(error)
        case RequestError():
            return f"{error.field}: {error.problem}"
        case _:
            return str(error)


def _details(error: Exception, message: str) -> list[Message]:
    """Machine-readable details of an error, besides its reason."""
    match error:
        case FieldError():
            return [_bad_request(error.field, error.problem)]
        case NothingEligibleError():
            failure = error_details_pb2.PreconditionFailure(violations=_violations(error))
            return [failure, _bad_request("limits", message)]
        case NotFoundError() | AlreadyExistsError():
            return [_bad_request(error.field, error.problem), _resource_info(error)]
        case InUseError():
            return [_bad_request(error.field, error.problem), _in_use(error)]
        case RequestError():
            return [_bad_request(error.field, error.problem)]
        case OverloadedError() | RateLimitedError():
            return [_retry(error.delay)]
        case UnavailableError() | JournalError():
            return [_retry(1.0)]
        case _:
            return []


def _resource_info(error: NotFoundError | AlreadyExistsError) -> error_details_pb2.ResourceInfo:
    return error_details_pb2.ResourceInfo(
        resource_type=error.resource.partition("/")[0], resource_name=error.resource, description=error.problem
    )


def _retry(delay: float) -> error_details_pb2.RetryInfo:
    """That the call may be sent again after ``delay`` seconds."""
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(delay * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=duration)


def _bad_request(field: str, description: str) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=_clipped(field, LONGEST_FIELD), description=_clipped(description)
    )
    return error_details_pb2.BadRequest(field_violations=[violation])


def _in_use(error: InUseError) -> error_details_pb2.PreconditionFailure:
    """One violation for each user of the resource that is named."""
    violation = error_details_pb2.PreconditionFailure.Violation
    return error_details_pb2.PreconditionFailure(
        violations=[violation(type="IN_USE", subject=user, description="names it") for user in error.users]
    )


def _clipped(text: str, longest: int = LONGEST) -> str:
    """``text`` if it takes at most ``longest`` bytes, else its beginning."""
    data = text.encode()
    return text if len(data) <= longest else data[: longest - len(_MORE.encode())].decode(errors="ignore") + _MORE


def _listed(error: NothingEligibleError) -> str:
    """The message: models with what excludes them, as many as fit, and how many more there are."""
    if not error.reasons:
        return str(error)
    parts = [_clipped(f"{model}: {', '.join(reasons)}", LONGEST_FIELD) for model, reasons in error.reasons.items()]
    shown: list[str] = []
    room = LONGEST - 100
    for part in parts:
        room -= len(part.encode()) + 2
        if room < 0 and shown:
            break
        shown.append(part)
    others = f"; and {len(parts) - len(shown)} more models" if len(shown) < len(parts) else ""
    return f"no model is eligible: {'; '.join(shown)}{others}"


def _violations(error: NothingEligibleError) -> list[error_details_pb2.PreconditionFailure.Violation]:
    """One violation a model, as many as fit, then one without a subject that says how many more there are."""
    violations: list[error_details_pb2.PreconditionFailure.Violation] = []
    room = LONGEST_DETAILS
    for model, reasons in error.reasons.items():
        violation = error_details_pb2.PreconditionFailure.Violation(
            type="INELIGIBLE",
            subject=f"models/{model}",
            description=_clipped("; ".join(reasons)),
        )
        room -= violation.ByteSize()
        if room < 0 and violations:
            others = f"and {len(error.reasons) - len(violations)} more models"
            violations.append(error_details_pb2.PreconditionFailure.Violation(type="INELIGIBLE", description=others))
            break
        violations.append(violation)
    return violations


async def abort(context: Call, error: Exception) -> NoReturn:
    """End the call with the status of ``error``; an unknown error is logged and becomes INTERNAL without details."""
    if not isinstance(error, KNOWN_ERRORS):
        log.exception("internal error", exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error; see the server's log")
    code, status = status_of(error)
    metadata: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if isinstance(error, OverloadedError | RateLimitedError):  # which a caller's gRPC observes when it retries
        metadata.append(("grpc-retry-pushback-ms", str(max(1, round(error.delay * 1000)))))
    await context.abort(code, status.message, trailing_metadata=tuple(metadata))


Unary = Callable[[Any, Request, Call], Awaitable[Response]]
Streaming = Callable[[Any, Request, Call], AsyncIterator[Response]]


def unary(method: Unary[Request, Response]) -> Unary[Request, Response]:
    """A unary handler that may raise errors: they become statuses."""

    @functools.wraps(method)
    async def handler(self: Any, request: Request, context: Call) -> Response:
        try:
            return await method(self, request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await abort(context, error)

    return handler


def streaming(method: Streaming[Request, Response]) -> Streaming[Request, Response]:
    """A server-streaming handler that may raise errors: they become statuses."""

    @functools.wraps(method)
    async def handler(self: Any, request: Request, context: Call) -> AsyncIterator[Response]:
        try:
            async for response in method(self, request, context):
                yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await abort(context, error)

    return handler
