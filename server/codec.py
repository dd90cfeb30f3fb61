"""Between the contract's messages and the core's values, both ways. No decisions are made here.

Reading a message raises ``FieldError`` with the path of the wrong field, relative to the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np

from pointsman.bandit import catalog as c
from pointsman.bandit import event as e
from pointsman.bandit.decide import NO_LIMITS
from pointsman.bandit.encoder import Context
from pointsman.bandit.errors import FieldError, within
from pointsman.bandit.outcome import Change, Ledger, Signal, Tally
from pointsman.bandit.policy import Limits, Predictions
from pointsman.server.names import bucket_name, model_name, parse, project_name
from pointsman.v1 import catalog_pb2 as pb
from pointsman.v1 import context_pb2, decision_pb2, journal_pb2, outcome_pb2

NS = 1_000_000_000
_MAX_WINDOW_SECONDS = c.MAX_WINDOW_NS // NS


# --- models ---------------------------------------------------------------------------------------------------------


def read_model(message: pb.Model) -> c.Model:
    """A model, without its availability and etag."""
    prices = None
    if message.HasField("prices"):
        with within("prices"):
            p = message.prices
            prices = c.Prices(
                p.input_usd_per_million_tokens,
                p.output_usd_per_million_tokens,
                p.request_usd,
            )
    return c.Model(
        id=parse(message.name, "models", "name"),
        display_name=message.display_name,
        upstream=message.upstream,
        prices=prices,
        context_window=message.context_window,
        max_output_tokens=message.max_output_tokens,
        capabilities=tuple(message.capabilities),
        tags=dict(sorted(message.tags.items())),
    )


def write_model(model: c.Model, available: bool = True, etag: str = "") -> pb.Model:
    """The message of a model."""
    prices = None
    if model.prices is not None:
        prices = pb.Prices(
            input_usd_per_million_tokens=model.prices.input_per_million,
            output_usd_per_million_tokens=model.prices.output_per_million,
            request_usd=model.prices.per_request,
        )
    return pb.Model(
        name=model_name(model.id),
        display_name=model.display_name,
        upstream=model.upstream,
        prices=prices,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        capabilities=model.capabilities,
        tags=model.tags,
        availability=pb.MODEL_AVAILABILITY_ENABLED if available else pb.MODEL_AVAILABILITY_DISABLED,
        etag=etag,
    )


# --- buckets --------------------------------------------------------------------------------------------------------


def read_bucket(message: pb.Bucket) -> c.Bucket:
    """A bucket, without its etag."""
    default = c.Bucket("default")
    with within("context_schema"):
        schema = _read_schema(message.context_schema)
    with within("quality_range"):
        quality = default.quality_range
        if message.HasField("quality_range"):
            quality = c.QualityRange(message.quality_range.min, message.quality_range.max)
    window_ns = default.window_ns
    if message.HasField("attribution_window"):
        window = message.attribution_window
        if not 0 <= window.seconds <= _MAX_WINDOW_SECONDS:
            raise FieldError(
                "attribution_window",
                f"expected more than 0 and at most 90 days, got {window.seconds} s",
            )
        window_ns = window.seconds * NS + window.nanos
    with within("objective"):
        objective = read_objective(message.objective) or default.objective
    with within("outcome_rules"):
        rules = message.outcome_rules
        outcome_rules = c.OutcomeRules(
            _read_aggregation(rules.quality, "quality"),
            _read_aggregation(rules.cost, "cost"),
            _read_aggregation(rules.latency, "latency"),
        )
    with within("priors"):
        p = message.priors
        priors = c.Priors(
            quality=p.quality if p.HasField("quality") else None,
            cost=p.cost_usd if p.HasField("cost_usd") else default.priors.cost,
            latency=p.latency_seconds if p.HasField("latency_seconds") else default.priors.latency,
        )
    with within("budget"):
        budget = _read_budget(message.budget) if message.HasField("budget") else None
    floor = message.exploration_floor if message.HasField("exploration_floor") else None
    half_life_ns = 0
    if message.HasField("half_life"):
        period = message.half_life
        if not 0 <= period.seconds <= c.MAX_HALF_LIFE_NS // NS:
            raise FieldError("half_life", f"expected one minute to 10,000 days, got {period.seconds} s")
        half_life_ns = period.seconds * NS + period.nanos or 1
    half_life = 0.0 if half_life_ns else default.half_life
    return c.Bucket(
        id=parse(message.name, "buckets", "name"),
        display_name=message.display_name,
        schema=schema,
        models=tuple(parse(name, "models", f"models[{i}]") for i, name in enumerate(message.models)),
        objective=objective,
        exploration_floor=floor,
        quality_range=quality,
        window_ns=window_ns,
        rules=outcome_rules,
        priors=priors,
        budget=budget,
        half_life=message.half_life_outcomes if message.HasField("half_life_outcomes") else half_life,
        half_life_ns=half_life_ns,
        project=parse(message.project, "projects", "project") if message.project else "",
    )


def _read_budget(message: pb.Budget) -> c.Budget:
    match message.WhichOneof("amount"):
        case "usd_per_request":
            if message.HasField("period"):
                raise FieldError("period", "expected nothing with usd_per_request")
            return c.Budget(message.usd_per_request, hard=message.hard)
        case "usd_per_period":
            period = message.period
            if not 0 <= period.seconds <= _MAX_WINDOW_SECONDS:
                raise FieldError("period", f"expected one second to 90 days, got {period.seconds} s")
            period_ns = period.seconds * NS + period.nanos if message.HasField("period") else c.DAY_NS
            return c.Budget(message.usd_per_period, period_ns or 1, message.hard)
        case _:
            raise FieldError("amount", "expected usd_per_request or usd_per_period, got neither")


def write_budget(budget: c.Budget) -> pb.Budget:
    """The message of a budget."""
    if not budget.period_ns:
        return pb.Budget(usd_per_request=budget.amount)
    message = pb.Budget(usd_per_period=budget.amount, hard=budget.hard)
    message.period.FromNanoseconds(budget.period_ns)
    return message


def write_bucket(bucket: c.Bucket, etag: str = "") -> pb.Bucket:
    """The message of a bucket, every default filled in."""
    message = pb.Bucket(
        name=bucket_name(bucket.id),
        display_name=bucket.display_name,
        context_schema=_write_schema(bucket.schema),
        models=[model_name(model) for model in bucket.models],
        objective=write_objective(bucket.objective),
        exploration_floor=bucket.exploration_floor,
        quality_range=pb.QualityRange(min=bucket.quality_range.min, max=bucket.quality_range.max),
        outcome_rules=pb.OutcomeRules(
            quality=_write_aggregation(bucket.rules.quality),
            cost=_write_aggregation(bucket.rules.cost),
            latency=_write_aggregation(bucket.rules.latency),
        ),
        priors=pb.Priors(
            quality=bucket.priors.quality,
            cost_usd=bucket.priors.cost,
            latency_seconds=bucket.priors.latency,
        ),
        half_life_outcomes=bucket.half_life,
        budget=None if bucket.budget is None else write_budget(bucket.budget),
        project=project_name(bucket.project) if bucket.project else "",
        etag=etag,
    )
    message.attribution_window.FromNanoseconds(bucket.window_ns)
    if bucket.half_life_ns:
        message.half_life.FromNanoseconds(bucket.half_life_ns)
    return message


def read_project(message: pb.Project) -> c.Project:
    """A project, without its etag."""
    with within("budget"):
        budget = _read_budget(message.budget) if message.HasField("budget") else None
    return c.Project(parse(message.name, "projects", "name"), message.display_name, budget)


def write_project(project: c.Project, etag: str = "") -> pb.Project:
    """The message of a project."""
    return pb.Project(
        name=project_name(project.id),
        display_name=project.display_name,
        budget=None if project.budget is None else write_budget(project.budget),
        etag=etag,
    )


def _read_schema(message: pb.ContextSchema) -> c.Schema:
    numbers = []
    for i, number in enumerate(message.numbers):
        with within(f"numbers[{i}]"):
            scale = number.scale if number.HasField("scale") else 1.0
            numbers.append(c.NumberFeature(number.name, number.center, scale, number.optional))
    categories = []
    for i, category in enumerate(message.categories):
        with within(f"categories[{i}]"):
            categories.append(
                c.CategoryFeature(
                    category.name,
                    tuple(category.values),
                    category.optional,
                    category.open,
                )
            )
    embeddings = []
    for i, embedding in enumerate(message.embeddings):
        with within(f"embeddings[{i}]"):
            scale = embedding.scale if embedding.HasField("scale") else 1.0
            embeddings.append(c.EmbeddingFeature(embedding.name, embedding.dimension, scale, embedding.optional))
    return c.Schema(
        numbers=tuple(numbers),
        categories=tuple(categories),
        embeddings=tuple(embeddings),
        text=c.TextFeature(message.text.optional) if message.HasField("text") else None,
        input_tokens=(c.TokenCountFeature(message.input_tokens.optional) if message.HasField("input_tokens") else None),
    )


def _write_schema(schema: c.Schema) -> pb.ContextSchema:
    return pb.ContextSchema(
        numbers=[
            pb.NumberFeature(name=n.name, center=n.center, scale=n.scale, optional=n.optional) for n in schema.numbers
        ],
        categories=[
            pb.CategoryFeature(name=f.name, values=f.values, optional=f.optional, open=f.open)
            for f in schema.categories
        ],
        embeddings=[
            pb.EmbeddingFeature(name=f.name, dimension=f.dimension, scale=f.scale, optional=f.optional)
            for f in schema.embeddings
        ],
        text=None if schema.text is None else pb.TextFeature(optional=schema.text.optional),
        input_tokens=(
            None if schema.input_tokens is None else pb.TokenCountFeature(optional=schema.input_tokens.optional)
        ),
    )


_AGGREGATIONS = {
    pb.AGGREGATION_UNSPECIFIED: c.Aggregation.LAST,
    pb.AGGREGATION_LAST: c.Aggregation.LAST,
    pb.AGGREGATION_MEAN: c.Aggregation.MEAN,
    pb.AGGREGATION_SUM: c.Aggregation.SUM,
}


_AGGREGATION_NUMBERS = {
    c.Aggregation.LAST: pb.AGGREGATION_LAST,
    c.Aggregation.MEAN: pb.AGGREGATION_MEAN,
    c.Aggregation.SUM: pb.AGGREGATION_SUM,
}


def _read_aggregation(value: pb.Aggregation, field: str) -> c.Aggregation:
    if value not in _AGGREGATIONS:
        raise FieldError(field, f"expected an Aggregation, got the unknown number {value}")
    return _AGGREGATIONS[value]


def _write_aggregation(value: c.Aggregation) -> pb.Aggregation:
    return _AGGREGATION_NUMBERS[value]


# --- objectives, limits, contexts -----------------------------------------------------------------------------------

_MODE_NUMBERS = {
    c.Mode.BALANCED: pb.OBJECTIVE_MODE_BALANCED,
    c.Mode.QUALITY_FIRST: pb.OBJECTIVE_MODE_QUALITY_FIRST,
    c.Mode.COST_FIRST: pb.OBJECTIVE_MODE_COST_FIRST,
    c.Mode.LATENCY_FIRST: pb.OBJECTIVE_MODE_LATENCY_FIRST,
    c.Mode.WEIGHTED: pb.OBJECTIVE_MODE_WEIGHTED,
}
_MODES = {int(number): mode for mode, number in _MODE_NUMBERS.items()}


def read_objective(message: pb.Objective) -> c.Objective | None:
    """An objective, or ``None`` if nothing at all is said."""
    if message == pb.Objective():
        return None
    if message.mode not in _MODES and message.mode != pb.OBJECTIVE_MODE_UNSPECIFIED:
        raise FieldError("mode", f"expected an ObjectiveMode, got the unknown number {message.mode}")
    floor = message.WhichOneof("quality_floor")
    return c.Objective(
        mode=_MODES.get(message.mode, c.Mode.BALANCED),
        cost_weight=message.cost_weight if message.HasField("cost_weight") else None,
        latency_weight=message.latency_weight if message.HasField("latency_weight") else None,
        min_quality=message.min_quality if floor == "min_quality" else None,
        max_quality_loss=message.max_quality_loss if floor == "max_quality_loss" else None,
    )


@lru_cache(maxsize=256)
def write_objective(objective: c.Objective) -> pb.Objective:
    """The message of an objective; shared, not to be changed."""
    return pb.Objective(
        mode=_MODE_NUMBERS[objective.mode],
        cost_weight=objective.cost_weight,
        latency_weight=objective.latency_weight,
        min_quality=objective.min_quality,
        max_quality_loss=objective.max_quality_loss,
    )


def read_limits(message: decision_pb2.Limits) -> Limits:
    """What a request demands of its candidates."""
    if message.latency_statistic not in decision_pb2.LatencyStatistic.values():
        raise FieldError("latency_statistic", f"got the unknown number {message.latency_statistic}")
    return Limits(
        max_cost=message.max_cost_usd if message.HasField("max_cost_usd") else None,
        max_latency=message.max_latency_seconds if message.HasField("max_latency_seconds") else None,
        latency_p95=message.latency_statistic == decision_pb2.LATENCY_STATISTIC_P95,
        min_quality=message.min_quality if message.HasField("min_quality") else None,
        allow=_read_models(message.allow_models, "allow_models"),
        deny=_read_models(message.deny_models, "deny_models"),
        capabilities=frozenset(message.required_capabilities),
        tags=dict(message.required_tags),
        allow_least_violating=message.allow_least_violating,
    )


def write_limits(limits: Limits) -> decision_pb2.Limits | None:
    """The message of limits; nothing where nothing is said."""
    if limits is NO_LIMITS:
        return None
    statistic = decision_pb2.LATENCY_STATISTIC_P95 if limits.latency_p95 else decision_pb2.LATENCY_STATISTIC_MEAN
    return decision_pb2.Limits(
        max_cost_usd=limits.max_cost,
        max_latency_seconds=limits.max_latency,
        latency_statistic=statistic if limits.max_latency is not None else None,
        min_quality=limits.min_quality,
        allow_models=[model_name(model) for model in sorted(limits.allow)],
        deny_models=[model_name(model) for model in sorted(limits.deny)],
        required_capabilities=sorted(limits.capabilities),
        required_tags=limits.tags,
        allow_least_violating=limits.allow_least_violating,
    )


def _read_models(names: Iterable[str], field: str) -> frozenset[str]:
    return frozenset(parse(name, "models", f"{field}[{i}]") for i, name in enumerate(names))


def read_context(message: context_pb2.Context) -> Context:
    """What is known of a request. Values are checked against a schema by the encoder."""
    return Context(
        numbers=message.numbers,
        categories=message.categories,
        embeddings={name: vector.values for name, vector in message.embeddings.items()},
        text=message.text if message.HasField("text") else None,
        input_tokens=message.input_tokens if message.HasField("input_tokens") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
    )


# --- outcomes -------------------------------------------------------------------------------------------------------

_OUTCOME_FIELDS = {
    "quality": Signal.QUALITY,
    "cost_usd": Signal.COST,
    "latency_seconds": Signal.LATENCY,
    "success": Signal.SUCCESS,
    "input_tokens": Signal.INPUT_TOKENS,
    "output_tokens": Signal.OUTPUT_TOKENS,
}


def read_outcome(message: outcome_pb2.Outcome) -> dict[Signal, float]:
    """The signals that are set, as numbers."""
    return {
        _OUTCOME_FIELDS[descriptor.name]: float(value)
        for descriptor, value in message.ListFields()
        if descriptor.name in _OUTCOME_FIELDS
    }


def write_outcome(ledger: Ledger) -> outcome_pb2.Outcome:
    """The message of all that is known of a decision's outcome."""
    values = {signal: tally.value for signal, tally in ledger.tallies.items()}
    message = outcome_pb2.Outcome()
    for name, signal in _OUTCOME_FIELDS.items():
        if signal in values:
            value = values[signal]
            if signal is Signal.SUCCESS:
                message.success = value != 0.0
            elif signal in (Signal.INPUT_TOKENS, Signal.OUTPUT_TOKENS):
                setattr(message, name, int(value))
            else:
                setattr(message, name, value)
    return message


