"""Models, buckets and projects: the contract's messages as the core's values, and back.

Reading a message raises ``FieldError`` with the path of the wrong field, relative to the message.

>>> model = read_model(pb.Model(name="models/small", prices={"request_usd": 0.01}))
>>> model.id, model.prices.per_request, write_model(model).name
('small', 0.01, 'models/small')
>>> read_bucket(pb.Bucket(name="buckets/b", budget={"usd_per_request": -1}))
Traceback (most recent call last):
    ...
pointsman.bandit.errors.FieldError: budget.usd_per_request: expected a finite number above 0, got -1
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from pointsman.bandit import catalog as c
from pointsman.bandit.errors import FieldError, within
from pointsman.server.codec.request import read_objective, write_objective
from pointsman.server.names import bucket_name, model_name, parse, project_name
from pointsman.v1 import catalog_pb2 as pb

NS = 1_000_000_000
_WINDOW = (c.MAX_WINDOW_NS // NS, "more than 0 and at most 90 days")
_PERIOD = (c.MAX_WINDOW_NS // NS, "one second to 90 days")
_HALF_LIFE = (c.MAX_HALF_LIFE_NS // NS, "one minute to 10,000 days")
_DEFAULT = c.Bucket("default")


def read_model(message: pb.Model) -> c.Model:
    """The model in a message, without its availability and etag; prices in dollars. Raises ``FieldError``."""
    prices = None
    if message.HasField("prices"):
        with within("prices"):
            prices = c.Prices(
                message.prices.input_usd_per_million_tokens,
                message.prices.output_usd_per_million_tokens,
                message.prices.request_usd,
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
    """The message of a model that operators let be chosen (``available``) or not."""
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


def read_bucket(message: pb.Bucket) -> c.Bucket:
    """The bucket in a message, without its etag. What is not set has the default of ``c.Bucket``. Raises ``FieldError``."""
    with within("context_schema"):
        schema = _read_schema(message.context_schema)
    with within("quality_range"):
        quality_range = _read_quality_range(message)
    with within("objective"):
        objective = read_objective(message.objective) or _DEFAULT.objective
    with within("outcome_rules"):
        rules = _read_rules(message.outcome_rules)
    with within("priors"):
        priors = _read_priors(message.priors)
    with within("budget"):
        budget = _read_budget(message.budget) if message.HasField("budget") else None
    window_ns = _DEFAULT.window_ns
    if message.HasField("attribution_window"):
        window_ns = _read_duration(message.attribution_window, _WINDOW, "attribution_window")
    half_life_ns = 0
    if message.HasField("half_life"):
        half_life_ns = _read_duration(message.half_life, _HALF_LIFE, "half_life") or 1  # 0 would mean none
    default_half_life = 0.0 if half_life_ns else _DEFAULT.half_life
    return c.Bucket(
        id=parse(message.name, "buckets", "name"),
        display_name=message.display_name,
        schema=schema,
        models=tuple(parse(name, "models", f"models[{i}]") for i, name in enumerate(message.models)),
        objective=objective,
        exploration_floor=message.exploration_floor if message.HasField("exploration_floor") else None,
        quality_range=quality_range,
        window_ns=window_ns,
        rules=rules,
        priors=priors,
        budget=budget,
        half_life=message.half_life_outcomes if message.HasField("half_life_outcomes") else default_half_life,
        half_life_ns=half_life_ns,
        project=parse(message.project, "projects", "project") if message.project else "",
    )


def _read_duration(duration: Duration, bounds: tuple[int, str], field: str) -> int:
    """Nanoseconds. ``bounds`` are the most seconds, and the expectation; the core checks the nanoseconds."""
    most_seconds, expected = bounds
    if not 0 <= duration.seconds <= most_seconds:
        raise FieldError(field, f"expected {expected}, got {duration.seconds} s")
    return int(duration.seconds * NS + duration.nanos)


def _read_quality_range(message: pb.Bucket) -> c.QualityRange:
    if not message.HasField("quality_range"):
        return _DEFAULT.quality_range
    return c.QualityRange(message.quality_range.min, message.quality_range.max)


def _read_rules(message: pb.OutcomeRules) -> c.OutcomeRules:
    return c.OutcomeRules(
        _read_aggregation(message.quality, "quality"),
        _read_aggregation(message.cost, "cost"),
        _read_aggregation(message.latency, "latency"),
    )


def _read_priors(message: pb.Priors) -> c.Priors:
    return c.Priors(
        quality=message.quality if message.HasField("quality") else None,
        cost=message.cost_usd if message.HasField("cost_usd") else _DEFAULT.priors.cost,
        latency=message.latency_seconds if message.HasField("latency_seconds") else _DEFAULT.priors.latency,
    )


def _read_budget(message: pb.Budget) -> c.Budget:
    match message.WhichOneof("amount"):
        case "usd_per_request":
            if message.HasField("period"):
                raise FieldError("period", "expected nothing with usd_per_request")
            return c.Budget(message.usd_per_request, hard=message.hard)
        case "usd_per_period":
            period_ns = _read_duration(message.period, _PERIOD, "period") if message.HasField("period") else c.DAY_NS
            return c.Budget(message.usd_per_period, period_ns or 1, message.hard)  # 0 would mean none
        case _:
            raise FieldError("amount", "expected usd_per_request or usd_per_period, got neither")


def write_budget(budget: c.Budget) -> pb.Budget:
    """The message of a budget: dollars, for each request or for each period."""
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
    """The project in a message, without its etag. Raises ``FieldError``."""
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
