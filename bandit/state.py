"""State and its fold: ``state = fold(journal)``.

``apply`` is the only thing that changes a state. It reads no clock and no random number, so the same journal gives the
same state, bit for bit; everything derived (candidates, encoders) is made from the events too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bandit.catalog import Aggregation, Bucket, Model, Objective, Priors, Project
from bandit.encoder import Encoder, encoder_of
from bandit.event import (
    AvailabilitySet,
    BucketDeleted,
    BucketPut,
    DecisionMade,
    ModelDeleted,
    ModelPut,
    OutcomeApplied,
    ProjectDeleted,
    ProjectPut,
    Record,
)
from bandit.health import Health, called, passed
from bandit.outcome import Change, Signal
from bandit.pacer import Pacer, Purse, decided, new_pacer, restart_ring, settled
from bandit.pacer import from_arrays as pacer_from_arrays
from bandit.pacer import to_arrays as pacer_arrays
from bandit.policy import Candidates
from bandit.pool import Pool, exchange, forget, nothing, pooled_priors, says, seen
from bandit.posterior import (
    COST,
    LATENCY,
    PRECISION,
    QUALITY,
    TOKENS,
    Posteriors,
    Prior,
    add_models,
    clock,
    correct,
    empty,
    evidence,
    fade,
    fade_all,
    from_arrays,
    observe_all,
    refresh,
    set_prior,
    set_ridge,
    to_arrays,
    weigh,
    widen,
    without_model,
)
from bandit.tail import count, log_factor

SIGNALS = max(Signal) + 1
COUNTERS = (
    "born_k",
    "joined_k",
    "decisions_k",
    "count_sk",
    "sum_sk",
    "context_d",
    "faded_ns",
    "said_3mr",
    "warm_k",
    "shaken_k",
)
RESPONSE_OF = {
    Signal.QUALITY: QUALITY,
    Signal.COST: COST,
    Signal.LATENCY: LATENCY,
    Signal.OUTPUT_TOKENS: TOKENS,
}
"""Which regression learns from a signal."""
SMALLEST = {COST: 1e-7, LATENCY: 1e-4, TOKENS: 1.0}
"""Responses learned as logarithms: nothing, and anything smaller, counts as this (dollars, seconds, tokens)."""
EXPECTED_TOKENS = 256.0
"""Output tokens expected of an unknown model."""
OFFER_EVERY = 16
"""Judged outcomes of a bucket between two times that it tells the pool what it knows; it tells the first ones each."""
FIT_FROM = 32
"""Decisions of a bucket from which on the shrinkage of content features is fitted, at ever rarer times."""
CONTENT_SCALES = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""What their prior precision is multiplied by."""
CONTENT_SPREAD = 2.0
"""Standard deviation of the logarithm of that, beforehand."""
TRIAL = 200
"""Decisions of a model within which a change of its quality puts the whole warm start in doubt, …"""
DISTRUSTED = 0.3
"""… which from then on counts as so many observations of each model."""
SHAKEN = 150.0
"""Decisions of a bucket in which what is known of a model fades by half after its quality has changed, …"""
SHAKE_EVERY = 16
"""… in steps of so many."""
YOUNG = 32
"""Outcomes of a cell from which on the pool says nothing to it any more."""
ESTABLISHED = 20
"""Judged outcomes of a bucket from which on a model that is added is a newcomer."""
ADOPTED = 9
"""Its own judged outcomes from which on it is one no more."""
TICKS = 32
"""Steps in which a half-life in time is applied."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model of the catalogue, whether an operator lets it be chosen, and the position of its last change."""

    model: Model
    available: bool
    version: int


