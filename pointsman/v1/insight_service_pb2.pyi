from google.protobuf import timestamp_pb2 as _timestamp_pb2
from pointsman.v1 import catalog_pb2 as _catalog_pb2
from pointsman.v1 import decision_pb2 as _decision_pb2
from pointsman.v1 import journal_pb2 as _journal_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetBucketInsightRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetBucketInsightResponse(_message.Message):
    __slots__ = ("name", "models", "decisions", "spend_usd", "position", "budget", "project_budget", "features", "quality_floor")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    SPEND_USD_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    PROJECT_BUDGET_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FLOOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    models: _containers.RepeatedCompositeFieldContainer[ModelInsight]
    decisions: int
    spend_usd: float
    position: int
    budget: BudgetInsight
    project_budget: BudgetInsight
    features: _containers.RepeatedCompositeFieldContainer[FeatureInsight]
    quality_floor: QualityFloorInsight
    def __init__(self, name: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelInsight, _Mapping]]] = ..., decisions: _Optional[int] = ..., spend_usd: _Optional[float] = ..., position: _Optional[int] = ..., budget: _Optional[_Union[BudgetInsight, _Mapping]] = ..., project_budget: _Optional[_Union[BudgetInsight, _Mapping]] = ..., features: _Optional[_Iterable[_Union[FeatureInsight, _Mapping]]] = ..., quality_floor: _Optional[_Union[QualityFloorInsight, _Mapping]] = ...) -> None: ...

class FeatureInsight(_message.Message):
    __slots__ = ("feature", "sampled", "missing_share", "outside_share", "mean", "sd", "rescaled", "warning")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_FIELD_NUMBER: _ClassVar[int]
    MISSING_SHARE_FIELD_NUMBER: _ClassVar[int]
    OUTSIDE_SHARE_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    SD_FIELD_NUMBER: _ClassVar[int]
    RESCALED_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    feature: str
    sampled: int
    missing_share: float
    outside_share: float
    mean: float
    sd: float
    rescaled: bool
    warning: str
    def __init__(self, feature: _Optional[str] = ..., sampled: _Optional[int] = ..., missing_share: _Optional[float] = ..., outside_share: _Optional[float] = ..., mean: _Optional[float] = ..., sd: _Optional[float] = ..., rescaled: bool = ..., warning: _Optional[str] = ...) -> None: ...

class QualityFloorInsight(_message.Message):
    __slots__ = ("min_mean_quality", "decisions", "judged", "mean_quality", "optimism", "target", "multiplier")
    MIN_MEAN_QUALITY_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    MEAN_QUALITY_FIELD_NUMBER: _ClassVar[int]
    OPTIMISM_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    min_mean_quality: float
    decisions: int
    judged: int
    mean_quality: float
    optimism: float
    target: float
    multiplier: float
    def __init__(self, min_mean_quality: _Optional[float] = ..., decisions: _Optional[int] = ..., judged: _Optional[int] = ..., mean_quality: _Optional[float] = ..., optimism: _Optional[float] = ..., target: _Optional[float] = ..., multiplier: _Optional[float] = ...) -> None: ...

class BudgetInsight(_message.Message):
    __slots__ = ("budget", "period_start", "period_end", "spent_usd", "reserved_usd", "multiplier", "target_usd_per_request")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    PERIOD_START_FIELD_NUMBER: _ClassVar[int]
    PERIOD_END_FIELD_NUMBER: _ClassVar[int]
    SPENT_USD_FIELD_NUMBER: _ClassVar[int]
    RESERVED_USD_FIELD_NUMBER: _ClassVar[int]
    MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    TARGET_USD_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    budget: _catalog_pb2.Budget
    period_start: _timestamp_pb2.Timestamp
    period_end: _timestamp_pb2.Timestamp
    spent_usd: float
    reserved_usd: float
    multiplier: float
    target_usd_per_request: float
    def __init__(self, budget: _Optional[_Union[_catalog_pb2.Budget, _Mapping]] = ..., period_start: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., period_end: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., spent_usd: _Optional[float] = ..., reserved_usd: _Optional[float] = ..., multiplier: _Optional[float] = ..., target_usd_per_request: _Optional[float] = ...) -> None: ...

