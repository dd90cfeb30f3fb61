from google.protobuf import timestamp_pb2 as _timestamp_pb2
from pointsman.v1 import catalog_pb2 as _catalog_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LatencyStatistic(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LATENCY_STATISTIC_UNSPECIFIED: _ClassVar[LatencyStatistic]
    LATENCY_STATISTIC_MEAN: _ClassVar[LatencyStatistic]
    LATENCY_STATISTIC_P95: _ClassVar[LatencyStatistic]

class ExclusionReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXCLUSION_REASON_UNSPECIFIED: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_UNAVAILABLE: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_NOT_ALLOWED: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_DENIED: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_CONTEXT_WINDOW: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_CAPABILITY: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_TAG: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_COST: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_LATENCY: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_QUALITY: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_CIRCUIT_OPEN: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_BUDGET: _ClassVar[ExclusionReason]
    EXCLUSION_REASON_AVAILABILITY: _ClassVar[ExclusionReason]
LATENCY_STATISTIC_UNSPECIFIED: LatencyStatistic
LATENCY_STATISTIC_MEAN: LatencyStatistic
LATENCY_STATISTIC_P95: LatencyStatistic
EXCLUSION_REASON_UNSPECIFIED: ExclusionReason
EXCLUSION_REASON_UNAVAILABLE: ExclusionReason
EXCLUSION_REASON_NOT_ALLOWED: ExclusionReason
EXCLUSION_REASON_DENIED: ExclusionReason
EXCLUSION_REASON_CONTEXT_WINDOW: ExclusionReason
EXCLUSION_REASON_CAPABILITY: ExclusionReason
EXCLUSION_REASON_TAG: ExclusionReason
EXCLUSION_REASON_COST: ExclusionReason
EXCLUSION_REASON_LATENCY: ExclusionReason
EXCLUSION_REASON_QUALITY: ExclusionReason
EXCLUSION_REASON_CIRCUIT_OPEN: ExclusionReason
EXCLUSION_REASON_BUDGET: ExclusionReason
EXCLUSION_REASON_AVAILABILITY: ExclusionReason

class Limits(_message.Message):
    __slots__ = ("max_cost_usd", "max_latency_seconds", "latency_statistic", "min_quality", "allow_models", "deny_models", "required_capabilities", "required_tags", "allow_least_violating")
    class RequiredTagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MAX_COST_USD_FIELD_NUMBER: _ClassVar[int]
    MAX_LATENCY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_STATISTIC_FIELD_NUMBER: _ClassVar[int]
    MIN_QUALITY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MODELS_FIELD_NUMBER: _ClassVar[int]
    DENY_MODELS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_TAGS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_LEAST_VIOLATING_FIELD_NUMBER: _ClassVar[int]
    max_cost_usd: float
    max_latency_seconds: float
    latency_statistic: LatencyStatistic
    min_quality: float
    allow_models: _containers.RepeatedScalarFieldContainer[str]
    deny_models: _containers.RepeatedScalarFieldContainer[str]
    required_capabilities: _containers.RepeatedScalarFieldContainer[str]
    required_tags: _containers.ScalarMap[str, str]
    allow_least_violating: bool
    def __init__(self, max_cost_usd: _Optional[float] = ..., max_latency_seconds: _Optional[float] = ..., latency_statistic: _Optional[_Union[LatencyStatistic, str]] = ..., min_quality: _Optional[float] = ..., allow_models: _Optional[_Iterable[str]] = ..., deny_models: _Optional[_Iterable[str]] = ..., required_capabilities: _Optional[_Iterable[str]] = ..., required_tags: _Optional[_Mapping[str, str]] = ..., allow_least_violating: bool = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("name", "bucket", "model", "upstream", "fallbacks", "propensity", "explored", "limits_violated", "create_time", "expire_time", "objective", "candidates", "state_position", "newcomer_quota")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    EXPLORED_FIELD_NUMBER: _ClassVar[int]
    LIMITS_VIOLATED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    STATE_POSITION_FIELD_NUMBER: _ClassVar[int]
    NEWCOMER_QUOTA_FIELD_NUMBER: _ClassVar[int]
    name: str
    bucket: str
    model: str
    upstream: str
    fallbacks: _containers.RepeatedScalarFieldContainer[str]
    propensity: float
    explored: bool
    limits_violated: bool
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    objective: _catalog_pb2.Objective
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    state_position: int
    newcomer_quota: float
    def __init__(self, name: _Optional[str] = ..., bucket: _Optional[str] = ..., model: _Optional[str] = ..., upstream: _Optional[str] = ..., fallbacks: _Optional[_Iterable[str]] = ..., propensity: _Optional[float] = ..., explored: bool = ..., limits_violated: bool = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., objective: _Optional[_Union[_catalog_pb2.Objective, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., state_position: _Optional[int] = ..., newcomer_quota: _Optional[float] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("model", "eligible", "exclusions", "quality_mean", "quality_sd", "cost_usd", "latency_seconds", "latency_p95_seconds", "propensity", "utility", "newcomer")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIONS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_MEAN_FIELD_NUMBER: _ClassVar[int]
    QUALITY_SD_FIELD_NUMBER: _ClassVar[int]
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    LATENCY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P95_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    UTILITY_FIELD_NUMBER: _ClassVar[int]
    NEWCOMER_FIELD_NUMBER: _ClassVar[int]
    model: str
    eligible: bool
    exclusions: _containers.RepeatedCompositeFieldContainer[Exclusion]
    quality_mean: float
    quality_sd: float
    cost_usd: float
    latency_seconds: float
    latency_p95_seconds: float
    propensity: float
    utility: float
    newcomer: bool
    def __init__(self, model: _Optional[str] = ..., eligible: bool = ..., exclusions: _Optional[_Iterable[_Union[Exclusion, _Mapping]]] = ..., quality_mean: _Optional[float] = ..., quality_sd: _Optional[float] = ..., cost_usd: _Optional[float] = ..., latency_seconds: _Optional[float] = ..., latency_p95_seconds: _Optional[float] = ..., propensity: _Optional[float] = ..., utility: _Optional[float] = ..., newcomer: bool = ...) -> None: ...

class Exclusion(_message.Message):
    __slots__ = ("reason", "detail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: ExclusionReason
    detail: str
    def __init__(self, reason: _Optional[_Union[ExclusionReason, str]] = ..., detail: _Optional[str] = ...) -> None: ...