@dataclass(slots=True)
class BucketState:
    """All that is known in one bucket. Columns (k) run over ``columns``: every model that was ever a candidate.

    ``decisions_k`` counts choices; ``count_sk`` and ``sum_sk`` (rows by ``Signal``) count and add up the values known
    of decisions. ``generation`` is the position at which the posteriors started afresh, ``born_k`` that at which each
    column did: what was decided before that is not learned; ``joined_k`` is how many outcomes had been judged by then.
    ``context_d`` is the average context, ``faded_ns`` (one number) the time up to which a half-life in time was applied,
    ``said_3mr`` what the pool was last told (``bandit.pool.says``), ``warm_k`` judged outcomes from a warm start on trial,
    ``shaken_k`` one more than the number of decisions when a model's quality was last found to have changed, 0 for never.
    ``pacer`` is there if the bucket has a budget. ``members`` are the columns of the present candidates (``None``: all columns
    in their order), ``candidates`` what the policy needs of them, ``objective`` the bucket's with its defaults filled in; all
    three are derived.
    """

    config: Bucket
    version: int
    generation: int
    encoder: Encoder
    columns: tuple[str, ...]
    posteriors: Posteriors
    born_k: npt.NDArray[np.int64]
    decisions_k: npt.NDArray[np.int64]
    joined_k: npt.NDArray[np.int64]
    count_sk: npt.NDArray[np.int64]
    sum_sk: npt.NDArray[np.float64]
    context_d: npt.NDArray[np.float64]
    faded_ns: npt.NDArray[np.int64]
    said_3mr: npt.NDArray[np.float64]
    warm_k: npt.NDArray[np.int64]
    shaken_k: npt.NDArray[np.int64]
    pacer: Pacer | None = None
    members: npt.NDArray[np.intp] | None = None
    candidates: Candidates = field(default_factory=lambda: Candidates((), ()))
    objective: Objective = field(default_factory=Objective)


@dataclass(slots=True)
class ProjectState:
    """A project, the position of its last change, and its pacer if it has a budget."""

    project: Project
    version: int
    pacer: Pacer | None


@dataclass(slots=True)
class State:
    """The fold of a journal up to ``position``, whose last event happened at ``time_ns``.

    ``health`` has the models of which a success or failure was ever reported; ``pool`` is what buckets tell each other.
    ``candidates`` are those of each list of models that some bucket has: derived, and shared by all buckets with that list.
    """

    position: int = 0
    time_ns: int = 0
    models: dict[str, ModelState] = field(default_factory=dict)
    buckets: dict[str, BucketState] = field(default_factory=dict)
    projects: dict[str, ProjectState] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    pool: Pool = field(default_factory=Pool)
    candidates: dict[tuple[str, ...], Candidates] = field(default_factory=dict)


def fold(records: Iterable[Record], state: State | None = None) -> State:
    """Apply ``records`` in order to ``state`` (in place; a new one by default) and return it."""
    state = State() if state is None else state
    for record in records:
        apply(state, record)
    return state


def apply(state: State, record: Record) -> None:
    """Apply one record in place. Raises ``ValueError`` if it is not the next one."""
    if record.position != state.position + 1:
        raise ValueError(f"expected the record at position {state.position + 1}, got {record.position}")
    event = record.event
    match event:
        case DecisionMade():
            _apply_decision(state, event, record.time_ns)
        case OutcomeApplied():
            _apply_outcome(state, event, record.time_ns)
        case ModelPut():
            known = state.models.get(event.model.id)
            available = known.available if known else True
            state.models[event.model.id] = ModelState(event.model, available, record.position)
            _renew_all(state, record.position)
        case ModelDeleted():
            state.models.pop(event.model, None)
            state.health.pop(event.model, None)
            for bucket in state.buckets.values():
                _drop_column(bucket, event.model)
            forget(state.pool, [event.model])
            _renew_all(state, record.position)
        case AvailabilitySet():
            if event.model in state.models:
                state.models[event.model] = replace(
                    state.models[event.model],
                    available=event.available,
                    version=record.position,
                )
                _renew_all(state, record.position)
        case BucketPut():
            _put_bucket(state, event.bucket, record.position)
        case BucketDeleted():
            _drop_bucket(state, event.bucket)
        case ProjectPut():
            held = state.projects.get(event.project.id)
            pacer = None if event.project.budget is None else new_pacer(record.position)
            if held is not None and held.project.budget == event.project.budget:
                pacer = held.pacer
            state.projects[event.project.id] = ProjectState(event.project, record.position, pacer)
        case ProjectDeleted():
            state.projects.pop(event.project, None)
    state.position = record.position
    state.time_ns = record.time_ns


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


