from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelAvailability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_AVAILABILITY_UNSPECIFIED: _ClassVar[ModelAvailability]
    MODEL_AVAILABILITY_ENABLED: _ClassVar[ModelAvailability]
    MODEL_AVAILABILITY_DISABLED: _ClassVar[ModelAvailability]

class ObjectiveMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OBJECTIVE_MODE_UNSPECIFIED: _ClassVar[ObjectiveMode]
    OBJECTIVE_MODE_BALANCED: _ClassVar[ObjectiveMode]
    OBJECTIVE_MODE_QUALITY_FIRST: _ClassVar[ObjectiveMode]
    OBJECTIVE_MODE_COST_FIRST: _ClassVar[ObjectiveMode]
    OBJECTIVE_MODE_LATENCY_FIRST: _ClassVar[ObjectiveMode]
    OBJECTIVE_MODE_WEIGHTED: _ClassVar[ObjectiveMode]
    OBJECTIVE_MODE_AVAILABILITY_FIRST: _ClassVar[ObjectiveMode]

class Aggregation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATION_UNSPECIFIED: _ClassVar[Aggregation]
    AGGREGATION_LAST: _ClassVar[Aggregation]
    AGGREGATION_MEAN: _ClassVar[Aggregation]
    AGGREGATION_SUM: _ClassVar[Aggregation]
MODEL_AVAILABILITY_UNSPECIFIED: ModelAvailability
MODEL_AVAILABILITY_ENABLED: ModelAvailability
MODEL_AVAILABILITY_DISABLED: ModelAvailability
OBJECTIVE_MODE_UNSPECIFIED: ObjectiveMode
OBJECTIVE_MODE_BALANCED: ObjectiveMode
OBJECTIVE_MODE_QUALITY_FIRST: ObjectiveMode
OBJECTIVE_MODE_COST_FIRST: ObjectiveMode
OBJECTIVE_MODE_LATENCY_FIRST: ObjectiveMode
OBJECTIVE_MODE_WEIGHTED: ObjectiveMode
OBJECTIVE_MODE_AVAILABILITY_FIRST: ObjectiveMode
AGGREGATION_UNSPECIFIED: Aggregation
AGGREGATION_LAST: Aggregation
AGGREGATION_MEAN: Aggregation
AGGREGATION_SUM: Aggregation

class Model(_message.Message):
    __slots__ = ("name", "display_name", "upstream", "prices", "context_window", "max_output_tokens", "capabilities", "tags", "availability", "etag")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    PRICES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WINDOW_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    upstream: str
    prices: Prices
    context_window: int
    max_output_tokens: int
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    tags: _containers.ScalarMap[str, str]
    availability: ModelAvailability
    etag: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., upstream: _Optional[str] = ..., prices: _Optional[_Union[Prices, _Mapping]] = ..., context_window: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., capabilities: _Optional[_Iterable[str]] = ..., tags: _Optional[_Mapping[str, str]] = ..., availability: _Optional[_Union[ModelAvailability, str]] = ..., etag: _Optional[str] = ...) -> None: ...

class Prices(_message.Message):
    __slots__ = ("input_usd_per_million_tokens", "output_usd_per_million_tokens", "request_usd")
    INPUT_USD_PER_MILLION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_USD_PER_MILLION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_USD_FIELD_NUMBER: _ClassVar[int]
    input_usd_per_million_tokens: float
    output_usd_per_million_tokens: float
    request_usd: float
    def __init__(self, input_usd_per_million_tokens: _Optional[float] = ..., output_usd_per_million_tokens: _Optional[float] = ..., request_usd: _Optional[float] = ...) -> None: ...

class Bucket(_message.Message):
    __slots__ = ("name", "display_name", "context_schema", "models", "objective", "exploration_floor", "quality_range", "attribution_window", "outcome_rules", "priors", "etag", "budget", "half_life_outcomes", "half_life", "project")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    EXPLORATION_FLOOR_FIELD_NUMBER: _ClassVar[int]
    QUALITY_RANGE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_WINDOW_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_RULES_FIELD_NUMBER: _ClassVar[int]
    PRIORS_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    HALF_LIFE_OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    HALF_LIFE_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    context_schema: ContextSchema
    models: _containers.RepeatedScalarFieldContainer[str]
    objective: Objective
    exploration_floor: float
    quality_range: QualityRange
    attribution_window: _duration_pb2.Duration
    outcome_rules: OutcomeRules
    priors: Priors
    etag: str
    budget: Budget
    half_life_outcomes: float
    half_life: _duration_pb2.Duration
    project: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., context_schema: _Optional[_Union[ContextSchema, _Mapping]] = ..., models: _Optional[_Iterable[str]] = ..., objective: _Optional[_Union[Objective, _Mapping]] = ..., exploration_floor: _Optional[float] = ..., quality_range: _Optional[_Union[QualityRange, _Mapping]] = ..., attribution_window: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., outcome_rules: _Optional[_Union[OutcomeRules, _Mapping]] = ..., priors: _Optional[_Union[Priors, _Mapping]] = ..., etag: _Optional[str] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., half_life_outcomes: _Optional[float] = ..., half_life: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., project: _Optional[str] = ...) -> None: ...