_SIGNAL_NUMBERS = {
    Signal.QUALITY: journal_pb2.SIGNAL_QUALITY,
    Signal.COST: journal_pb2.SIGNAL_COST,
    Signal.LATENCY: journal_pb2.SIGNAL_LATENCY,
    Signal.SUCCESS: journal_pb2.SIGNAL_SUCCESS,
    Signal.INPUT_TOKENS: journal_pb2.SIGNAL_INPUT_TOKENS,
    Signal.OUTPUT_TOKENS: journal_pb2.SIGNAL_OUTPUT_TOKENS,
}


# --- journal events -------------------------------------------------------------------------------------------------


def write_event(event: e.Event) -> journal_pb2.JournalEvent:
    """The message of an event, without its time."""
    match event:
        case e.DecisionMade():
            return journal_pb2.JournalEvent(decision_made=_write_decision(event))
        case e.OutcomeApplied():
            return journal_pb2.JournalEvent(outcome_applied=_write_outcome_applied(event))
        case e.ModelPut():
            return journal_pb2.JournalEvent(model_put=journal_pb2.ModelPut(model=write_model(event.model)))
        case e.ModelDeleted():
            return journal_pb2.JournalEvent(model_deleted=journal_pb2.ModelDeleted(model=event.model))
        case e.AvailabilitySet():
            availability = pb.MODEL_AVAILABILITY_ENABLED if event.available else pb.MODEL_AVAILABILITY_DISABLED
            return journal_pb2.JournalEvent(
                model_availability_set=journal_pb2.ModelAvailabilitySet(
                    model=event.model, availability=availability, reason=event.reason
                )
            )
        case e.BucketPut():
            return journal_pb2.JournalEvent(bucket_put=journal_pb2.BucketPut(bucket=write_bucket(event.bucket)))
        case e.BucketDeleted():
            return journal_pb2.JournalEvent(bucket_deleted=journal_pb2.BucketDeleted(bucket=event.bucket))
        case e.ProjectPut():
            return journal_pb2.JournalEvent(project_put=journal_pb2.ProjectPut(project=write_project(event.project)))
        case e.ProjectDeleted():
            return journal_pb2.JournalEvent(project_deleted=journal_pb2.ProjectDeleted(project=event.project))


