"""Errors as gRPC statuses with google.rpc details: the one table of which error is which status."""

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
"""Longest message or description of a status, in bytes. A caller's gRPC refuses a status of more than 8 kB in all, and then
sees RESOURCE_EXHAUSTED instead of what was wrong."""
LONGEST_FIELD = 300
"""Longest path of a field, in bytes."""
LONGEST_DETAILS = 1600
"""Most bytes of the violations that say, model by model, why nothing is eligible."""
_MORE = " …"
KNOWN_ERRORS = (
    FieldError,
    NothingEligibleError,
    RequestError,
    UnavailableError,
    JournalError,
    OverloadedError,
    LateError,
    UnauthenticatedError,
    ForbiddenError,
    RateLimitedError,
)
_REQUEST_ERRORS = {
    NotFoundError: (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    AlreadyExistsError: (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"),
    ExpiredError: (grpc.StatusCode.FAILED_PRECONDITION, "ATTRIBUTION_WINDOW_ENDED"),
    InUseError: (grpc.StatusCode.FAILED_PRECONDITION, "IN_USE"),
    StaleError: (grpc.StatusCode.ABORTED, "STALE_ETAG"),
}

Call = grpc.aio.ServicerContext[Any, Any]
"""A call as its handler sees it."""
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


def status_of(error: Exception) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The code and the full status of one of ``KNOWN_ERRORS``."""
    details: list[Message] = []
    match error:
        case FieldError():
            code, reason, message = (
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_FIELD",
                str(error),
            )
            details.append(_bad_request(error.field, error.problem))
        case NothingEligibleError():
            code, reason, message = (
                grpc.StatusCode.FAILED_PRECONDITION,
                "NOTHING_ELIGIBLE",
                _listed(error),
            )
            details.append(error_details_pb2.PreconditionFailure(violations=_violations(error)))
            details.append(_bad_request("limits", message))
        case RequestError():
            code, reason = _REQUEST_ERRORS[type(error)]
            message = f"{error.field}: {error.problem}"
            details.append(_bad_request(error.field, error.problem))
            if isinstance(error, NotFoundError | AlreadyExistsError):
                resource_type = error.resource.split("/")[0]
                details.append(
                    error_details_pb2.ResourceInfo(
                        resource_type=resource_type,
                        resource_name=error.resource,
                        description=error.problem,
                    )
                )
            if isinstance(error, InUseError):
                details.append(_in_use(error))
        case OverloadedError():
            code, reason, message = grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", str(error)
            details.append(_retry(error.delay))
        case RateLimitedError():
            code, reason, message = grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", str(error)
            details.append(_retry(error.delay))
        case UnauthenticatedError():
            code, reason, message = grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", str(error)
        case ForbiddenError():
            code, reason, message = grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", str(error)
        case LateError():
            code, reason, message = grpc.StatusCode.DEADLINE_EXCEEDED, "LATE", str(error)
        case _:
            code, reason, message = (
                grpc.StatusCode.UNAVAILABLE,
                "UNAVAILABLE",
                str(error),
            )
            details.append(_retry(1.0))
    details.append(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    packed = []
    for detail in details:
        any_ = any_pb2.Any()
        any_.Pack(detail)
        packed.append(any_)
    return code, status_pb2.Status(code=code.value[0], message=_clipped(message), details=packed)


def _retry(delay: float) -> error_details_pb2.RetryInfo:
    """When to come again, in seconds from now."""
    wait = duration_pb2.Duration()
    wait.FromNanoseconds(int(delay * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=wait)


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
    parts = [_clipped(f"{model}: {', '.join(why)}", LONGEST_FIELD) for model, why in error.reasons.items()]
    shown: list[str] = []
    room = LONGEST - 100
    for part in parts:
        room -= len(part.encode()) + 2
        if room < 0 and shown:
            break
        shown.append(part)
    more = f"; and {len(parts) - len(shown)} more models" if len(shown) < len(parts) else ""
    return f"no model is eligible: {'; '.join(shown)}{more}"


def _violations(error: NothingEligibleError) -> list[error_details_pb2.PreconditionFailure.Violation]:
    """One violation a model, as many as fit, then one without a subject that says how many more there are."""
    violations: list[error_details_pb2.PreconditionFailure.Violation] = []
    room = LONGEST_DETAILS
    for model, why in error.reasons.items():
        violation = error_details_pb2.PreconditionFailure.Violation(
            type="INELIGIBLE",
            subject=f"models/{model}",
            description=_clipped("; ".join(why)),
        )
        room -= violation.ByteSize()
        if room < 0 and violations:
            rest = f"and {len(error.reasons) - len(violations)} more models"
            violations.append(error_details_pb2.PreconditionFailure.Violation(type="INELIGIBLE", description=rest))
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
    if isinstance(error, OverloadedError | RateLimitedError):  # callers' gRPC keeps to this when it retries
        metadata.append(("grpc-retry-pushback-ms", str(max(1, round(error.delay * 1000)))))
    await context.abort(code, status.message, trailing_metadata=tuple(metadata))


Unary = Callable[[Any, Request, Call], Awaitable[Response]]
Streaming = Callable[[Any, Request, Call], AsyncIterator[Response]]


def unary(method: Unary[Request, Response]) -> Unary[Request, Response]:
    """Let ``method``, a unary handler, raise errors: they become statuses."""

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
    """Let ``method``, a server-streaming handler, raise errors: they become statuses."""

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