class Project(_message.Message):
    __slots__ = ("name", "display_name", "budget", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    budget: Budget
    etag: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("usd_per_request", "usd_per_period", "period", "hard")
    USD_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    USD_PER_PERIOD_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    usd_per_request: float
    usd_per_period: float
    period: _duration_pb2.Duration
    hard: bool
    def __init__(self, usd_per_request: _Optional[float] = ..., usd_per_period: _Optional[float] = ..., period: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., hard: bool = ...) -> None: ...

class ContextSchema(_message.Message):
    __slots__ = ("numbers", "categories", "embeddings", "text", "input_tokens")
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    numbers: _containers.RepeatedCompositeFieldContainer[NumberFeature]
    categories: _containers.RepeatedCompositeFieldContainer[CategoryFeature]
    embeddings: _containers.RepeatedCompositeFieldContainer[EmbeddingFeature]
    text: TextFeature
    input_tokens: TokenCountFeature
    def __init__(self, numbers: _Optional[_Iterable[_Union[NumberFeature, _Mapping]]] = ..., categories: _Optional[_Iterable[_Union[CategoryFeature, _Mapping]]] = ..., embeddings: _Optional[_Iterable[_Union[EmbeddingFeature, _Mapping]]] = ..., text: _Optional[_Union[TextFeature, _Mapping]] = ..., input_tokens: _Optional[_Union[TokenCountFeature, _Mapping]] = ...) -> None: ...

class NumberFeature(_message.Message):
    __slots__ = ("name", "center", "scale", "optional")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CENTER_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    center: float
    scale: float
    optional: bool
    def __init__(self, name: _Optional[str] = ..., center: _Optional[float] = ..., scale: _Optional[float] = ..., optional: bool = ...) -> None: ...

class CategoryFeature(_message.Message):
    __slots__ = ("name", "values", "optional", "open")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[str]
    optional: bool
    open: bool
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ..., optional: bool = ..., open: bool = ...) -> None: ...

class EmbeddingFeature(_message.Message):
    __slots__ = ("name", "dimension", "scale", "optional")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    dimension: int
    scale: float
    optional: bool
    def __init__(self, name: _Optional[str] = ..., dimension: _Optional[int] = ..., scale: _Optional[float] = ..., optional: bool = ...) -> None: ...

class TextFeature(_message.Message):
    __slots__ = ("optional",)
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    optional: bool
    def __init__(self, optional: bool = ...) -> None: ...

class TokenCountFeature(_message.Message):
    __slots__ = ("optional",)
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    optional: bool
    def __init__(self, optional: bool = ...) -> None: ...

class QualityRange(_message.Message):
    __slots__ = ("min", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: float
    max: float
    def __init__(self, min: _Optional[float] = ..., max: _Optional[float] = ...) -> None: ...

class Objective(_message.Message):
    __slots__ = ("mode", "cost_weight", "latency_weight", "min_quality", "max_quality_loss", "min_mean_quality")
    MODE_FIELD_NUMBER: _ClassVar[int]
    COST_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MIN_QUALITY_FIELD_NUMBER: _ClassVar[int]
    MAX_QUALITY_LOSS_FIELD_NUMBER: _ClassVar[int]
    MIN_MEAN_QUALITY_FIELD_NUMBER: _ClassVar[int]
    mode: ObjectiveMode
    cost_weight: float
    latency_weight: float
    min_quality: float
    max_quality_loss: float
    min_mean_quality: float
    def __init__(self, mode: _Optional[_Union[ObjectiveMode, str]] = ..., cost_weight: _Optional[float] = ..., latency_weight: _Optional[float] = ..., min_quality: _Optional[float] = ..., max_quality_loss: _Optional[float] = ..., min_mean_quality: _Optional[float] = ...) -> None: ...

class OutcomeRules(_message.Message):
    __slots__ = ("quality", "cost", "latency")
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    quality: Aggregation
    cost: Aggregation
    latency: Aggregation
    def __init__(self, quality: _Optional[_Union[Aggregation, str]] = ..., cost: _Optional[_Union[Aggregation, str]] = ..., latency: _Optional[_Union[Aggregation, str]] = ...) -> None: ...

class Priors(_message.Message):
    __slots__ = ("quality", "cost_usd", "latency_seconds")
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    LATENCY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    quality: float
    cost_usd: float
    latency_seconds: float
    def __init__(self, quality: _Optional[float] = ..., cost_usd: _Optional[float] = ..., latency_seconds: _Optional[float] = ...) -> None: ...
