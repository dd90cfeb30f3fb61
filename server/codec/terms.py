"""The fields that a stored decision omits because its bucket's terms define them: candidates, objective, quality scale.

>>> from pointsman.bandit.terms import note_terms
>>> history: TermsHistory = {}
>>> note_terms(history, "summarize", 3, ("a", "b"), c.Objective(), c.QualityRange())
>>> stored = journal_pb2.DecisionMade(bucket="summarize", state_position=7, chosen=1)
>>> read_terms(stored, history).models
('a', 'b')
>>> fill_in(stored, history)
>>> list(stored.models), stored.quality_range.max
(['a', 'b'], 1.0)
"""

from __future__ import annotations

from pointsman.bandit import catalog as c
from pointsman.bandit.event import DecisionMade
from pointsman.bandit.terms import BucketTerms, TermsHistory, terms_at
from pointsman.server.codec.request import read_objective, write_objective
from pointsman.v1 import catalog_pb2 as pb
from pointsman.v1 import journal_pb2

_UNKNOWN = BucketTerms(0, (), c.Objective(), c.QualityRange())


def read_terms(message: journal_pb2.DecisionMade, history: TermsHistory) -> BucketTerms:
    """The terms of a decision: what its message says, and for what it leaves out those of its bucket on its state.

    Raises ``ValueError`` if ``history`` does not have what it leaves out, ``FieldError`` for a wrong value.
    """
    has_objective, has_range = message.HasField("objective"), message.HasField("quality_range")
    if message.models and has_objective and has_range:
        in_force = _UNKNOWN
    else:
        try:
            in_force = terms_at(history, message.bucket, message.state_position)
        except LookupError as error:
            if not (message.models and has_objective):
                raise ValueError(f"a decision refers to terms that are not known: {error}") from error
            in_force = (
                _UNKNOWN  # it was recorded before 0.2, and its bucket has gone since: nobody knows its scale any more
            )
        if not (message.models or has_objective or has_range):
            return in_force
    return BucketTerms(
        in_force.since,
        tuple(message.models) or in_force.models,
        (read_objective(message.objective) or c.Objective()) if has_objective else in_force.objective,
        c.QualityRange(message.quality_range.min, message.quality_range.max) if has_range else in_force.quality,
    )


def write_terms(message: journal_pb2.DecisionMade, event: DecisionMade, history: TermsHistory | None) -> None:
    """Say, in place, of the terms of ``event`` what ``history`` does not say; everything if it is ``None``."""
    in_force = None if history is None else terms_at(history, event.bucket, event.state_position)
    if in_force is None or event.models != in_force.models:
        message.models.extend(event.models)
    if in_force is None or event.objective != in_force.objective:
        message.objective.CopyFrom(write_objective(event.objective))
    if in_force is None or event.quality != in_force.quality:
        message.quality_range.CopyFrom(pb.QualityRange(min=event.quality.min, max=event.quality.max))


def fill_in(message: journal_pb2.DecisionMade, history: TermsHistory) -> None:
    """Fill in, in place, what a stored decision leaves out, so that it can be read without its journal.

    Raises ``ValueError`` if ``history`` does not have it.
    """
    terms = read_terms(message, history)
    message.models[:] = terms.models
    message.objective.CopyFrom(write_objective(terms.objective))
    message.quality_range.CopyFrom(pb.QualityRange(min=terms.quality.min, max=terms.quality.max))
