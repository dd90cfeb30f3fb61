"""One bucket's state, posteriors and counts of its models, and the functions that update or read it.

Nothing here knows of other buckets or of events: ``bandit.state`` folds.

>>> from pointsman.bandit.catalog import Bucket
>>> bucket = new_bucket(Bucket("summarize"), version=1, generation=1)
>>> add_columns(bucket, ["small", "large"], position=1)
>>> x_d = np.ones(1)  # no features: the intercept alone
>>> learn(bucket, "small", x_d, [SignalChange(Signal.QUALITY, None, 0.9)])
>>> bucket.count_sk[Signal.QUALITY].tolist(), bucket.posteriors.mean_krd[:, QUALITY, 0].round(3).tolist()
([1, 0], [0.864, 0.5])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pointsman.bandit import feature_scales
from pointsman.bandit.amounts import count_amount, log_amount
from pointsman.bandit.catalog import Bucket, Objective
from pointsman.bandit.encoder import VERSION, Encoder, encoder_of
from pointsman.bandit.feature_scales import FeatureScales, new_scales
from pointsman.bandit.feedback import Feedback, grown, no_feedback, without
from pointsman.bandit.feedback import to_arrays as feedback_arrays
from pointsman.bandit.hierarchical_prior import zero_contribution
from pointsman.bandit.list_prices import no_calls
from pointsman.bandit.outcome import NO_REPORTS, ReportedOutcome, Signal, SignalChange, learning_updates
from pointsman.bandit.pacer import Pacer
from pointsman.bandit.pacer import from_arrays as pacer_from_arrays
from pointsman.bandit.pacer import to_arrays as pacer_arrays
from pointsman.bandit.packed import Array
from pointsman.bandit.posterior import (
    COST,
    LATENCY,
    NONE,
    QUALITY,
    TOKENS,
    Posteriors,
    Prior,
    add_models,
    empty,
    from_arrays,
    observation_counts,
    refresh,
    to_arrays,
    weaken_prior,
    without_model,
)
from pointsman.bandit.predictions import Candidates
from pointsman.bandit.quality_floor import QualityPacer
from pointsman.bandit.quality_floor import from_arrays as quality_pacer_from_arrays
from pointsman.bandit.quality_floor import to_arrays as quality_pacer_arrays
from pointsman.bandit.token_slope import log_tokens
from pointsman.bandit.updates import (
    allow_shift,
    cap_effective_sample_size,
    cap_response_sample_size,
    correct,
    decay,
    decay_all,
    log_decay,
    observe_all,
    retract_all,
)

SIGNALS = max(Signal) + 1
"""Rows of ``count_sk`` and ``sum_sk``: one for each number up to the largest ``Signal``."""
COUNTERS = (
    "born_k",
    "judged_before_k",
    "decisions_k",
    "count_sk",
    "sum_sk",
    "context_d",
    "decayed_until_ns",
    "contribution_2mr",
    "warm_start_k",
    "changed_at_k",
    "paid_k7",
)
"""A bucket's arrays besides its posteriors' and its pacer's, in the order in which snapshots store them."""
FORMER_NAMES = {
    "idle_log_decay_1": "idle_1",
    "count_k": "seen_k",
    "log_decay_k": "faded_k",
    "decayed_until_ns": "faded_ns",
    "contribution_2mr": "said_3mr",
    "judged_before_k": "joined_k",
    "warm_start_k": "warm_k",
    "changed_at_k": "shaken_k",
}
"""What arrays of a bucket were called in snapshots of version 0.1.0, by their present names."""
RESPONSE_OF = {
    Signal.QUALITY: QUALITY,
    Signal.COST: COST,
    Signal.LATENCY: LATENCY,
    Signal.OUTPUT_TOKENS: TOKENS,
}
"""Which regression learns from a signal."""
EXPECTED_TOKENS = 256.0
"""Output tokens expected of an unknown model."""
WARM_START_TRIAL = 200
"""Decisions of a model within which a change of its quality puts the bucket's whole warm start in doubt."""
ESS_AFTER_DISTRUST = 0.3
"""Observations that a warm start in doubt counts as, for each model."""
PRIOR_AFTER_CHANGE = 1.0
"""Most observations that the prior of a model is worth after its quality has changed: what other buckets said of it, or it was
before, is not so here."""
CHANGE_HALF_LIFE = 150.0
"""Decisions of a bucket in which a model's data decay by half after its quality has changed (while the change is recent)."""
CHANGE_DECAY_EVERY = 16
"""Decisions of a bucket between two steps of that decay."""
AGING = 0.5
"""Exponent of aging: what is known of a model that is hardly chosen weighs t^-``AGING`` after t decisions of its bucket."""
AGING_FROM = 128
"""Decisions of a bucket from which on it does."""
HARDLY_CHOSEN = 0.1
"""A model is hardly chosen if it got less than this share of the decisions of an average model of its bucket."""
TIME_DECAY_STEPS = 32
"""Steps per half-life in which decay in time is applied."""


