"""The catalogue as validated values: models (arms), buckets (task types) and projects.

>>> Bucket("summarize", models=("small", "large")).objective.resolve(QualityRange()).cost_weight  # what BALANCED has by default
10.0
>>> Budget(0.0)
Traceback (most recent call last):
pointsman.bandit.errors.FieldError: usd_per_request: expected a finite number above 0, got 0
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pointsman.bandit.errors import FieldError, within

_ID = re.compile(r"[A-Za-z0-9._:@/-]{1,128}\Z")
_FEATURE_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,64}\Z")
MAX_FEATURES = 512
"""Most declared features of a bucket: a model costs d² numbers of memory and as many products per decision."""
MAX_EMBEDDING = 512
"""Largest dimension of one embedding."""
MAX_CATEGORY_VALUES = 256
"""Most values of one category."""
MAX_MODELS_PER_BUCKET = 256
"""Most models that a bucket may list."""
DAY_NS = 86_400 * 10**9
"""Nanoseconds of a day."""
MAX_WINDOW_NS = 90 * DAY_NS
"""Longest attribution window, and longest period of a budget, in nanoseconds."""
MIN_HALF_LIFE_NS = 60 * 10**9
"""Shortest half-life in time, in nanoseconds."""
MAX_HALF_LIFE_NS = 10_000 * DAY_NS
"""Longest half-life in time, in nanoseconds."""


def check_id(value: str, path: str) -> str:
    """Return ``value`` if it can be the id of a model or bucket, else raise ``FieldError(what, …)``."""
    if not _ID.match(value):
        raise FieldError(path, f"expected 1-128 letters, digits or ._:@/-, got {value[:140]!r}")
    return value


def check_number(
    value: float,
    path: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float | None = None,
) -> float:
    """Return ``value`` if finite, within [low, high] and above ``above``, else raise ``FieldError(what, …)``."""
    if math.isfinite(value) and low <= value <= high and (above is None or value > above):
        return value
    bounds = []
    if above is not None:
        bounds.append(f"above {above:g}")
    elif low > -math.inf:
        bounds.append(f"at least {low:g}")
    if high < math.inf:
        bounds.append(f"at most {high:g}")
    raise FieldError(
        path,
        f"expected a finite number {' and '.join(bounds)}".rstrip() + f", got {value:g}",
    )


def _check_text(value: str, path: str, longest: int) -> None:
    if len(value) > longest:
        raise FieldError(path, f"expected at most {longest} characters, got {len(value)}")


@dataclass(frozen=True, slots=True)
class Prices:
    """List prices in US dollars: per million input tokens, per million output tokens, per request; all >= 0."""

    input_per_million: float = 0.0
    output_per_million: float = 0.0
    per_request: float = 0.0

    def __post_init__(self) -> None:
        check_number(self.input_per_million, "input_usd_per_million_tokens", low=0.0)
        check_number(self.output_per_million, "output_usd_per_million_tokens", low=0.0)
        check_number(self.per_request, "request_usd", low=0.0)


@dataclass(frozen=True, slots=True)
class Model:
    """An arm: one callable LLM deployment. Token limits of 0 mean unlimited or unknown."""

    id: str
    display_name: str = ""
    upstream: str = ""
    prices: Prices | None = None
    context_window: int = 0
    max_output_tokens: int = 0
    capabilities: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_id(self.id, "name")
        _check_text(self.display_name, "display_name", 256)
        _check_text(self.upstream, "upstream", 512)
        check_number(self.context_window, "context_window", low=0, high=2**53)
        check_number(self.max_output_tokens, "max_output_tokens", low=0, high=2**53)
        if len(self.capabilities) > 64:
            raise FieldError("capabilities", f"expected at most 64, got {len(self.capabilities)}")
        if len(self.tags) > 64:
            raise FieldError("tags", f"expected at most 64, got {len(self.tags)}")
        for i, capability in enumerate(self.capabilities):
            _check_text(capability, f"capabilities[{i}]", 64)
        for key, value in self.tags.items():
            _check_text(key, "tags", 64)
            _check_text(value, f'tags["{key}"]', 256)


@dataclass(frozen=True, slots=True)
class NumberFeature:
    """One number, encoded as ``(value - center) / scale``."""

    name: str
    center: float = 0.0
    scale: float = 1.0
    optional: bool = False

    def __post_init__(self) -> None:
        check_number(self.center, "center")
        check_number(self.scale, "scale", above=0.0)


@dataclass(frozen=True, slots=True)
class CategoryFeature:
    """One of several values, one-hot; undeclared values are all zeros if ``open``, else refused."""

    name: str
    values: tuple[str, ...]
    optional: bool = False
    open: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.values) <= MAX_CATEGORY_VALUES:
            raise FieldError(
                "values",
                f"expected 1 to {MAX_CATEGORY_VALUES} values, got {len(self.values)}",
            )
        if len(set(self.values)) != len(self.values):
            raise FieldError("values", "expected different values, got one twice")
        for i, value in enumerate(self.values):
            _check_text(value, f"values[{i}]", 256)


@dataclass(frozen=True, slots=True)
class EmbeddingFeature:
    """A vector of ``dimension`` numbers, multiplied by ``scale`` so that its length is about 1."""

    name: str
    dimension: int
    scale: float = 1.0
    optional: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.dimension <= MAX_EMBEDDING:
            raise FieldError("dimension", f"expected 1 to {MAX_EMBEDDING}, got {self.dimension}")
        check_number(self.scale, "scale", above=0.0)


@dataclass(frozen=True, slots=True)
class TextFeature:
    """The prompt's text through the built-in featuriser (``bandit.text``)."""

    optional: bool = False