def read_event(message: journal_pb2.JournalEvent) -> e.Event:
    """The event of a message. Raises ``ValueError`` for a kind that this version does not know."""
    match message.WhichOneof("kind"):
        case "decision_made":
            return _read_decision(message.decision_made)
        case "outcome_applied":
            return _read_outcome_applied(message.outcome_applied)
        case "model_put":
            return e.ModelPut(read_model(message.model_put.model))
        case "model_deleted":
            return e.ModelDeleted(message.model_deleted.model)
        case "model_availability_set":
            switch = message.model_availability_set
            return e.AvailabilitySet(
                switch.model,
                switch.availability != pb.MODEL_AVAILABILITY_DISABLED,
                switch.reason,
            )
        case "bucket_put":
            return e.BucketPut(read_bucket(message.bucket_put.bucket))
        case "bucket_deleted":
            return e.BucketDeleted(message.bucket_deleted.bucket)
        case "project_put":
            return e.ProjectPut(read_project(message.project_put.project))
        case "project_deleted":
            return e.ProjectDeleted(message.project_deleted.project)
        case _:
            raise ValueError("a journal event is of a kind that this version of Pointsman does not know")


def _write_decision(event: e.DecisionMade) -> journal_pb2.DecisionMade:
    predicted = event.predicted
    return journal_pb2.DecisionMade(
        id=event.id,
        bucket=event.bucket,
        generation=event.generation,
        features=event.x_d.tolist(),
        models=event.models,
        chosen=event.chosen,
        fallbacks=event.fallbacks,
        propensity=event.propensity,
        explored=event.explored,
        limits_violated=event.limits_violated,
        quality_mean=predicted.quality_k.tolist(),
        quality_sd=predicted.quality_sd_k.tolist(),
        cost=predicted.cost_k.tolist(),
        latency=predicted.latency_k.tolist(),
        latency_p95=predicted.latency_p95_k.tolist(),
        output_tokens=predicted.tokens_k.tolist(),
        quality_draw=event.draw_k.tolist(),
        exclusions=event.exclusions_k.tolist(),
        objective=write_objective(event.objective),
        multiplier=event.multiplier,
        exploration_floor=event.exploration_floor,
        limits=write_limits(event.limits),
        state_position=event.state_position,
        expire_time_ns=event.expire_ns,
        request_id=event.request_id,
        input_tokens=event.input_tokens,
        max_output_tokens=event.max_output_tokens,
        newcomers=event.newcomers,
        quota=event.quota,
        worst_cost=event.worst_cost,
        latency_mark=event.mark,
        clocks=event.clocks,
        project=event.project,
    )


