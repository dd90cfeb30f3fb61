"""Prometheus metrics of the state, read when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from pointsman.bandit.outcome import FIELDS
from pointsman.server.guards.admission import Admission
from pointsman.server.observe.metrics import OTHER, Metrics
from pointsman.server.state.replica import Replica


class StateCollector:
    """Reads a replica's state when Prometheus looks. Must be asked on the replica's event loop."""

    def __init__(self, replica: Replica, admission: Admission, metrics: Metrics) -> None:
        self._replica, self._admission, self._metrics = replica, admission, metrics

    def collect(self) -> Iterator[Metric]:
        """The metrics of the state as it is."""
        state, admission = self._replica.state, self._admission
        for name, text, value in (
            ("pointsman_journal_position", "Position of the last event folded.", state.position),
            ("pointsman_snapshot_position", "Position of the last snapshot.", self._replica.snapshotting.position),
            ("pointsman_models", "Models in the catalogue.", len(state.models)),
            ("pointsman_buckets", "Buckets in the catalogue.", len(state.buckets)),
            ("pointsman_watchers", "Callers that watch decisions.", len(self._replica.watchers)),
            ("pointsman_broken", "1 if nothing can be written any more.", int(self._replica.broken.is_set())),
            ("pointsman_calls_in_flight", "Calls under way, by weight.", admission.in_flight),
            ("pointsman_calls_shed", "Calls refused for want of capacity since the start.", admission.shed),
            ("pointsman_refused_share", "Share of calls that is refused at present.", admission.refused_share),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        open_ = GaugeMetricFamily("pointsman_circuit_open", "1 if a model's breaker is open.", labels=("model",))
        for model, health in state.health.items():
            open_.add_metric((model,), float(health.open))
        yield open_
        spent = GaugeMetricFamily(
            "pointsman_spend_usd", "Reported cost since the start of a bucket.", labels=("bucket",)
        )
        paced = GaugeMetricFamily(
            "pointsman_budget_multiplier", "Quality (of its range) that a dollar must buy.", labels=("holder",)
        )
        of_period = GaugeMetricFamily("pointsman_budget_spent_usd", "Counted against a budget.", labels=("holder",))
        total = 0.0
        for id_, bucket in state.buckets.items():
            dollars = float(bucket.sum_sk[_COST].sum())
            if self._metrics.bucket(id_) == OTHER:
                total += dollars
                continue
            spent.add_metric((id_,), dollars)
            if bucket.pacer is not None:
                paced.add_metric((f"buckets/{id_}",), bucket.pacer.multiplier)
                of_period.add_metric((f"buckets/{id_}",), bucket.pacer.spent)
        if total:
            spent.add_metric((OTHER,), total)
        for id_, project in state.projects.items():
            if project.pacer is not None:
                paced.add_metric((f"projects/{id_}",), project.pacer.multiplier)
                of_period.add_metric((f"projects/{id_}",), project.pacer.spent)
        yield from (spent, paced, of_period)


_COST = next(signal for signal, name in FIELDS.items() if name == "cost_usd")