class ModelInsight(_message.Message):
    __slots__ = ("model", "decisions", "traffic_share", "quality_observations", "cost_observations", "latency_observations", "mean_quality", "mean_cost_usd", "mean_latency_seconds", "spend_usd", "quality_posterior_mean", "quality_posterior_sd", "quality_noise_sd", "successes", "failures", "success_rate", "circuit_open", "newcomer", "latency_p95_factor", "prior_mass", "list_price_ratio", "list_price_calls", "list_price_warning", "unjudged_decisions", "feedback_missing", "draw_share")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_SHARE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    COST_OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    MEAN_QUALITY_FIELD_NUMBER: _ClassVar[int]
    MEAN_COST_USD_FIELD_NUMBER: _ClassVar[int]
    MEAN_LATENCY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SPEND_USD_FIELD_NUMBER: _ClassVar[int]
    QUALITY_POSTERIOR_MEAN_FIELD_NUMBER: _ClassVar[int]
    QUALITY_POSTERIOR_SD_FIELD_NUMBER: _ClassVar[int]
    QUALITY_NOISE_SD_FIELD_NUMBER: _ClassVar[int]
    SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    CIRCUIT_OPEN_FIELD_NUMBER: _ClassVar[int]
    NEWCOMER_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P95_FACTOR_FIELD_NUMBER: _ClassVar[int]
    PRIOR_MASS_FIELD_NUMBER: _ClassVar[int]
    LIST_PRICE_RATIO_FIELD_NUMBER: _ClassVar[int]
    LIST_PRICE_CALLS_FIELD_NUMBER: _ClassVar[int]
    LIST_PRICE_WARNING_FIELD_NUMBER: _ClassVar[int]
    UNJUDGED_DECISIONS_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_MISSING_FIELD_NUMBER: _ClassVar[int]
    DRAW_SHARE_FIELD_NUMBER: _ClassVar[int]
    model: str
    decisions: int
    traffic_share: float
    quality_observations: int
    cost_observations: int
    latency_observations: int
    mean_quality: float
    mean_cost_usd: float
    mean_latency_seconds: float
    spend_usd: float
    quality_posterior_mean: float
    quality_posterior_sd: float
    quality_noise_sd: float
    successes: int
    failures: int
    success_rate: float
    circuit_open: bool
    newcomer: bool
    latency_p95_factor: float
    prior_mass: float
    list_price_ratio: float
    list_price_calls: int
    list_price_warning: str
    unjudged_decisions: int
    feedback_missing: bool
    draw_share: float
    def __init__(self, model: _Optional[str] = ..., decisions: _Optional[int] = ..., traffic_share: _Optional[float] = ..., quality_observations: _Optional[int] = ..., cost_observations: _Optional[int] = ..., latency_observations: _Optional[int] = ..., mean_quality: _Optional[float] = ..., mean_cost_usd: _Optional[float] = ..., mean_latency_seconds: _Optional[float] = ..., spend_usd: _Optional[float] = ..., quality_posterior_mean: _Optional[float] = ..., quality_posterior_sd: _Optional[float] = ..., quality_noise_sd: _Optional[float] = ..., successes: _Optional[int] = ..., failures: _Optional[int] = ..., success_rate: _Optional[float] = ..., circuit_open: bool = ..., newcomer: bool = ..., latency_p95_factor: _Optional[float] = ..., prior_mass: _Optional[float] = ..., list_price_ratio: _Optional[float] = ..., list_price_calls: _Optional[int] = ..., list_price_warning: _Optional[str] = ..., unjudged_decisions: _Optional[int] = ..., feedback_missing: bool = ..., draw_share: _Optional[float] = ...) -> None: ...

class WatchDecisionsRequest(_message.Message):
    __slots__ = ("bucket",)
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    bucket: str
    def __init__(self, bucket: _Optional[str] = ...) -> None: ...

class WatchDecisionsResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: _decision_pb2.Decision
    def __init__(self, decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ...) -> None: ...

class ExportJournalRequest(_message.Message):
    __slots__ = ("from_position",)
    FROM_POSITION_FIELD_NUMBER: _ClassVar[int]
    from_position: int
    def __init__(self, from_position: _Optional[int] = ...) -> None: ...

class ExportJournalResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_journal_pb2.JournalRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[_journal_pb2.JournalRecord, _Mapping]]] = ...) -> None: ...
