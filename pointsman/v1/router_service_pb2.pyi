from pointsman.v1 import catalog_pb2 as _catalog_pb2
from pointsman.v1 import context_pb2 as _context_pb2
from pointsman.v1 import decision_pb2 as _decision_pb2
from pointsman.v1 import outcome_pb2 as _outcome_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DecideRequest(_message.Message):
    __slots__ = ("bucket", "context", "objective", "limits", "request_id", "explain")
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    bucket: str
    context: _context_pb2.Context
    objective: _catalog_pb2.Objective
    limits: _decision_pb2.Limits
    request_id: str
    explain: bool
    def __init__(self, bucket: _Optional[str] = ..., context: _Optional[_Union[_context_pb2.Context, _Mapping]] = ..., objective: _Optional[_Union[_catalog_pb2.Objective, _Mapping]] = ..., limits: _Optional[_Union[_decision_pb2.Limits, _Mapping]] = ..., request_id: _Optional[str] = ..., explain: bool = ...) -> None: ...

class DecideResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: _decision_pb2.Decision
    def __init__(self, decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ...) -> None: ...

class BatchDecideRequest(_message.Message):
    __slots__ = ("bucket", "contexts", "objective", "limits", "explain", "request_id")
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    bucket: str
    contexts: _containers.RepeatedCompositeFieldContainer[_context_pb2.Context]
    objective: _catalog_pb2.Objective
    limits: _decision_pb2.Limits
    explain: bool
    request_id: str
    def __init__(self, bucket: _Optional[str] = ..., contexts: _Optional[_Iterable[_Union[_context_pb2.Context, _Mapping]]] = ..., objective: _Optional[_Union[_catalog_pb2.Objective, _Mapping]] = ..., limits: _Optional[_Union[_decision_pb2.Limits, _Mapping]] = ..., explain: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class BatchDecideResponse(_message.Message):
    __slots__ = ("decisions",)
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Decision]
    def __init__(self, decisions: _Optional[_Iterable[_Union[_decision_pb2.Decision, _Mapping]]] = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("decision", "outcome", "idempotency_key", "model")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    decision: str
    outcome: _outcome_pb2.Outcome
    idempotency_key: str
    model: str
    def __init__(self, decision: _Optional[str] = ..., outcome: _Optional[_Union[_outcome_pb2.Outcome, _Mapping]] = ..., idempotency_key: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ("outcome", "duplicate", "position")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    outcome: _outcome_pb2.Outcome
    duplicate: bool
    position: int
    def __init__(self, outcome: _Optional[_Union[_outcome_pb2.Outcome, _Mapping]] = ..., duplicate: bool = ..., position: _Optional[int] = ...) -> None: ...

class BatchReportOutcomesRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ReportOutcomeRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ReportOutcomeRequest, _Mapping]]] = ...) -> None: ...

class BatchReportOutcomesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchReportOutcomesResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchReportOutcomesResult, _Mapping]]] = ...) -> None: ...

class BatchReportOutcomesResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: ReportOutcomeResponse
    error: ReportOutcomeError
    def __init__(self, response: _Optional[_Union[ReportOutcomeResponse, _Mapping]] = ..., error: _Optional[_Union[ReportOutcomeError, _Mapping]] = ...) -> None: ...

class ReportOutcomeError(_message.Message):
    __slots__ = ("code", "message", "field")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    field: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class GetDecisionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetDecisionResponse(_message.Message):
    __slots__ = ("decision", "outcomes")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    decision: _decision_pb2.Decision
    outcomes: _containers.RepeatedCompositeFieldContainer[ModelOutcome]
    def __init__(self, decision: _Optional[_Union[_decision_pb2.Decision, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[ModelOutcome, _Mapping]]] = ...) -> None: ...

class ModelOutcome(_message.Message):
    __slots__ = ("model", "outcome", "reports")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    outcome: _outcome_pb2.Outcome
    reports: int
    def __init__(self, model: _Optional[str] = ..., outcome: _Optional[_Union[_outcome_pb2.Outcome, _Mapping]] = ..., reports: _Optional[int] = ...) -> None: ...
