"""Under which key the journal files an event, and what makes a group of events a repetition: the one place that knows.

A key names what an event is about: the 16 bytes of a decision's id, or a resource's name. ``once`` strings are what idempotency
rests on: `d:` for the decisions of one request, `o:` for one report.
"""

from __future__ import annotations

from pointsman.bandit import event as e
from pointsman.server.names import bucket_name, model_name, project_name


def key_of(event: e.Event) -> bytes:
    """The key of ``event``."""
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


def once_of(event: e.Event) -> bytes:
    """What a repetition of ``event`` has in common with it; empty if it may be repeated.

    All decisions of one batch have the same, and are one group.
    """
    match event:
        case e.DecisionMade():
            return decisions_once(event.bucket, event.request_id)
        case e.OutcomeApplied():
            return report_once(event.decision_id, event.idempotency_key)
        case _:
            return b""


def decisions_once(bucket: str, request_id: str) -> bytes:
    """The ``once`` of the decisions that a bucket makes for a request id; empty without one."""
    return f"d:{bucket}\n{request_id}".encode() if request_id else b""


def report_once(decision: bytes, key: str) -> bytes:
    """The ``once`` of a report on a decision with an idempotency key; empty without one."""
    return b"o:" + decision + b"\n" + key.encode() if key else b""
