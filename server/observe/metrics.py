"""Prometheus metrics of events, counted as they happen.

Counting costs a decision about 3 µs: one look-up in a dict and three additions. Buckets beyond ``MAX_BUCKETS`` share one label.

>>> metrics = Metrics()
>>> metrics.appended(groups=3, seconds=0.002, lag=0.0001)
>>> metrics.registry.get_sample_value("pointsman_append_groups_sum")
3.0
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from pointsman.bandit.event import DecisionMade, OutcomeApplied, Record
from pointsman.bandit.outcome import FIELDS

MAX_BUCKETS = 200
"""Buckets that have labels of their own; the others are `other`."""
OTHER = "other"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_SHARES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class Metrics:
    """The numbers of one server process. ``record`` and ``appended`` are called on the event loop."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registered: dict[str, Any] = {"registry": self.registry}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.calls = Counter("pointsman_calls", "Calls answered.", ("method", "code"), **registered)
        self.seconds = Histogram(
            "pointsman_call_seconds", "How long calls took.", ("method",), buckets=_SECONDS, **registered
        )
        self._decisions = Counter("pointsman_decisions", "Decisions made.", ("bucket", "model"), **registered)
        self._explored = Counter(
            "pointsman_decisions_explored",
            "Decisions by the exploration floor's even draw.",
            ("bucket",),
            **registered,
        )
        self._propensity = Histogram(
            "pointsman_propensity", "Propensities of the decisions.", ("bucket",), buckets=_SHARES, **registered
        )
        self._outcomes = Counter(
            "pointsman_outcomes", "Signals reported for the first time.", ("signal",), **registered
        )
        self._groups = Histogram("pointsman_append_groups", "Groups in one append.", buckets=_SIZES, **registered)
        self._append = Histogram(
            "pointsman_append_seconds", "How long appends took to be durable.", buckets=_SECONDS, **registered
        )
        self._fold = Histogram(
            "pointsman_fold_lag_seconds",
            "Time from an append's being durable to its fold.",
            buckets=_SECONDS,
            **registered,
        )
        self._children: dict[tuple[str, str], tuple[Any, Any, Any]] = {}
        self._labelled: set[str] = set()

    def bucket(self, id_: str) -> str:
        """The label of a bucket: its id, or ``OTHER`` once ``MAX_BUCKETS`` have labels of their own."""
        if id_ not in self._labelled:
            if len(self._labelled) >= MAX_BUCKETS:
                return OTHER
            self._labelled.add(id_)
        return id_

    def record(self, record: Record) -> None:
        """Count a decision, or the signals that an outcome reports for the first time."""
        event = record.event
        if isinstance(event, DecisionMade):
            key = event.bucket, event.models[event.chosen]
            children = self._children.get(key)
            if children is None:
                bucket = self.bucket(event.bucket)
                model = OTHER if bucket == OTHER else key[1]
                children = (
                    self._decisions.labels(bucket, model),
                    self._propensity.labels(bucket),
                    self._explored.labels(bucket),
                )
                if bucket != OTHER:
                    self._children[key] = children
            children[0].inc()
            children[1].observe(event.propensity)
            if event.explored:
                children[2].inc()
        elif isinstance(event, OutcomeApplied):
            for change in event.changes:
                if change.before is None:
                    self._outcomes.labels(FIELDS[change.signal]).inc()

    def appended(self, groups: int, seconds: float, lag: float) -> None:
        """Count an append of ``groups``: ``seconds`` until it was durable, and the ``lag`` in seconds until it was folded."""
        self._groups.observe(groups)
        self._append.observe(seconds)
        self._fold.observe(lag)