def _read_decision(m: journal_pb2.DecisionMade) -> e.DecisionMade:
    return e.DecisionMade(
        id=m.id,
        bucket=m.bucket,
        generation=m.generation,
        x_d=np.array(m.features, dtype=np.float64),
        models=tuple(m.models),
        chosen=m.chosen,
        fallbacks=tuple(m.fallbacks),
        propensity=m.propensity,
        explored=m.explored,
        limits_violated=m.limits_violated,
        predicted=Predictions(
            np.array(m.quality_mean),
            np.array(m.quality_sd),
            np.array(m.cost),
            np.array(m.latency),
            np.array(m.latency_p95),
            np.array(m.output_tokens),
        ),
        draw_k=np.array(m.quality_draw),
        exclusions_k=np.array(m.exclusions, dtype=np.int64),
        objective=read_objective(m.objective) or c.Objective(),
        multiplier=m.multiplier,
        exploration_floor=m.exploration_floor,
        limits=read_limits(m.limits) if m.HasField("limits") else NO_LIMITS,
        state_position=m.state_position,
        expire_ns=m.expire_time_ns,
        request_id=m.request_id,
        input_tokens=m.input_tokens,
        max_output_tokens=m.max_output_tokens,
        newcomers=tuple(m.newcomers),
        quota=m.quota,
        worst_cost=m.worst_cost,
        mark=m.latency_mark,
        clocks=tuple(m.clocks),
        project=m.project,
    )


