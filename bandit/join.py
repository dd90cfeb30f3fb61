"""Join of a report and its decision to an outcome event; called by the server and the simulator alike.

>>> import numpy as np
>>> from pointsman.bandit.catalog import Bucket, Model
>>> from pointsman.bandit.decide import decide
>>> from pointsman.bandit.encoder import Context
>>> from pointsman.bandit.event import BucketPut, ModelPut, Record
>>> from pointsman.bandit.state import fold
>>> events = [ModelPut(Model("small")), BucketPut(Bucket("summarize"))]
>>> state = fold([Record(position, 0, event) for position, event in enumerate(events, start=1)])
>>> bucket = state.buckets["summarize"]
>>> encoded, rng = [bucket.encoder.encode(Context())], np.random.default_rng(0)
>>> (decision,) = decide(bucket, encoded, [bytes(16)], rng, health={}, now_ns=0, state_position=state.position)
>>> first = join(bucket, decision, 0, {Signal.QUALITY: 0.5})
>>> second = join(bucket, decision, 0, {Signal.QUALITY: 0.7}, reported_outcomes=first.reported_outcomes)
>>> [(change.before, change.after) for change in (*first.changes, *second.changes)]
[(None, 0.5), (0.5, 0.7)]
"""

from __future__ import annotations

from collections.abc import Mapping

from pointsman.bandit.bucket import RESPONSE_OF, BucketState, log_decays
from pointsman.bandit.errors import FieldError
from pointsman.bandit.event import DecisionMade, OutcomeApplied
from pointsman.bandit.outcome import ReportedOutcome, Signal, check_report, merge


def join(
    bucket: BucketState,
    decision: DecisionMade,
    decided_ns: int,
    report: Mapping[Signal, float],
    *,
    model: str = "",
    reported_outcomes: Mapping[str, ReportedOutcome] | None = None,
    idempotency_key: str = "",
) -> OutcomeApplied:
    """The event of ``report`` on ``decision``, which was made at ``decided_ns``; the state does not change.

    ``model`` is the one reported on, "" for the chosen one; ``reported_outcomes`` is what is known of the decision so far, by
    model. Raises ``FieldError`` for an empty report, a value outside its range, and a model that was not a candidate.
    """
    chosen = decision.models[decision.chosen]
    model = model or chosen
    if model not in decision.models:
        raise FieldError("model", f"models/{model} was not a candidate of this decision")
    check_report(report, bucket.config.quality_range)
    so_far = reported_outcomes or {}
    is_chosen = model == chosen
    log_decays_r = decision.log_decays if is_chosen else log_decays(bucket, model)
    reported, changes = merge(
        so_far.get(model, ReportedOutcome()),
        report,
        bucket.config.rules,
        dict(zip(RESPONSE_OF, log_decays_r, strict=False)),
    )
    return OutcomeApplied(
        decision_id=decision.id,
        bucket=decision.bucket,
        generation=decision.generation,
        model=model,
        x_d=decision.x_d,
        state_position=decision.state_position,
        expected_cost=float(decision.predicted.cost_k[decision.chosen]) if is_chosen else 0.0,
        changes=changes,
        reported_outcomes={**so_far, model: reported},
        idempotency_key=idempotency_key,
        project=decision.project,
        decided_ns=decided_ns,
        max_cost=decision.max_cost if is_chosen else 0.0,
        input_tokens=decision.input_tokens,
        expected_quality=(
            float(decision.predicted.quality_k[decision.chosen])
            if is_chosen and decision.objective.min_mean_quality is not None
            else None
        ),
        references=decision.references if is_chosen else (),
    )
