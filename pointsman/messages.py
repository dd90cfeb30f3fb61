"""The clients' requests and answers: plain arguments to messages and back. No input or output, nothing that waits.

>>> request = decide_request("summarize", limits=None, request_id="r1", context={"numbers": {"size": 3.0}})
>>> request.bucket, dict(request.context.numbers), request.request_id
('buckets/summarize', {'size': 3.0}, 'r1')
>>> report = report_request("decisions/1", model="", idempotency_key="k1", outcome={"quality": 0.9})
>>> report.decision, report.outcome.quality, report.outcome.HasField("cost_usd")
('decisions/1', 0.9, False)
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict, Unpack

import grpc

from pointsman.v1 import context_pb2, decision_pb2, outcome_pb2
from pointsman.v1 import router_service_pb2 as rpc

UNREACHED = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)
"""Statuses of a call that the service could not take, through no fault of the call."""


class Context(TypedDict, total=False):
    """The context of a request before the call; a bucket's context schema declares the fields it takes."""

    text: str
    numbers: Mapping[str, float]
    categories: Mapping[str, str]
    embeddings: Mapping[str, Sequence[float]]
    input_tokens: int
    max_output_tokens: int


class Outcome(TypedDict, total=False):
    """The outcome of a call, whole or in part: quality on the bucket's scale, cost in dollars, latency in seconds."""

    quality: float
    cost_usd: float
    latency_seconds: float
    success: bool
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Which model to call.

    ``name`` is what outcomes are reported on, ``model`` the chosen model's resource name, ``upstream`` what to hand to
    the gateway, ``fallbacks`` the others, best first, ``propensity`` the exact probability of this choice. ``name`` is empty if
    the service could not be reached and ``model`` is the caller's own default: reports on it are ignored.
    """

    name: str
    model: str
    upstream: str
    fallbacks: tuple[str, ...]
    propensity: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A report that the service will not take, or that was given up: the gRPC code's name and why."""

    request: rpc.ReportOutcomeRequest
    code: str
    message: str


def new_id() -> str:
    """A fresh request id or idempotency key."""
    return uuid.uuid4().hex


def _context(context: Context) -> context_pb2.Context:
    fields = dict(context)
    vectors = context.get("embeddings")
    if vectors is not None:
        fields["embeddings"] = {name: context_pb2.Embedding(values=vector) for name, vector in vectors.items()}
    return context_pb2.Context(**fields)  # type: ignore[arg-type]


def decide_request(
    bucket: str, limits: decision_pb2.Limits | None, request_id: str, context: Context
) -> rpc.DecideRequest:
    """The request of one decision; a request id is made if there is none, so that it can be sent again safely."""
    return rpc.DecideRequest(
        bucket=_named(bucket, "buckets/"), context=_context(context), limits=limits, request_id=request_id or new_id()
    )


def batch_decide_request(
    bucket: str, contexts: Iterable[Context], limits: decision_pb2.Limits | None, request_id: str
) -> rpc.BatchDecideRequest:
    """The request of many decisions of one bucket."""
    return rpc.BatchDecideRequest(
        bucket=_named(bucket, "buckets/"),
        contexts=[_context(context) for context in contexts],
        limits=limits,
        request_id=request_id or new_id(),
    )


def read_decision(message: decision_pb2.Decision) -> Decision:
    """The value of a decision's message."""
    return Decision(message.name, message.model, message.upstream, tuple(message.fallbacks), message.propensity)


def default_decision(model: str, error: grpc.RpcError) -> Decision:
    """The caller's own ``model`` where the service could not be reached; raises ``error`` if that is not what it says."""
    if not model or error.code() not in UNREACHED:
        raise error
    name = _named(model, "models/")
    return Decision("", name, name.removeprefix("models/"), (), 0.0)


def report_request(
    decision: Decision | str, model: str, idempotency_key: str, outcome: Outcome
) -> rpc.ReportOutcomeRequest | None:
    """The request of one report, or ``None`` for a decision that the service did not make."""
    name = decision if isinstance(decision, str) else decision.name
    if not name:
        return None
    return rpc.ReportOutcomeRequest(
        decision=name,
        outcome=outcome_pb2.Outcome(**outcome),
        model=_named(model, "models/") if model else "",
        idempotency_key=idempotency_key or new_id(),
    )


def _named(id_: str, collection: str) -> str:
    return id_ if id_.startswith(collection) else collection + id_


class _Report(Protocol):
    def __call__(
        self, decision: Decision | str, *, model: str = "", idempotency_key: str = "", **outcome: Unpack[Outcome]
    ) -> None: ...


class Call:
    """One call of a model under way: its time is taken, and what came of it is reported when the block ends.

    ``decision`` is what was decided, ``model`` the model being called, ``upstream`` its name at the gateway.
    """

    def __init__(self, decision: Decision, report: _Report, clock: Callable[[], float] = time.monotonic) -> None:
        self.decision, self.model, self.upstream = decision, decision.model, decision.upstream
        self._report, self._clock = report, clock
        self._started = clock()
        self._outcome: Outcome = {}

    def succeeded(self, **outcome: Unpack[Outcome]) -> None:
        """Set signals of the outcome; may be called more than once."""
        self._outcome.update(outcome)

    def fallback(self, model: str, upstream: str = "") -> None:
        """The call failed and ``model`` is tried now: the failure is reported, and what follows is that model's."""
        self.finish(success=False)
        self.model = _named(model, "models/")
        self.upstream = upstream or self.model.removeprefix("models/")
        self._outcome, self._started = {}, self._clock()

    def finish(self, success: bool) -> None:
        """Report what is known. ``success`` and the latency are what the block showed, unless the caller said otherwise."""
        outcome: Outcome = {"success": success, "latency_seconds": self._clock() - self._started}
        outcome.update(self._outcome)
        model = "" if self.model == self.decision.model else self.model
        self._report(self.decision, model=model, **outcome)