def new_bucket(config: Bucket, version: int, generation: int) -> BucketState:
    """A bucket that has seen nothing and has no columns yet."""
    encoder = encoder_of(config.schema)
    return BucketState(
        config=config,
        version=version,
        generation=generation,
        encoder=encoder,
        objective=config.objective.resolve(config.quality_range),
        columns=(),
        posteriors=empty(encoder.dim),
        born_k=np.zeros(0, dtype=np.int64),
        joined_k=np.zeros(0, dtype=np.int64),
        decisions_k=np.zeros(0, dtype=np.int64),
        context_d=np.zeros(encoder.dim),
        faded_ns=np.zeros(1, dtype=np.int64),
        said_3mr=nothing(0),
        warm_k=np.zeros(0, dtype=np.int64),
        shaken_k=np.zeros(0, dtype=np.int64),
        count_sk=np.zeros((SIGNALS, 0), dtype=np.int64),
        sum_sk=np.zeros((SIGNALS, 0)),
    )


def renew_candidates(state: State, bucket: BucketState, position: int) -> None:
    """Make ``members`` and ``candidates`` of one bucket anew, in place; new candidates get columns born at ``position``."""
    before, now = bucket.candidates, _candidates(state, bucket.config.models)
    new = [] if now.names == bucket.columns else [model for model in now.names if model not in bucket.columns]
    if new:
        _add_columns(bucket, new, position)
        _pool_priors(state, bucket, list(range(len(bucket.columns) - len(new), len(bucket.columns))))
    if bucket.config.budget is not None and bucket.pacer is None:
        bucket.pacer = new_pacer(position)
    refresh_derived(state, bucket)
    if bucket.pacer is not None and (before.models, before.available) != (now.models, now.available):
        restart_ring(bucket.pacer)


def refresh_derived(state: State, bucket: BucketState) -> None:
    """Make ``members`` and ``candidates`` of one bucket anew, in place; all candidates have columns."""
    bucket.candidates = _candidates(state, bucket.config.models)
    bucket.members = None
    if bucket.candidates.names != bucket.columns:
        place = {model: i for i, model in enumerate(bucket.columns)}
        bucket.members = np.array([place[model] for model in bucket.candidates.names], dtype=np.intp)


def _candidates(state: State, listed: tuple[str, ...]) -> Candidates:
    """The candidates of buckets that list these models; an empty list means every model of the catalogue."""
    found = state.candidates.get(listed)
    if found is None:
        present = [state.models[model] for model in listed or sorted(state.models) if model in state.models]
        found = Candidates(tuple(one.model for one in present), tuple(one.available for one in present))
        state.candidates[listed] = found
    return found


