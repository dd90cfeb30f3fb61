"""The terms that decisions of a bucket have in common: candidates, objective and scale of quality.

They change when the catalogue does, which is rarely; a decision's event refers to them instead of repeating them. It says on
which state it was drawn (``state_position``), and the terms of its bucket in that state are a fact of the journal:

    >>> from pointsman.bandit.catalog import Objective, QualityRange
    >>> history = {}
    >>> note_terms(history, "summarize", 3, ("a", "b"), Objective(), QualityRange())
    >>> note_terms(history, "summarize", 9, ("a", "b", "c"), Objective(), QualityRange())
    >>> terms_at(history, "summarize", 8).models
    ('a', 'b')
    >>> terms_at(history, "summarize", 9).models
    ('a', 'b', 'c')
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from operator import attrgetter

from pointsman.bandit.catalog import Objective, QualityRange


@dataclass(frozen=True, slots=True)
class BucketTerms:
    """What every decision of a bucket has in common that is drawn on a state from position ``since`` on.

    ``models`` are the candidates' ids in the order of a decision's arrays (k), ``objective`` is the bucket's with every default
    filled in, ``quality`` the scale that quality is reported on.
    """

    since: int
    models: tuple[str, ...]
    objective: Objective
    quality: QualityRange


TermsHistory = dict[str, list[BucketTerms]]
"""By bucket id all terms it ever had, in the order of ``since``; those of deleted buckets stay, as their decisions do."""


def note_terms(
    history: TermsHistory,
    bucket: str,
    since: int,
    models: tuple[str, ...],
    objective: Objective,
    quality: QualityRange,
) -> None:
    """Note, in place, the terms of ``bucket`` as they are after the event at ``since``, if they differ from those before."""
    terms = history.setdefault(bucket, [])
    if not terms or (terms[-1].models, terms[-1].objective, terms[-1].quality) != (models, objective, quality):
        terms.append(BucketTerms(since, models, objective, quality))


def terms_at(history: TermsHistory, bucket: str, position: int) -> BucketTerms:
    """The terms of ``bucket`` in the state at ``position``.

    Raises ``LookupError`` if the bucket was not there yet.
    """
    terms = history.get(bucket, [])
    index = bisect_right(terms, position, key=attrgetter("since"))
    if not index:
        raise LookupError(f"buckets/{bucket} has no terms at position {position}")
    return terms[index - 1]
