"""Terms of decisions: the history has those in force at any position."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bandit.catalog import Mode, Objective, QualityRange
from pointsman.bandit.terms import TermsHistory, note_terms, terms_at

OBJECTIVES = (Objective(), Objective(Mode.QUALITY_FIRST))
RANGES = (QualityRange(), QualityRange(0.0, 10.0))
CHANGES = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.sampled_from([("a",), ("a", "b")]),
        st.sampled_from(OBJECTIVES),
        st.sampled_from(RANGES),
    ),
    min_size=1,
    max_size=20,
)


@given(CHANGES)
def test_the_terms_at_a_position_are_those_of_the_last_change_up_to_it(
    changes: list[tuple[int, tuple[str, ...], Objective, QualityRange]],
) -> None:
    history: TermsHistory = {}
    in_force, position = {}, 0
    for gap, models, objective, quality in changes:
        for quiet in range(position, position + gap):
            in_force[quiet] = in_force.get(quiet - 1)
        position += gap
        note_terms(history, "b", position, models, objective, quality)
        in_force[position] = (models, objective, quality)
        position += 1
    for at, expected in in_force.items():
        if expected is not None:
            terms = terms_at(history, "b", at)
            assert (terms.models, terms.objective, terms.quality) == expected
            assert terms.since <= at


@given(CHANGES)
def test_unchanged_terms_are_noted_once(
    changes: list[tuple[int, tuple[str, ...], Objective, QualityRange]],
) -> None:
    history: TermsHistory = {}
    for position, (_, models, objective, quality) in enumerate(changes, 1):
        note_terms(history, "b", position, models, objective, quality)
    kept = [(terms.models, terms.objective, terms.quality) for terms in history["b"]]
    assert all(before != after for before, after in pairwise(kept))


def test_a_bucket_has_no_terms_before_it_is_created() -> None:
    history: TermsHistory = {}
    note_terms(history, "b", 5, ("a",), OBJECTIVES[0], RANGES[0])
    with pytest.raises(LookupError, match=r"buckets/b has no terms at position 4"):
        terms_at(history, "b", 4)
    with pytest.raises(LookupError, match=r"buckets/other"):
        terms_at(history, "other", 9)
