"""A small synchronous client. The generated stubs in ``pointsman.v1`` have everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import grpc

from pointsman.v1 import (
    context_pb2,
    decision_pb2,
    outcome_pb2,
    router_service_pb2,
    router_service_pb2_grpc,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """Which model to call.

    ``name`` is what outcomes are reported on, ``model`` the chosen model's resource name, ``upstream`` what to hand to
    the gateway, ``fallbacks`` the others, best first, ``propensity`` the exact probability of this choice.
    """

    name: str
    model: str
    upstream: str
    fallbacks: tuple[str, ...]
    propensity: float


class Client:
    """A connection to a Pointsman server; also a context manager. Methods raise ``grpc.RpcError``."""

    def __init__(self, address: str = "127.0.0.1:7420", *, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._channel = grpc.insecure_channel(address)
        self._router = router_service_pb2_grpc.RouterServiceStub(self._channel)

    def decide(
        self,
        bucket: str,
        *,
        text: str | None = None,
        numbers: Mapping[str, float] | None = None,
        categories: Mapping[str, str] | None = None,
        embeddings: Mapping[str, Sequence[float]] | None = None,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        limits: decision_pb2.Limits | None = None,
        request_id: str = "",
    ) -> Decision:
        """Which model to call for one request of ``bucket``, given what is known of it."""
        context = context_pb2.Context(
            numbers=numbers,
            categories=categories,
            embeddings={k: context_pb2.Embedding(values=v) for k, v in (embeddings or {}).items()},
            text=text,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
        )
        request = router_service_pb2.DecideRequest(
            bucket=f"buckets/{bucket}",
            context=context,
            limits=limits,
            request_id=request_id,
        )
        made = self._router.Decide(request, timeout=self._timeout).decision
        return Decision(made.name, made.model, made.upstream, tuple(made.fallbacks), made.propensity)

    def report(
        self,
        decision: Decision | str,
        *,
        quality: float | None = None,
        cost_usd: float | None = None,
        latency_seconds: float | None = None,
        success: bool | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        model: str = "",
        idempotency_key: str = "",
    ) -> None:
        """Say what came of a decision, whole or in part, as often as there is news. ``model`` if a fallback answered."""
        outcome = outcome_pb2.Outcome(
            quality=quality,
            cost_usd=cost_usd,
            latency_seconds=latency_seconds,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )
        if success is not None:
            outcome.success = success
        request = router_service_pb2.ReportOutcomeRequest(
            decision=decision if isinstance(decision, str) else decision.name,
            outcome=outcome,
            model=model,
            idempotency_key=idempotency_key,
        )
        self._router.ReportOutcome(request, timeout=self._timeout)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
