"""A decision as the contract's message, with its explanation if that is asked for.

>>> from pointsman.server.codec.event import read_event
>>> from pointsman.v1 import journal_pb2
>>> stored = journal_pb2.DecisionMade(
...     id=bytes(16), bucket="summarize", models=["small", "large"], chosen=1, fallbacks=[0], propensity=0.75,
...     objective={}, quality_range={"max": 1.0},
... )
>>> event = read_event(journal_pb2.JournalEvent(decision_made=stored), terms={})
>>> message = write_decision(event, time_ns=0, models={})
>>> message.model, message.upstream, list(message.fallbacks), message.propensity
('models/large', 'large', ['models/small'], 0.75)
"""

from __future__ import annotations

from collections.abc import Mapping

from pointsman.bandit.catalog import Model
from pointsman.bandit.event import DecisionMade
from pointsman.bandit.limits import describe_exclusions
from pointsman.bandit.policy import logged_propensities, utilities
from pointsman.bandit.state import ModelState
from pointsman.server.codec.request import write_objective
from pointsman.server.names import bucket_name, decision_name, model_name
from pointsman.v1 import decision_pb2


def write_decision(event: DecisionMade, time_ns: int, models: Mapping[str, ModelState]) -> decision_pb2.Decision:
    """The message of a decision made at ``time_ns``, without its candidates. ``models`` is the catalogue as it is now, by id."""
    chosen = event.models[event.chosen]
    state = models.get(chosen)  # none if it was deleted meanwhile
    message = decision_pb2.Decision(
        name=decision_name(event.id),
        bucket=bucket_name(event.bucket),
        model=model_name(chosen),
        upstream=(state.model.upstream if state else "") or chosen,
        fallbacks=[model_name(event.models[i]) for i in event.fallbacks],
        propensity=event.propensity,
        explored=event.explored,
        limits_violated=event.limits_violated,
        objective=write_objective(event.objective),
        state_position=event.state_position,
        newcomer_quota=min(event.quotas or (event.quota,)) if event.newcomers else None,
    )
    message.create_time.FromNanoseconds(time_ns)
    message.expire_time.FromNanoseconds(event.expire_ns)
    return message


def write_candidates(event: DecisionMade, models: Mapping[str, ModelState]) -> list[decision_pb2.Candidate]:
    """The explanation of a decision: every candidate and the numbers with which it was judged.

    ``models`` is the catalogue as it is now, by id.
    """
    predicted, quality = event.predicted, event.quality
    pi_k = logged_propensities(event)
    utility_k = utilities(event.objective, quality, predicted)
    return [
        decision_pb2.Candidate(
            model=model_name(id_),
            eligible=not event.exclusions_k[k],
            exclusions=_exclusions(event, k, models.get(id_)),
            quality_mean=quality.min + quality.width * predicted.quality_k[k],
            quality_sd=quality.width * predicted.quality_sd_k[k],
            cost_usd=predicted.cost_k[k],
            latency_seconds=predicted.latency_k[k],
            latency_p95_seconds=predicted.latency_p95_k[k],
            propensity=pi_k[k],
            utility=utility_k[k],
            newcomer=k in event.newcomers,
        )
        for k, id_ in enumerate(event.models)
    ]


def _exclusions(event: DecisionMade, k: int, state: ModelState | None) -> list[decision_pb2.Exclusion]:
    """Why candidate ``k`` was not eligible; without details if it was deleted meanwhile, and with it what it could do."""
    model = state.model if state else Model(event.models[k])
    reasons = describe_exclusions(int(event.exclusions_k[k]), k, model, event.limits, event.quality, event.predicted)
    return [
        decision_pb2.Exclusion(reason=reason, detail=detail if state else "")  # type: ignore[arg-type]
        for reason, detail in reasons
    ]