def learn(
    bucket: BucketState,
    model: str,
    x_d: npt.NDArray[np.float64],
    changes: Iterable[Change],
    weight: float = 1.0,
    mark: float = 0.0,
    failed: bool = False,
) -> None:
    """Learn, in place, changes of what ``model``, which has a column, answered at ``x_d``; what is new as ``weight``
    observations. ``mark`` is the 95th percentile that its latency is to be counted against, 0 for none. A ``failed`` call says
    nothing of what an answer costs, how long it takes and how long it is: that is counted, but not learned.
    """
    k, posteriors = bucket.columns.index(model), bucket.posteriors
    first: list[tuple[int, float]] = []
    clocks = [0.0] * len(RESPONSE_OF)
    for change in changes:
        signal, before, after = change.signal, change.before, change.after
        bucket.sum_sk[signal, k] += after - (before or 0.0)
        if before is None:
            bucket.count_sk[signal, k] += 1
        response = RESPONSE_OF.get(signal)
        if response is None or (failed and response != QUALITY):
            continue
        now = clock(posteriors, k, response)
        clocks[response] = now if change.faded is None else change.faded
        left = math.exp(min(0.0, now - clocks[response]))
        new = response_value(bucket, response, after)
        if before is None:
            first.append((response, new))
        else:
            correct(posteriors, response, k, x_d, response_value(bucket, response, before), new, left)
        if response == LATENCY and mark > 0.0:
            if before is not None:
                old = response_value(bucket, response, before)
                count(posteriors.late_kn[k], old - math.log(mark), -left)
            count(posteriors.late_kn[k], new - math.log(mark), left)
            posteriors.tail_k[k] = log_factor(posteriors.late_kn[k])
    if first:
        changed = observe_all(posteriors, k, x_d, first, weight, bucket.config.half_life, clocks)
        if QUALITY in changed:
            bucket.shaken_k[k] = 1 + bucket.decisions_k.sum()
            if bucket.warm_k.any() and bucket.decisions_k[k] < TRIAL:
                _distrust(bucket)


def warm(bucket: BucketState, most: float) -> None:
    """End a warm start: let all that was learned so far count as at most ``most`` observations of each model and response, in
    place.

    The stated effective sample size: Λ = s·Λ_off + Λ₀ with s = most / n (ParetoBandit's warm start, RouterConfig.n_eff). What
    it says of quality is on trial: if a model turns out different within its first ``TRIAL`` decisions, no model's counts more
    than a few observations from then on, because they came from the same place.
    """
    fit_content(bucket)
    for model in range(bucket.posteriors.models):
        for design in range(len(bucket.posteriors.designs)):
            weigh(bucket.posteriors, design, model, most)
    bucket.warm_k = seen(bucket.posteriors)[:, QUALITY].copy()
    bucket.posteriors.alarm_kr2[:] = 0.0


def _distrust(bucket: BucketState) -> None:
    for model in np.flatnonzero(bucket.warm_k):
        widen(bucket.posteriors, int(model), QUALITY, DISTRUSTED)
    bucket.warm_k[:] = 0


def _shake(bucket: BucketState, decisions: int) -> None:
    """Let what is known of models whose quality has changed once fade, in place, so that a change back is found.

    A model that got worse is chosen no more, and would never be seen to recover. The half-life grows with the time since the
    change, so that a model that stays worse is tried again ever more rarely: a number of times that is logarithmic in time.
    """
    number = int(bucket.posteriors.design_r[QUALITY])  # there is one: a change was seen
    for model in np.flatnonzero(bucket.shaken_k):
        age = decisions - int(bucket.shaken_k[model])
        fade(bucket.posteriors, number, int(model), 2.0 ** (-SHAKE_EVERY / max(SHAKEN, age / 4)))
        refresh(bucket.posteriors, number, int(model))


def clocks(bucket: BucketState, model: str) -> tuple[float, ...]:
    """The present clocks of forgetting of a model by response; empty if it has no column."""
    if model not in bucket.columns:
        return ()
    k, posteriors = bucket.columns.index(model), bucket.posteriors
    faded = [
        *(float(design.faded_k[k]) for design in posteriors.designs),
        float(posteriors.idle_1[0]),
    ]  # the last: ``NONE``
    return tuple([faded[g] for g in posteriors.design_r.tolist()])


def newcomers(bucket: BucketState) -> npt.NDArray[np.int64] | None:
    """Judged outcomes of each candidate (k) that is new to a bucket that knows others, -1 for the others; ``None`` if there is
    no newcomer.
    """
    if not (bucket.joined_k >= ESTABLISHED).any():
        return None
    count_k = np.where(bucket.joined_k >= ESTABLISHED, bucket.count_sk[Signal.QUALITY], -1)
    count_k[count_k >= ADOPTED] = -1
    count_k = count_k if bucket.members is None else count_k[bucket.members]
    return count_k if (count_k >= 0).any() else None