@dataclass(slots=True)
class BucketState:
    """The state of one bucket. Arrays' columns (k) run over ``columns``: every model that was ever a candidate.

    ``decisions_k`` counts choices; ``count_sk`` and ``sum_sk`` (rows by ``Signal``) count and sum the values reported of
    decisions. ``generation`` is the position at which the posteriors started afresh, ``born_k`` that at which each
    column did: what was decided before that is not learned; ``judged_before_k`` is how many outcomes had been judged by then.
    ``context_d`` is the average context, ``decayed_until_ns`` (one number) the time up to which a half-life in time was applied,
    ``contribution_2mr`` the bucket's present contribution to the pooled priors (``bandit.hierarchical_prior.contribution``),
    ``paid_k7`` what calls cost against list prices (``bandit.list_prices``),
    ``warm_start_k`` the judged outcomes of a warm start that is still on trial, ``changed_at_k`` one more than the number of
    decisions when a model's quality was last found to have changed, 0 for never.
    ``feedback`` says which models' calls are judged, ``scales`` are those of its numbers and embeddings, ``pacer`` is there if
    the bucket has a budget, ``quality_pacer`` if its objective has a floor on mean quality. ``members`` are the columns of the
    present candidates (``None``: all columns in their order), ``candidates`` what the policy needs of them, ``objective`` the
    bucket's with its defaults filled in; all three are derived.
    """

    config: Bucket
    version: int
    generation: int
    encoder: Encoder
    columns: tuple[str, ...]
    posteriors: Posteriors
    born_k: npt.NDArray[np.int64]
    decisions_k: npt.NDArray[np.int64]
    judged_before_k: npt.NDArray[np.int64]
    count_sk: npt.NDArray[np.int64]
    sum_sk: npt.NDArray[np.float64]
    context_d: npt.NDArray[np.float64]
    decayed_until_ns: npt.NDArray[np.int64]
    contribution_2mr: npt.NDArray[np.float64]
    warm_start_k: npt.NDArray[np.int64]
    changed_at_k: npt.NDArray[np.int64]
    paid_k7: npt.NDArray[np.float64]
    scales: FeatureScales
    feedback: Feedback
    pacer: Pacer | None = None
    quality_pacer: QualityPacer | None = None
    members: npt.NDArray[np.intp] | None = None
    candidates: Candidates = field(default_factory=lambda: Candidates((), ()))
    objective: Objective = field(default_factory=Objective)


def default_priors(bucket: Bucket) -> tuple[Prior, ...]:
    """Where an unknown model of ``bucket`` starts: quality, log cost, log latency, log output tokens.

    Quality, scaled to [0, 1], starts with an expected noise variance of 0.25, the most that a response between 0 and 1 can have:
    a few early failures then do not condemn a model. The logarithms start with 0.25 too. Intercepts give way to the first few
    observations (``INTERCEPT_PRECISION``), the effects of features later.
    """
    scale = bucket.quality_range
    quality = 0.5 if bucket.priors.quality is None else (bucket.priors.quality - scale.min) / scale.width
    return (
        Prior(quality, b=0.5),
        Prior(math.log(bucket.priors.cost), b=0.5),
        Prior(math.log(bucket.priors.latency), b=0.5),
        Prior(math.log(EXPECTED_TOKENS), b=0.5),
    )


def new_bucket(config: Bucket, version: int, generation: int, encoder_version: int = VERSION) -> BucketState:
    """A bucket without observations and without columns. ``version`` and ``generation`` are positions in the journal."""
    encoder = encoder_of(config.schema, encoder_version)
    return BucketState(
        config=config,
        version=version,
        generation=generation,
        encoder=encoder,
        objective=config.objective.resolve(config.quality_range),
        columns=(),
        posteriors=empty(encoder.dim, encoder.content),
        born_k=np.zeros(0, dtype=np.int64),
        judged_before_k=np.zeros(0, dtype=np.int64),
        decisions_k=np.zeros(0, dtype=np.int64),
        context_d=np.zeros(encoder.dim),
        decayed_until_ns=np.zeros(1, dtype=np.int64),
        contribution_2mr=zero_contribution(0),
        warm_start_k=np.zeros(0, dtype=np.int64),
        changed_at_k=np.zeros(0, dtype=np.int64),
        paid_k7=no_calls(0),
        scales=new_scales(len(config.schema.numbers), len(config.schema.embeddings)),
        feedback=no_feedback(0),
        count_sk=np.zeros((SIGNALS, 0), dtype=np.int64),
        sum_sk=np.zeros((SIGNALS, 0)),
    )