@dataclass(frozen=True, slots=True)
class TokenCountFeature:
    """The number of input tokens, as a logarithm centred at 256 tokens."""

    optional: bool = False


@dataclass(frozen=True, slots=True)
class Schema:
    """The features of a bucket, in the order of the feature vector; the intercept comes last of all."""

    numbers: tuple[NumberFeature, ...] = ()
    categories: tuple[CategoryFeature, ...] = ()
    embeddings: tuple[EmbeddingFeature, ...] = ()
    text: TextFeature | None = None
    input_tokens: TokenCountFeature | None = None

    def __post_init__(self) -> None:
        for kind in ("numbers", "categories", "embeddings"):
            names: set[str] = set()
            for i, feature in enumerate(getattr(self, kind)):
                if not _FEATURE_NAME.match(feature.name):
                    raise FieldError(
                        f"{kind}[{i}].name",
                        f"expected 1-64 letters, digits or _.:/-, got {feature.name[:80]!r}",
                    )
                if feature.name in names:
                    raise FieldError(
                        f"{kind}[{i}].name",
                        f"expected different names, got {feature.name!r} twice",
                    )
                names.add(feature.name)
        total = len(self.numbers) + sum(len(c.values) for c in self.categories)
        total += sum(e.dimension for e in self.embeddings)
        if total > MAX_FEATURES:
            raise FieldError("", f"expected at most {MAX_FEATURES} features in all, got {total}")


class Mode(enum.Enum):
    """Kinds of trade-off between quality, cost and latency."""

    BALANCED = "BALANCED"
    QUALITY_FIRST = "QUALITY_FIRST"
    COST_FIRST = "COST_FIRST"
    LATENCY_FIRST = "LATENCY_FIRST"
    AVAILABILITY_FIRST = "AVAILABILITY_FIRST"
    WEIGHTED = "WEIGHTED"


UNWEIGHTED_MODES = frozenset({Mode.QUALITY_FIRST, Mode.AVAILABILITY_FIRST})
"""Modes that choose by quality alone, whatever the models cost."""
FLOOR_MODES = frozenset({Mode.COST_FIRST, Mode.LATENCY_FIRST})
"""Modes that choose by cost or latency among the models that reach a floor of quality."""
FLOORS = ("min_quality", "max_quality_loss", "min_mean_quality")
"""Parameters of which such an objective has one: a floor of each request, absolute or relative, or one of the mean."""