def purses(state: State, bucket: BucketState) -> tuple[Purse, ...]:
    """The budgets that decisions of a bucket draw on: its own, then its project's."""
    return tuple(_purses(state, bucket, bucket.config.project))


def _purses(state: State, bucket: BucketState | None, project: str) -> Iterator[Purse]:
    if bucket is not None and bucket.config.budget is not None and bucket.pacer is not None:
        yield Purse(bucket.config.budget, bucket.pacer)
    held = state.projects.get(project)
    if held is not None and held.project.budget is not None and held.pacer is not None:
        yield Purse(held.project.budget, held.pacer)


def response_value(bucket: BucketState, response: int, value: float) -> float:
    """What the regression of ``response`` learns of a signal's value in the bucket's units, dollars, seconds, tokens."""
    if response == QUALITY:
        scale = bucket.config.quality_range
        return (value - scale.min) / scale.width
    return math.log(max(value, SMALLEST[response]))


def fingerprint(state: State) -> str:
    """SHA-256, in hexadecimal, of all that a state holds: two states are equal bit for bit if these are equal."""
    digest = hashlib.sha256(f"{state.position} {state.time_ns}".encode())
    for name, model in sorted(state.models.items()):
        digest.update(repr((name, model.available, model.version, _canonical(model.model))).encode())
    for name, project in sorted(state.projects.items()):
        digest.update(repr((name, project.project, project.version)).encode())
        for array in (pacer_arrays(project.pacer) if project.pacer else {}).values():
            digest.update(np.ascontiguousarray(array).data)
    digest.update(state.pool.level_4r.tobytes())
    for name, offset_4r in sorted(state.pool.offset_4r.items()):
        digest.update(name.encode() + offset_4r.tobytes())
    for name, health in sorted(state.health.items()):
        digest.update(repr((name, health)).encode())
    for name, bucket in sorted(state.buckets.items()):
        digest.update(repr((name, bucket.version, bucket.generation, bucket.columns, bucket.config)).encode())
        for array in arrays(bucket).values():
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def arrays(bucket: BucketState) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays that make a bucket's state, by name, in a fixed order."""
    counters = {name: getattr(bucket, name) for name in COUNTERS}
    pacer = {} if bucket.pacer is None else pacer_arrays(bucket.pacer)
    return {
        **to_arrays(bucket.posteriors),
        **counters,
        **{f"pacer/{name}": array for name, array in pacer.items()},
    }