def learn(
    bucket: BucketState,
    model: str,
    x_d: npt.NDArray[np.float64],
    changes: Sequence[SignalChange],
    weight: float = 1.0,
    references: Sequence[float] = (),
    input_tokens: int = -1,
    reported: ReportedOutcome = NO_REPORTS,
) -> None:
    """Learn, in place, ``changes`` of the signals of a response that ``model``, which has a column, gave at ``x_d`` (d).

    What is new counts as ``weight`` observations. ``references`` and ``input_tokens`` (-1 for unknown) are the decision's
    (``DecisionMade``). ``reported`` is all that is known of this response after the changes: what a failed call reports is
    counted, but not all of it is learned (``bandit.outcome.learning_updates``).
    """
    k, posteriors = bucket.columns.index(model), bucket.posteriors
    for change in changes:
        bucket.sum_sk[change.signal, k] += change.after - (change.before or 0.0)
        if change.before is None:
            bucket.count_sk[change.signal, k] += 1
    token = 0.0 if knows_length(bucket) else log_tokens(input_tokens)
    observed: list[tuple[int, float]] = []
    retracted: list[tuple[int, float, float]] = []
    decision_log_decays = [0.0] * len(RESPONSE_OF)
    for update in learning_updates(changes, reported):
        response = RESPONSE_OF.get(update.signal)
        if response is None:
            continue
        now = log_decay(posteriors, k, response)
        decision_log_decays[response] = now if update.log_decay is None else update.log_decay
        left = math.exp(min(0.0, now - decision_log_decays[response]))
        reference = references[response - 1] if references and response != QUALITY else 0.0
        old = None if update.before is None else response_value(bucket, response, update.before, reference)
        new = None if update.after is None else response_value(bucket, response, update.after, reference)
        if response != QUALITY:
            for value, share in ((update.before, -left), (update.after, left if old is not None else left * weight)):
                if value is not None:
                    count_amount(posteriors.amounts, k, response, value, references, share)
        if old is not None and new is not None:
            correct(posteriors, response, k, x_d, old, new, left, token)
        elif new is not None:
            observed.append((response, new))
        elif old is not None:
            retracted.append((response, old, left))
    if retracted:
        retract_all(posteriors, k, x_d, retracted, bucket.config.half_life, token)
    if observed:
        half_life = bucket.config.half_life
        changed = observe_all(posteriors, k, x_d, observed, weight, half_life, decision_log_decays, token)
        if QUALITY in changed:
            bucket.changed_at_k[k] = 1 + bucket.decisions_k.sum()
            weaken_prior(posteriors, k, PRIOR_AFTER_CHANGE)
            if bucket.warm_start_k.any() and bucket.decisions_k[k] < WARM_START_TRIAL:
                _distrust(bucket)
    posteriors.amounts.stale.add(k)


def knows_length(bucket: BucketState) -> bool:
    """Whether the logarithm of the input tokens is a feature by the bucket's schema, so that it need not be put beside x."""
    return bucket.config.schema.input_tokens is not None


def end_warm_start(bucket: BucketState, effective_size: float, level_size: float = math.inf) -> None:
    """End a warm start, in place: cap what was learned so far at ``effective_size`` observations of each model and response, and
    their level alone at ``level_size``.

    Λ = s·Λ_off + Λ₀ with s = effective_size / n (ParetoBandit's warm start, RouterConfig.n_eff); levels as
    ``bandit.updates.allow_shift`` says: another judge's scores are often right but for an offset. What it says of quality is on
    trial: if a model turns out different within its first ``WARM_START_TRIAL`` decisions, no model's
    counts more than a few observations from then on, because they came from the same place.
    """
    for model in range(bucket.posteriors.models):
        for design in range(len(bucket.posteriors.designs)):
            cap_effective_sample_size(bucket.posteriors, design, model, effective_size)
            allow_shift(bucket.posteriors, design, model, level_size)
    bucket.warm_start_k = observation_counts(bucket.posteriors)[:, QUALITY].copy()
    bucket.posteriors.alarm_kr2[:] = 0.0