@dataclass(frozen=True, slots=True)
class QualityRange:
    """The scale on which quality is reported; ``min < max``."""

    min: float = 0.0
    max: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.min, "min")
        check_number(self.max, "max", above=self.min)
        check_number(self.max - self.min, "max")

    @property
    def width(self) -> float:
        """``max - min``."""
        return self.max - self.min


@dataclass(frozen=True, slots=True)
class Objective:
    """A trade-off as its giver wrote it. ``resolve`` fills in the defaults.

    ``cost_weight`` λ is quality per dollar, ``latency_weight`` μ quality per second, ``min_quality`` an absolute
    floor, ``max_quality_loss`` one relative to the best candidate, and ``min_mean_quality`` one that the mean of the bucket's
    decisions must keep (``bandit.quality_floor``); all in the bucket's units of quality.
    """

    mode: Mode = Mode.BALANCED
    cost_weight: float | None = None
    latency_weight: float | None = None
    min_quality: float | None = None
    max_quality_loss: float | None = None
    min_mean_quality: float | None = None

    def __post_init__(self) -> None:
        for name in ("cost_weight", "latency_weight", "max_quality_loss"):
            value = getattr(self, name)
            if value is not None:
                check_number(value, name, low=0.0)
        if self.mode in FLOOR_MODES:
            for name in ("cost_weight", "latency_weight"):
                if getattr(self, name) is not None:
                    raise FieldError(
                        name,
                        f"expected nothing with {self.mode.value}, which has a quality floor instead",
                    )
            floors = [name for name in FLOORS if getattr(self, name) is not None]
            if len(floors) > 1:
                raise FieldError(floors[0], f"expected {floors[0]} or {floors[1]}, got both")
            if self.min_mean_quality is not None and self.mode is not Mode.COST_FIRST:
                raise FieldError("min_mean_quality", f"expected nothing with {self.mode.value}, only COST_FIRST")
            return
        for name in FLOORS:
            if getattr(self, name) is not None:
                raise FieldError(
                    name,
                    f"expected nothing with {self.mode.value}, only COST_FIRST and LATENCY_FIRST",
                )
        weights = (self.cost_weight, self.latency_weight)
        if self.mode is Mode.WEIGHTED and weights == (None, None):
            raise FieldError("cost_weight", "expected cost_weight or latency_weight with WEIGHTED")
        if self.mode in UNWEIGHTED_MODES and weights != (None, None):
            raise FieldError("cost_weight", f"expected no weights with {self.mode.value}")

    @property
    def has_request_floor(self) -> bool:
        """Whether each request has a quality floor, which decides which models are ranked by price or latency."""
        return self.mode in FLOOR_MODES and self.min_mean_quality is None

    def resolve(self, quality: QualityRange) -> Objective:
        """The objective with every default filled in, as the policy applies it.

        Raises ``FieldError`` for a floor outside ``quality``.
        """
        if self.mode in FLOOR_MODES:
            for name in ("min_quality", "min_mean_quality"):
                if getattr(self, name) is not None:
                    check_number(getattr(self, name), name, low=quality.min, high=quality.max)
                    return self
            loss = 0.02 * quality.width if self.max_quality_loss is None else self.max_quality_loss
            return Objective(self.mode, max_quality_loss=loss)
        balanced = 10.0 * quality.width if self.mode is Mode.BALANCED else 0.0
        cost_weight = balanced if self.cost_weight is None else self.cost_weight
        if self.mode in UNWEIGHTED_MODES:
            return self
        return Objective(
            self.mode,
            cost_weight=cost_weight,
            latency_weight=self.latency_weight or 0.0,
        )


class Aggregation(enum.Enum):
    """How repeated reports of one signal of one decision become one value."""

    LAST = "LAST"
    MEAN = "MEAN"
    SUM = "SUM"


@dataclass(frozen=True, slots=True)
class OutcomeRules:
    """How repeated reports of quality, cost and latency are aggregated."""

    quality: Aggregation = Aggregation.LAST
    cost: Aggregation = Aggregation.LAST
    latency: Aggregation = Aggregation.LAST