def restore_arrays(bucket: BucketState, named: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put the arrays of ``arrays`` back, in place. Raises ``KeyError`` if one is missing."""
    bucket.posteriors = from_arrays(named)
    for name in COUNTERS:
        setattr(bucket, name, named[name])
    pacer = {name.removeprefix("pacer/"): array for name, array in named.items() if name.startswith("pacer/")}
    bucket.pacer = pacer_from_arrays(pacer) if pacer else None


def _canonical(model: Model) -> Model:
    return replace(model, tags=dict(sorted(model.tags.items())))


def _put_bucket(state: State, config: Bucket, position: int) -> None:
    known = state.buckets.get(config.id)
    if known is not None and config.same_posteriors(known.config):
        if config.budget != known.config.budget:
            known.pacer = None
        known.config, known.version = config, position
        known.objective = config.objective.resolve(config.quality_range)
        renew_candidates(state, known, position)
        return
    _drop_bucket(state, config.id)
    bucket = new_bucket(config, version=position, generation=position)
    if known is not None and config.budget == known.config.budget:
        bucket.pacer = known.pacer  # what was spent is spent
    renew_candidates(state, bucket, position)
    state.buckets[config.id] = bucket


def _drop_bucket(state: State, id_: str) -> None:
    bucket = state.buckets.pop(id_, None)
    if bucket is not None:
        exchange(state.pool, bucket.columns, bucket.said_3mr, nothing(len(bucket.columns)))


def _renew_all(state: State, position: int) -> None:
    state.candidates.clear()
    for bucket in state.buckets.values():
        renew_candidates(state, bucket, position)
    for project in state.projects.values():
        if project.pacer is not None:
            restart_ring(project.pacer)


def _apply_decision(state: State, event: DecisionMade, time_ns: int) -> None:
    if state.health:
        for i, model in enumerate(event.models):
            if model in state.health:
                passed(state.health[model], chosen=i == event.chosen)
    bucket = state.buckets.get(event.bucket)
    current = bucket is not None and bucket.generation == event.generation
    quality = bucket.config.quality_range if bucket is not None and current else None
    for purse in _purses(state, bucket, event.project):
        decided(purse.pacer, purse.budget, quality, event, time_ns)
    if bucket is None or not current:
        return
    _tick(bucket, time_ns)
    if event.models[event.chosen] in bucket.columns:
        bucket.decisions_k[bucket.columns.index(event.models[event.chosen])] += 1
        total = int(bucket.decisions_k.sum())
        bucket.context_d += (event.x_d - bucket.context_d) / total
        if total % SHAKE_EVERY == 0 and bucket.shaken_k.any():
            _shake(bucket, total)
        if total >= FIT_FROM and _is_round(total):
            fit_content(bucket)
        if total & (total - 1) == 0 and len(state.buckets) > 1:
            seen_kr = seen(bucket.posteriors)
            _pool_priors(state, bucket, np.flatnonzero(seen_kr[:, QUALITY] < YOUNG).tolist())


def _apply_outcome(state: State, event: OutcomeApplied, time_ns: int) -> None:
    for change in event.changes:
        if change.signal is Signal.SUCCESS and change.before is None and event.model in state.models:
            called(state.health.setdefault(event.model, Health()), change.after != 0.0, time_ns)
    bucket = state.buckets.get(event.bucket)
    for purse in _purses(state, bucket, event.project):
        settled(purse.pacer, purse.budget, event, bucket.config.rules.cost if bucket else Aggregation.LAST)
    if bucket is None or bucket.generation != event.generation:
        return
    _tick(bucket, time_ns)
    if event.model in bucket.columns and event.state_position >= bucket.born_k[bucket.columns.index(event.model)]:
        known = event.ledgers.get(event.model)
        success = known.tallies.get(Signal.SUCCESS) if known else None
        failed = success is not None and success.value == 0.0
        learn(bucket, event.model, event.x_d, event.changes, mark=event.mark, failed=failed)
        judged = int(bucket.count_sk[Signal.QUALITY].sum())
        if judged <= OFFER_EVERY or judged % OFFER_EVERY == 0:
            _tell_pool(state, bucket)


def _is_round(number: int) -> bool:
    """Whether ``number`` is a power of two or three times one: ever rarer."""
    number = number // 3 if number % 3 == 0 else number
    return number & (number - 1) == 0


def fit_content(bucket: BucketState) -> None:
    """Fit how strongly the effects of content features on quality are shrunk, in place, by the evidence of what was observed.

    Nobody can know beforehand whether an embedding says much of quality or nothing: the prior's precision of its coefficients
    is multiplied by one of ``CONTENT_SCALES``, that of the largest marginal likelihood times a log-normal prior around 1
    (empirical Bayes). It happens when decisions are folded, not outcomes, whose order must not matter.
    """
    content = bucket.encoder.content
    if content.start == content.stop or not bucket.posteriors.models:
        return
    best, most = bucket.posteriors.ridge_d, -math.inf
    for scale in CONTENT_SCALES:
        ridge_d = np.full(bucket.encoder.dim, PRECISION)
        ridge_d[content] *= scale
        found = evidence(bucket.posteriors, QUALITY, ridge_d) - 0.5 * (math.log(scale) / CONTENT_SPREAD) ** 2
        if found > most:
            best, most = ridge_d, found
    if (best != bucket.posteriors.ridge_d).any():
        set_ridge(bucket.posteriors, best)


def _tick(bucket: BucketState, time_ns: int) -> None:
    """Apply a half-life in time, in place, when a step of it has passed."""
    half_life_ns = bucket.config.half_life_ns
    if not half_life_ns:
        return
    passed_ns = time_ns - int(bucket.faded_ns[0]) if bucket.faded_ns[0] else 0
    if passed_ns and passed_ns < half_life_ns // TICKS:
        return
    bucket.faded_ns[0] = time_ns
    if not passed_ns:
        return
    fade_all(bucket.posteriors, max(2.0 ** (-passed_ns / half_life_ns), 1e-300))


def _tell_pool(state: State, bucket: BucketState) -> None:
    """Tell the pool what a bucket knows by now, in place."""
    said = says(bucket.posteriors, bucket.context_d)
    exchange(state.pool, bucket.columns, bucket.said_3mr, said)
    bucket.said_3mr = said


def _pool_priors(state: State, bucket: BucketState, models: list[int]) -> None:
    """Give columns number ``models``, of which little is known, the pool's priors, in place.

    Not in a bucket whose operator said what to believe, and not before anybody knows anything.
    """
    said = bucket.config.priors != Priors()
    if not models or said or not (state.pool.level_4r[0].any() or bucket.joined_k.any()):
        return
    default = default_priors(bucket.config)
    made = pooled_priors(state.pool, bucket.columns, bucket.said_3mr, bucket.posteriors, bucket.context_d, default)
    for model in models:
        set_prior(bucket.posteriors, model, *made[model])


def _add_columns(bucket: BucketState, models: Sequence[str], position: int) -> None:
    count, judged = len(models), int(bucket.count_sk[Signal.QUALITY].sum())
    nothing_k = np.zeros(count, dtype=np.int64)
    bucket.posteriors = add_models(bucket.posteriors, count, default_priors(bucket.config))
    bucket.columns = (*bucket.columns, *models)
    bucket.born_k = np.concatenate([bucket.born_k, nothing_k + position])
    bucket.joined_k = np.concatenate([bucket.joined_k, nothing_k + judged])
    bucket.decisions_k = np.concatenate([bucket.decisions_k, nothing_k])
    bucket.count_sk = np.pad(bucket.count_sk, ((0, 0), (0, count)))
    bucket.sum_sk = np.pad(bucket.sum_sk, ((0, 0), (0, count)))
    bucket.warm_k = np.concatenate([bucket.warm_k, nothing_k])
    bucket.shaken_k = np.concatenate([bucket.shaken_k, nothing_k])
    bucket.said_3mr = np.pad(bucket.said_3mr, ((0, 0), (0, count), (0, 0)))


def _drop_column(bucket: BucketState, model: str) -> None:
    if model not in bucket.columns:
        return
    k = bucket.columns.index(model)
    bucket.posteriors = without_model(bucket.posteriors, k)
    bucket.columns = bucket.columns[:k] + bucket.columns[k + 1 :]
    bucket.born_k = np.delete(bucket.born_k, k)
    bucket.joined_k = np.delete(bucket.joined_k, k)
    bucket.decisions_k = np.delete(bucket.decisions_k, k)
    bucket.count_sk = np.delete(bucket.count_sk, k, axis=1)
    bucket.sum_sk = np.delete(bucket.sum_sk, k, axis=1)
    bucket.warm_k = np.delete(bucket.warm_k, k)
    bucket.shaken_k = np.delete(bucket.shaken_k, k)
    bucket.said_3mr = np.delete(bucket.said_3mr, k + 1, axis=1)