def _distrust(bucket: BucketState) -> None:
    for model in np.flatnonzero(bucket.warm_start_k):
        cap_response_sample_size(bucket.posteriors, int(model), QUALITY, ESS_AFTER_DISTRUST)
    bucket.warm_start_k[:] = 0


def decay_after_change(bucket: BucketState, decisions: int) -> None:
    """Decay, in place, the data of models whose quality has changed once, so that a change back is found.

    A model that got worse is chosen no more, and its recovery would go unnoticed. The half-life grows with the time since the
    change, so that a model that stays worse is tried again ever more rarely: a number of times that is logarithmic in time.
    """
    design = int(bucket.posteriors.design_r[QUALITY])  # there is one: a change was detected
    for model in np.flatnonzero(bucket.changed_at_k):
        age = decisions - int(bucket.changed_at_k[model])
        decay(bucket.posteriors, design, int(model), 2.0 ** (-CHANGE_DECAY_EVERY / max(CHANGE_HALF_LIFE, age / 4)))
        refresh(bucket.posteriors, design, int(model))


def age_hardly_chosen(bucket: BucketState, decisions: int) -> None:
    """Let what is known of the quality of models that are hardly chosen age, in place, after decision number ``decisions``.

    A model that began unluckily, or that got better since, would stay what it was believed to be, because it is chosen no more.
    Weights that fall with a power of the decisions make it uncertain again, so that draws retry it, a number of times that is
    logarithmic in time. Each model's turn comes four times while decisions double, one model after the other, so that no
    decision takes long to fold. The outcomes of a warm start that is trusted count as calls.
    """
    if decisions < AGING_FROM or not (bucket.config.half_life or bucket.config.half_life_ns):
        return
    posteriors, models = bucket.posteriors, bucket.posteriors.models
    octave = 1 << (decisions.bit_length() - 1)
    step = octave // 4
    offset = decisions % step
    for model in range(-(-offset * models // step), models):
        turn = model * step // models
        if turn != offset:
            break
        called_k = bucket.decisions_k + bucket.warm_start_k
        design = int(posteriors.design_r[QUALITY])
        if design != NONE and called_k[model] < HARDLY_CHOSEN * called_k.mean():
            now = decisions - turn
            before = now - step if now > octave else now - step // 2
            decay(posteriors, design, model, (before / now) ** AGING)
            refresh(posteriors, design, model)


def log_decays(bucket: BucketState, model: str) -> tuple[float, ...]:
    """The present decision_log_decays of forgetting of a model by response; empty if it has no column."""
    if model not in bucket.columns:
        return ()
    k, posteriors = bucket.columns.index(model), bucket.posteriors
    log_decay = [
        *(float(design.log_decay_k[k]) for design in posteriors.designs),
        float(posteriors.idle_log_decay_1[0]),
    ]  # the last: ``NONE``
    return tuple([log_decay[g] for g in posteriors.design_r.tolist()])


def average_quality(bucket: BucketState, models: tuple[str, ...]) -> Array:
    """The expected quality of ``models`` (k), scaled to [0, 1], at the bucket's average context; NaN of one without a column."""
    quality_k = (bucket.posteriors.mean_krd[:, QUALITY] * bucket.context_d).sum(axis=1)
    if models == bucket.columns:
        return np.asarray(quality_k)
    place = {model: k for k, model in enumerate(bucket.columns)}
    return np.array([quality_k[place[model]] if model in place else np.nan for model in models])


def response_value(bucket: BucketState, response: int, value: float, reference: float = 0.0) -> float:
    """A signal's value (bucket's units, dollars, seconds, tokens) on the scale of its regression: [0, 1], or a logarithm
    (``bandit.amounts.log_amount``).
    """
    if response == QUALITY:
        scale = bucket.config.quality_range
        return (value - scale.min) / scale.width
    return log_amount(response, value, reference)


def arrays(bucket: BucketState) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays that make up a bucket's state, by name, in a fixed order: what snapshots store."""
    counters = {name: getattr(bucket, name) for name in COUNTERS}
    pacer = {} if bucket.pacer is None else pacer_arrays(bucket.pacer)
    scales = feature_scales.to_arrays(bucket.scales) if bucket.encoder.measured else {}
    quality_pacer = {} if bucket.quality_pacer is None else quality_pacer_arrays(bucket.quality_pacer)
    return {
        **to_arrays(bucket.posteriors),
        **counters,
        **{f"scales/{name}": array for name, array in scales.items()},
        **{f"feedback/{name}": array for name, array in feedback_arrays(bucket.feedback).items()},
        **{f"pacer/{name}": array for name, array in pacer.items()},
        **{f"quality_pacer/{name}": array for name, array in quality_pacer.items()},
    }


def restore_arrays(bucket: BucketState, named: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put the arrays of ``arrays`` back, in place, also under their ``FORMER_NAMES``. Raises ``KeyError`` if one is missing."""
    present = {former: name for name, former in FORMER_NAMES.items()}
    named = {"/".join([present.get(part, part) for part in name.split("/")]): array for name, array in named.items()}
    bucket.posteriors = from_arrays(named, bucket.encoder.content)
    named.setdefault("paid_k7", no_calls(len(named["born_k"])))  # former snapshots have none
    for name in COUNTERS:
        setattr(bucket, name, named[name])
    feedback = _under("feedback/", named)
    bucket.feedback = (
        Feedback(**feedback) if feedback else no_feedback(len(bucket.columns))
    )  # former snapshots have none
    scales = _under("scales/", named)
    if scales:  # of measured features; former snapshots have none
        bucket.scales = FeatureScales(**scales)
    pacer = _under("pacer/", named)
    bucket.pacer = pacer_from_arrays(pacer) if pacer else None
    quality_pacer = _under("quality_pacer/", named)
    bucket.quality_pacer = quality_pacer_from_arrays(quality_pacer) if quality_pacer else None


def _under(prefix: str, named: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The arrays whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): array for name, array in named.items() if name.startswith(prefix)}


def apply_time_decay(bucket: BucketState, time_ns: int) -> None:
    """Decay all data by the bucket's half-life in time, in place, if a step of it has passed at ``time_ns``."""
    half_life_ns = bucket.config.half_life_ns
    if not half_life_ns:
        return
    passed_ns = time_ns - int(bucket.decayed_until_ns[0]) if bucket.decayed_until_ns[0] else 0
    if passed_ns and passed_ns < half_life_ns // TIME_DECAY_STEPS:
        return
    bucket.decayed_until_ns[0] = time_ns
    if not passed_ns:
        return
    decay_all(bucket.posteriors, max(2.0 ** (-passed_ns / half_life_ns), 1e-300))


def add_columns(bucket: BucketState, models: Sequence[str], position: int) -> None:
    """Add columns for ``models``, in place, without observations, born at journal position ``position``."""
    count, judged = len(models), int(bucket.count_sk[Signal.QUALITY].sum())
    zero_k = np.zeros(count, dtype=np.int64)
    bucket.posteriors = add_models(bucket.posteriors, count, default_priors(bucket.config))
    bucket.columns = (*bucket.columns, *models)
    bucket.born_k = np.concatenate([bucket.born_k, zero_k + position])
    bucket.judged_before_k = np.concatenate([bucket.judged_before_k, zero_k + judged])
    bucket.decisions_k = np.concatenate([bucket.decisions_k, zero_k])
    bucket.count_sk = np.pad(bucket.count_sk, ((0, 0), (0, count)))
    bucket.sum_sk = np.pad(bucket.sum_sk, ((0, 0), (0, count)))
    bucket.warm_start_k = np.concatenate([bucket.warm_start_k, zero_k])
    bucket.changed_at_k = np.concatenate([bucket.changed_at_k, zero_k])
    bucket.paid_k7 = np.pad(bucket.paid_k7, ((0, count), (0, 0)))
    bucket.feedback = grown(bucket.feedback, count)
    bucket.contribution_2mr = np.pad(bucket.contribution_2mr, ((0, 0), (0, count), (0, 0)))


def drop_column(bucket: BucketState, model: str) -> None:
    """Remove a model's column, in place, with its posteriors and counts, if it has one."""
    if model not in bucket.columns:
        return
    k = bucket.columns.index(model)
    bucket.posteriors = without_model(bucket.posteriors, k)
    bucket.columns = bucket.columns[:k] + bucket.columns[k + 1 :]
    bucket.born_k = np.delete(bucket.born_k, k)
    bucket.judged_before_k = np.delete(bucket.judged_before_k, k)
    bucket.decisions_k = np.delete(bucket.decisions_k, k)
    bucket.count_sk = np.delete(bucket.count_sk, k, axis=1)
    bucket.sum_sk = np.delete(bucket.sum_sk, k, axis=1)
    bucket.warm_start_k = np.delete(bucket.warm_start_k, k)
    bucket.changed_at_k = np.delete(bucket.changed_at_k, k)
    bucket.paid_k7 = np.delete(bucket.paid_k7, k, axis=0)
    bucket.feedback = without(bucket.feedback, k)
    bucket.contribution_2mr = np.delete(bucket.contribution_2mr, k + 1, axis=1)