def _write_outcome_applied(event: e.OutcomeApplied) -> journal_pb2.OutcomeApplied:
    return journal_pb2.OutcomeApplied(
        decision_id=event.decision_id,
        bucket=event.bucket,
        generation=event.generation,
        model=event.model,
        features=event.x_d.tolist(),
        state_position=event.state_position,
        expected_cost=event.expected_cost,
        changes=[
            journal_pb2.SignalChange(
                signal=_SIGNAL_NUMBERS[change.signal], before=change.before, after=change.after, faded=change.faded
            )
            for change in event.changes
        ],
        idempotency_key=event.idempotency_key,
        decided_time_ns=event.decided_ns,
        project=event.project,
        worst_cost=event.worst_cost,
        latency_mark=event.mark,
        ledgers=[_write_ledger(model, ledger) for model, ledger in event.ledgers.items()],
    )


def _write_ledger(model: str, ledger: Ledger) -> journal_pb2.SignalLedger:
    return journal_pb2.SignalLedger(
        model=model,
        reports=ledger.reports,
        tallies=[
            journal_pb2.SignalTally(
                signal=_SIGNAL_NUMBERS[signal], count=t.count, sum=t.sum, last=t.last, value=t.value, faded=t.faded
            )
            for signal, t in ledger.tallies.items()
        ],
    )


def _read_outcome_applied(m: journal_pb2.OutcomeApplied) -> e.OutcomeApplied:
    return e.OutcomeApplied(
        decision_id=m.decision_id,
        bucket=m.bucket,
        generation=m.generation,
        model=m.model,
        x_d=np.array(m.features, dtype=np.float64),
        state_position=m.state_position,
        expected_cost=m.expected_cost,
        changes=tuple(
            Change(
                Signal(change.signal),
                change.before if change.HasField("before") else None,
                change.after,
                change.faded,
            )
            for change in m.changes
        ),
        ledgers=read_ledgers(m),
        idempotency_key=m.idempotency_key,
        decided_ns=m.decided_time_ns,
        project=m.project,
        worst_cost=m.worst_cost,
        mark=m.latency_mark,
    )


def read_ledgers(m: journal_pb2.OutcomeApplied) -> Mapping[str, Ledger]:
    """What is known of a decision after an outcome event, by model."""
    return {
        ledger.model: Ledger(
            {Signal(t.signal): Tally(t.count, t.sum, t.last, t.value, t.faded) for t in ledger.tallies},
            ledger.reports,
        )
        for ledger in m.ledgers
    }
