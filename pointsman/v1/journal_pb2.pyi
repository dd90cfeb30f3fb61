from pointsman.v1 import catalog_pb2 as _catalog_pb2
from pointsman.v1 import decision_pb2 as _decision_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Signal(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIGNAL_UNSPECIFIED: _ClassVar[Signal]
    SIGNAL_QUALITY: _ClassVar[Signal]
    SIGNAL_COST: _ClassVar[Signal]
    SIGNAL_LATENCY: _ClassVar[Signal]
    SIGNAL_SUCCESS: _ClassVar[Signal]
    SIGNAL_INPUT_TOKENS: _ClassVar[Signal]
    SIGNAL_OUTPUT_TOKENS: _ClassVar[Signal]
SIGNAL_UNSPECIFIED: Signal
SIGNAL_QUALITY: Signal
SIGNAL_COST: Signal
SIGNAL_LATENCY: Signal
SIGNAL_SUCCESS: Signal
SIGNAL_INPUT_TOKENS: Signal
SIGNAL_OUTPUT_TOKENS: Signal

class JournalRecord(_message.Message):
    __slots__ = ("position", "event")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    position: int
    event: JournalEvent
    def __init__(self, position: _Optional[int] = ..., event: _Optional[_Union[JournalEvent, _Mapping]] = ...) -> None: ...

class JournalEvent(_message.Message):
    __slots__ = ("time_ns", "model_put", "model_deleted", "bucket_put", "bucket_deleted", "model_availability_set", "decision_made", "outcome_applied", "project_put", "project_deleted")
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    MODEL_PUT_FIELD_NUMBER: _ClassVar[int]
    MODEL_DELETED_FIELD_NUMBER: _ClassVar[int]
    BUCKET_PUT_FIELD_NUMBER: _ClassVar[int]
    BUCKET_DELETED_FIELD_NUMBER: _ClassVar[int]
    MODEL_AVAILABILITY_SET_FIELD_NUMBER: _ClassVar[int]
    DECISION_MADE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_APPLIED_FIELD_NUMBER: _ClassVar[int]
    PROJECT_PUT_FIELD_NUMBER: _ClassVar[int]
    PROJECT_DELETED_FIELD_NUMBER: _ClassVar[int]
    time_ns: int
    model_put: ModelPut
    model_deleted: ModelDeleted
    bucket_put: BucketPut
    bucket_deleted: BucketDeleted
    model_availability_set: ModelAvailabilitySet
    decision_made: DecisionMade
    outcome_applied: OutcomeApplied
    project_put: ProjectPut
    project_deleted: ProjectDeleted
    def __init__(self, time_ns: _Optional[int] = ..., model_put: _Optional[_Union[ModelPut, _Mapping]] = ..., model_deleted: _Optional[_Union[ModelDeleted, _Mapping]] = ..., bucket_put: _Optional[_Union[BucketPut, _Mapping]] = ..., bucket_deleted: _Optional[_Union[BucketDeleted, _Mapping]] = ..., model_availability_set: _Optional[_Union[ModelAvailabilitySet, _Mapping]] = ..., decision_made: _Optional[_Union[DecisionMade, _Mapping]] = ..., outcome_applied: _Optional[_Union[OutcomeApplied, _Mapping]] = ..., project_put: _Optional[_Union[ProjectPut, _Mapping]] = ..., project_deleted: _Optional[_Union[ProjectDeleted, _Mapping]] = ...) -> None: ...

class ModelPut(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _catalog_pb2.Model
    def __init__(self, model: _Optional[_Union[_catalog_pb2.Model, _Mapping]] = ...) -> None: ...

class ModelDeleted(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class BucketPut(_message.Message):
    __slots__ = ("bucket", "encoder_version")
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    ENCODER_VERSION_FIELD_NUMBER: _ClassVar[int]
    bucket: _catalog_pb2.Bucket
    encoder_version: int
    def __init__(self, bucket: _Optional[_Union[_catalog_pb2.Bucket, _Mapping]] = ..., encoder_version: _Optional[int] = ...) -> None: ...

class BucketDeleted(_message.Message):
    __slots__ = ("bucket",)
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    bucket: str
    def __init__(self, bucket: _Optional[str] = ...) -> None: ...

class ProjectPut(_message.Message):
    __slots__ = ("project",)
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    project: _catalog_pb2.Project
    def __init__(self, project: _Optional[_Union[_catalog_pb2.Project, _Mapping]] = ...) -> None: ...

class ProjectDeleted(_message.Message):
    __slots__ = ("project",)
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    project: str
    def __init__(self, project: _Optional[str] = ...) -> None: ...

class ModelAvailabilitySet(_message.Message):
    __slots__ = ("model", "availability", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    availability: _catalog_pb2.ModelAvailability
    reason: str
    def __init__(self, model: _Optional[str] = ..., availability: _Optional[_Union[_catalog_pb2.ModelAvailability, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class DecisionMade(_message.Message):
    __slots__ = ("id", "bucket", "generation", "features", "models", "chosen", "fallbacks", "propensity", "explored", "limits_violated", "quality_mean", "quality_sd", "cost", "latency", "latency_p95", "quality_draw", "output_tokens", "multiplier", "exclusions", "objective", "quality_range", "exploration_floor", "limits", "state_position", "expire_time_ns", "request_id", "input_tokens", "max_output_tokens", "newcomers", "quota", "max_cost", "raw_p95", "log_decays", "project", "measured", "by_price", "references", "quotas", "novelty", "wide_mean", "wide_sd", "charged_cost", "draw_sd")
    ID_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    EXPLORED_FIELD_NUMBER: _ClassVar[int]
    LIMITS_VIOLATED_FIELD_NUMBER: _ClassVar[int]
    QUALITY_MEAN_FIELD_NUMBER: _ClassVar[int]
    QUALITY_SD_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P95_FIELD_NUMBER: _ClassVar[int]
    QUALITY_DRAW_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIONS_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_RANGE_FIELD_NUMBER: _ClassVar[int]
    EXPLORATION_FLOOR_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    STATE_POSITION_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEWCOMERS_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    MAX_COST_FIELD_NUMBER: _ClassVar[int]
    RAW_P95_FIELD_NUMBER: _ClassVar[int]
    LOG_DECAYS_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    BY_PRICE_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_FIELD_NUMBER: _ClassVar[int]
    WIDE_MEAN_FIELD_NUMBER: _ClassVar[int]
    WIDE_SD_FIELD_NUMBER: _ClassVar[int]
    CHARGED_COST_FIELD_NUMBER: _ClassVar[int]
    DRAW_SD_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    bucket: str
    generation: int
    features: _containers.RepeatedScalarFieldContainer[float]
    models: _containers.RepeatedScalarFieldContainer[str]
    chosen: int
    fallbacks: _containers.RepeatedScalarFieldContainer[int]
    propensity: float
    explored: bool
    limits_violated: bool
    quality_mean: _containers.RepeatedScalarFieldContainer[float]
    quality_sd: _containers.RepeatedScalarFieldContainer[float]
    cost: _containers.RepeatedScalarFieldContainer[float]
    latency: _containers.RepeatedScalarFieldContainer[float]
    latency_p95: _containers.RepeatedScalarFieldContainer[float]
    quality_draw: _containers.RepeatedScalarFieldContainer[float]
    output_tokens: _containers.RepeatedScalarFieldContainer[float]
    multiplier: float
    exclusions: _containers.RepeatedScalarFieldContainer[int]
    objective: _catalog_pb2.Objective
    quality_range: _catalog_pb2.QualityRange
    exploration_floor: float
    limits: _decision_pb2.Limits
    state_position: int
    expire_time_ns: int
    request_id: str
    input_tokens: int
    max_output_tokens: int
    newcomers: _containers.RepeatedScalarFieldContainer[int]
    quota: float
    max_cost: float
    raw_p95: float
    log_decays: _containers.RepeatedScalarFieldContainer[float]
    project: str
    measured: _containers.RepeatedScalarFieldContainer[float]
    by_price: bool
    references: _containers.RepeatedScalarFieldContainer[float]
    quotas: _containers.RepeatedScalarFieldContainer[float]
    novelty: _containers.RepeatedScalarFieldContainer[float]
    wide_mean: _containers.RepeatedScalarFieldContainer[float]
    wide_sd: _containers.RepeatedScalarFieldContainer[float]
    charged_cost: _containers.RepeatedScalarFieldContainer[float]
    draw_sd: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, id: _Optional[bytes] = ..., bucket: _Optional[str] = ..., generation: _Optional[int] = ..., features: _Optional[_Iterable[float]] = ..., models: _Optional[_Iterable[str]] = ..., chosen: _Optional[int] = ..., fallbacks: _Optional[_Iterable[int]] = ..., propensity: _Optional[float] = ..., explored: bool = ..., limits_violated: bool = ..., quality_mean: _Optional[_Iterable[float]] = ..., quality_sd: _Optional[_Iterable[float]] = ..., cost: _Optional[_Iterable[float]] = ..., latency: _Optional[_Iterable[float]] = ..., latency_p95: _Optional[_Iterable[float]] = ..., quality_draw: _Optional[_Iterable[float]] = ..., output_tokens: _Optional[_Iterable[float]] = ..., multiplier: _Optional[float] = ..., exclusions: _Optional[_Iterable[int]] = ..., objective: _Optional[_Union[_catalog_pb2.Objective, _Mapping]] = ..., quality_range: _Optional[_Union[_catalog_pb2.QualityRange, _Mapping]] = ..., exploration_floor: _Optional[float] = ..., limits: _Optional[_Union[_decision_pb2.Limits, _Mapping]] = ..., state_position: _Optional[int] = ..., expire_time_ns: _Optional[int] = ..., request_id: _Optional[str] = ..., input_tokens: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., newcomers: _Optional[_Iterable[int]] = ..., quota: _Optional[float] = ..., max_cost: _Optional[float] = ..., raw_p95: _Optional[float] = ..., log_decays: _Optional[_Iterable[float]] = ..., project: _Optional[str] = ..., measured: _Optional[_Iterable[float]] = ..., by_price: bool = ..., references: _Optional[_Iterable[float]] = ..., quotas: _Optional[_Iterable[float]] = ..., novelty: _Optional[_Iterable[float]] = ..., wide_mean: _Optional[_Iterable[float]] = ..., wide_sd: _Optional[_Iterable[float]] = ..., charged_cost: _Optional[_Iterable[float]] = ..., draw_sd: _Optional[_Iterable[float]] = ...) -> None: ...

class OutcomeApplied(_message.Message):
    __slots__ = ("decision_id", "bucket", "generation", "model", "features", "changes", "idempotency_key", "reported_outcomes", "state_position", "expected_cost", "decided_time_ns", "max_cost", "project", "expected_quality", "raw_p95", "references", "input_tokens")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    REPORTED_OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    STATE_POSITION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_COST_FIELD_NUMBER: _ClassVar[int]
    DECIDED_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_COST_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_QUALITY_FIELD_NUMBER: _ClassVar[int]
    RAW_P95_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    decision_id: bytes
    bucket: str
    generation: int
    model: str
    features: _containers.RepeatedScalarFieldContainer[float]
    changes: _containers.RepeatedCompositeFieldContainer[SignalChange]
    idempotency_key: str
    reported_outcomes: _containers.RepeatedCompositeFieldContainer[ReportedOutcome]
    state_position: int
    expected_cost: float
    decided_time_ns: int
    max_cost: float
    project: str
    expected_quality: float
    raw_p95: float
    references: _containers.RepeatedScalarFieldContainer[float]
    input_tokens: int
    def __init__(self, decision_id: _Optional[bytes] = ..., bucket: _Optional[str] = ..., generation: _Optional[int] = ..., model: _Optional[str] = ..., features: _Optional[_Iterable[float]] = ..., changes: _Optional[_Iterable[_Union[SignalChange, _Mapping]]] = ..., idempotency_key: _Optional[str] = ..., reported_outcomes: _Optional[_Iterable[_Union[ReportedOutcome, _Mapping]]] = ..., state_position: _Optional[int] = ..., expected_cost: _Optional[float] = ..., decided_time_ns: _Optional[int] = ..., max_cost: _Optional[float] = ..., project: _Optional[str] = ..., expected_quality: _Optional[float] = ..., raw_p95: _Optional[float] = ..., references: _Optional[_Iterable[float]] = ..., input_tokens: _Optional[int] = ...) -> None: ...

class SignalChange(_message.Message):
    __slots__ = ("signal", "before", "after", "log_decay", "released", "released_before")
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LOG_DECAY_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    RELEASED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    signal: Signal
    before: float
    after: float
    log_decay: float
    released: bool
    released_before: bool
    def __init__(self, signal: _Optional[_Union[Signal, str]] = ..., before: _Optional[float] = ..., after: _Optional[float] = ..., log_decay: _Optional[float] = ..., released: bool = ..., released_before: bool = ...) -> None: ...

class ReportedOutcome(_message.Message):
    __slots__ = ("model", "aggregates", "reports")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AGGREGATES_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    aggregates: _containers.RepeatedCompositeFieldContainer[SignalAggregate]
    reports: int
    def __init__(self, model: _Optional[str] = ..., aggregates: _Optional[_Iterable[_Union[SignalAggregate, _Mapping]]] = ..., reports: _Optional[int] = ...) -> None: ...

class SignalAggregate(_message.Message):
    __slots__ = ("signal", "count", "sum", "last", "value", "log_decay", "released")
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOG_DECAY_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    signal: Signal
    count: int
    sum: float
    last: float
    value: float
    log_decay: float
    released: bool
    def __init__(self, signal: _Optional[_Union[Signal, str]] = ..., count: _Optional[int] = ..., sum: _Optional[float] = ..., last: _Optional[float] = ..., value: _Optional[float] = ..., log_decay: _Optional[float] = ..., released: bool = ...) -> None: ...
