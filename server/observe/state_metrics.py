"""Prometheus metrics of the state, read when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from pointsman.bandit.health import Health
from pointsman.bandit.outcome import Signal
from pointsman.bandit.pacer import Pacer
from pointsman.bandit.state import State
from pointsman.server.guards.admission import Admission
from pointsman.server.observe.metrics import OTHER, Metrics
from pointsman.server.state.replica import Replica


class StateCollector:
    """Reads a replica's state when Prometheus asks. To be called on the replica's event loop."""

    def __init__(self, replica: Replica, admission: Admission, metrics: Metrics) -> None:
        self._replica, self._admission, self._metrics = replica, admission, metrics

    def collect(self) -> Iterator[Metric]:
        """The metrics of the state as it is now."""
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
        yield circuit_breakers(state.health)
        yield self._spend(state)
        yield from budgets(
            {
                **{f"buckets/{id_}": bucket.pacer for id_, bucket in state.buckets.items() if self._is_labelled(id_)},
                **{f"projects/{id_}": project.pacer for id_, project in state.projects.items()},
            }
        )

    def _is_labelled(self, bucket: str) -> bool:
        return self._metrics.bucket(bucket) != OTHER

    def _spend(self, state: State) -> Metric:
        """Reported cost by bucket, in dollars; buckets without a label of their own are added up."""
        spend = GaugeMetricFamily(
            "pointsman_spend_usd", "Reported cost since the start of a bucket.", labels=("bucket",)
        )
        other_dollars = 0.0
        for id_, bucket in state.buckets.items():
            dollars = float(bucket.sum_sk[Signal.COST].sum())
            if self._is_labelled(id_):
                spend.add_metric((id_,), dollars)
            else:
                other_dollars += dollars
        if other_dollars:
            spend.add_metric((OTHER,), other_dollars)
        return spend


def circuit_breakers(health: Mapping[str, Health]) -> Metric:
    """Whether the circuit breaker of each model, by id, is open.

    >>> [(sample.labels["model"], sample.value) for sample in circuit_breakers({"small": Health(open=True)}).samples]
    [('small', 1.0)]
    """
    breakers = GaugeMetricFamily("pointsman_circuit_open", "1 if a model's breaker is open.", labels=("model",))
    for model, model_health in health.items():
        breakers.add_metric((model,), float(model_health.open))
    return breakers


def budgets(pacers: Mapping[str, Pacer | None]) -> Iterator[Metric]:
    """The multiplier and the dollars spent of each budget; ``pacers`` by the budget's holder, ``None`` without a budget."""
    multiplier = GaugeMetricFamily(
        "pointsman_budget_multiplier", "Quality (of its range) that a dollar must buy.", labels=("holder",)
    )
    spent = GaugeMetricFamily("pointsman_budget_spent_usd", "Counted against a budget.", labels=("holder",))
    for holder, pacer in pacers.items():
        if pacer is not None:
            multiplier.add_metric((holder,), pacer.multiplier)
            spent.add_metric((holder,), pacer.spent)
    yield from (multiplier, spent)