@dataclass(frozen=True, slots=True)
class Priors:
    """Prior means of an unknown model: expected quality (bucket's units), dollars, seconds."""

    quality: float | None = None
    cost: float = 1e-4
    latency: float = 0.5

    def __post_init__(self) -> None:
        check_number(self.cost, "cost_usd", above=0.0)
        check_number(self.latency, "latency_seconds", above=0.0)


@dataclass(frozen=True, slots=True)
class Budget:
    """``amount`` dollars per request on average, or, with a ``period_ns`` > 0, per period of that many nanoseconds.

    A ``hard`` one, per period only, is never passed: what a call can cost at most is reserved until its cost is known.
    """

    amount: float
    period_ns: int = 0
    hard: bool = False

    def __post_init__(self) -> None:
        check_number(self.amount, "usd_per_period" if self.period_ns else "usd_per_request", above=0.0)
        if self.period_ns and not 1_000_000_000 <= self.period_ns <= MAX_WINDOW_NS:
            raise FieldError("period", f"expected one second to 90 days, got {self.period_ns} ns")
        if self.hard and not self.period_ns:
            raise FieldError("hard", "expected a budget per period: an average per request cannot be a hard cap")


@dataclass(frozen=True, slots=True)
class Project:
    """Several buckets that share a budget."""

    id: str
    display_name: str = ""
    budget: Budget | None = None

    def __post_init__(self) -> None:
        check_id(self.id, "name")
        _check_text(self.display_name, "display_name", 256)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A task type. ``models`` empty means every model of the catalogue; ``window_ns`` is the attribution window.

    ``exploration_floor`` is the share of requests that an even draw decides; ``None`` lets the policy lower it where the even
    draw would be expensive (``bandit.policy.exploration_floors``). ``half_life`` is the number of a model's outcomes after which
    one counts half, ``half_life_ns`` the time in nanoseconds; 0 means never. ``project`` is the id of its project, or "".
    """

    id: str
    display_name: str = ""
    schema: Schema = Schema()
    models: tuple[str, ...] = ()
    objective: Objective = Objective()
    exploration_floor: float | None = None
    quality_range: QualityRange = QualityRange()
    window_ns: int = DAY_NS
    rules: OutcomeRules = OutcomeRules()
    priors: Priors = Priors()
    budget: Budget | None = None
    half_life: float = 10_000.0
    half_life_ns: int = 0
    project: str = ""

    def __post_init__(self) -> None:
        check_id(self.id, "name")
        _check_text(self.display_name, "display_name", 256)
        if len(self.models) > MAX_MODELS_PER_BUCKET:
            raise FieldError(
                "models",
                f"expected at most {MAX_MODELS_PER_BUCKET}, got {len(self.models)}",
            )
        if len(set(self.models)) != len(self.models):
            raise FieldError("models", "expected different models, got one twice")
        for i, model in enumerate(self.models):
            check_id(model, f"models[{i}]")
        if self.exploration_floor is not None:
            check_number(self.exploration_floor, "exploration_floor", low=0.0, high=1.0)
        if not 0 < self.window_ns <= MAX_WINDOW_NS:
            raise FieldError(
                "attribution_window",
                f"expected more than 0 and at most 90 days, got {self.window_ns} ns",
            )
        if self.half_life:
            check_number(self.half_life, "half_life_outcomes", low=8.0, high=1e12)
        if self.half_life_ns and not MIN_HALF_LIFE_NS <= self.half_life_ns <= MAX_HALF_LIFE_NS:
            raise FieldError("half_life", f"expected one minute to 10,000 days, got {self.half_life_ns} ns")
        if self.project:
            check_id(self.project, "project")
        if self.priors.quality is not None:
            with within("priors"):
                check_number(
                    self.priors.quality,
                    "quality",
                    low=self.quality_range.min,
                    high=self.quality_range.max,
                )
        with within("objective"):
            self.objective.resolve(self.quality_range)

    def same_posteriors(self, other: Bucket) -> bool:
        """Whether posteriors learned under ``other`` are still right under this configuration."""
        return self.schema == other.schema and self.quality_range == other.quality_range
