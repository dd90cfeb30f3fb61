"""How the journal files an event: under which keys, and for how long. The one place that knows.

A key names what an event is about, the 16 bytes of a decision's id or a resource's name; or what a repetition has in common with
the first time: `d:` and a bucket's request id for the decisions of one request, `o:` and a decision's idempotency key for one
report.

>>> request_key("summarize", "42")
b'd:summarize\\n42'
>>> key_of(e.ModelDeleted("gpt")), lifetime_of(e.ModelDeleted("gpt"))
(b'models/gpt', (True, 0))
"""

from __future__ import annotations

from pointsman.bandit import event as e
from pointsman.server.names import bucket_name, model_name, project_name


def key_of(event: e.Event) -> bytes:
    """The key of what ``event`` is about."""
    match event:
        case e.DecisionMade():
            return event.id
        case e.OutcomeApplied():
            return event.decision_id
        case e.ModelPut():
            return model_name(event.model.id).encode()
        case e.ModelDeleted() | e.AvailabilitySet():
            return model_name(event.model).encode()
        case e.BucketPut():
            return bucket_name(event.bucket.id).encode()
        case e.BucketDeleted():
            return bucket_name(event.bucket).encode()
        case e.ProjectPut():
            return project_name(event.project.id).encode()
        case e.ProjectDeleted():
            return project_name(event.project).encode()


def idempotency_key_of(event: e.Event) -> bytes:
    """The key of what a repetition of ``event`` would have in common with it; empty if it may be repeated.

    All decisions of one batch have the same, and are one group.
    """
    match event:
        case e.DecisionMade():
            return request_key(event.bucket, event.request_id)
        case e.OutcomeApplied():
            return report_key(event.decision_id, event.idempotency_key)
        case _:
            return b""


def request_key(bucket: str, request_id: str) -> bytes:
    """The key of the decisions that a bucket makes for a request id; empty without one."""
    return f"d:{bucket}\n{request_id}".encode() if request_id else b""


def report_key(decision: bytes, idempotency_key: str) -> bytes:
    """The key of a report on a decision with an idempotency key; empty without one."""
    return b"o:" + decision + b"\n" + idempotency_key.encode() if idempotency_key else b""


def lifetime_of(event: e.Event) -> tuple[bool, int]:
    """Whether ``event`` is permanent, and until when the journal is kept whole for it (see ``Entry``).

    Decisions are kept until they cannot get outcomes any more; what made the catalogue is kept for ever.
    """
    match event:
        case e.DecisionMade():
            return False, event.expire_ns
        case e.OutcomeApplied():
            return False, 0
        case _:
            return True, 0
