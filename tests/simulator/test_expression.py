"""What a gate asks for is parsed, never executed; what cannot be shown is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.simulator.offpolicy.expression import (
    ExpressionError,
    PairedTest,
    Requirement,
    Term,
    paired_test,
    parse_combination,
    parse_requirement,
)

SIGNALS = ("quality", "cost")


def test_a_requirement_is_clauses_joined() -> None:
    requirement = parse_requirement(
        "lower(quality) >= 0.98 * logged(quality) and (upper(cost) <= 2 or ess() > 10)", SIGNALS
    )
    assert [clause.text for clause in requirement.clauses()] == [
        "lower(quality) >= 0.98 * logged(quality)", "upper(cost) <= 2", "ess() > 10",
    ]  # fmt: skip
    first, second, third = requirement.clauses()
    for first_shown in (False, True):
        for second_shown in (False, True):
            for third_shown in (False, True):
                assert requirement.holds({first: first_shown, second: second_shown, third: third_shown}) == (
                    first_shown and (second_shown or third_shown)
                )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lower(quality) >= 0.98 * logged(quality)", PairedTest("quality", True, 0.98, 0.0)),
        ("logged(quality) * 0.98 <= lower(quality)", PairedTest("quality", True, 0.98, 0.0)),
        ("lower(quality) - logged(quality) >= -0.01", PairedTest("quality", True, 1.0, -0.01)),
        ("2 * lower(quality) > logged(quality) + 1", PairedTest("quality", True, 0.5, 0.5)),
        ("upper(cost) <= 0.8 * logged(cost)", PairedTest("cost", False, 0.8, 0.0)),
        ("0.8 * logged(cost) - upper(cost) >= 0", PairedTest("cost", False, 0.8, 0.0)),
        ("upper(cost) < 0.005", PairedTest("cost", False, 0.0, 0.005)),
        ("lower(quality) >= 0.9", PairedTest("quality", True, 0.0, 0.9)),
        ("lower(quality) >= logged(cost)", None),
        ("lower(quality) - 20 * upper(cost) >= 0.1", None),
        ("ess() >= 1000", None),
    ],
)
def test_a_bound_and_the_logged_value_of_one_signal_are_one_question(text: str, expected: PairedTest | None) -> None:
    test = paired_test(parse_requirement(text, SIGNALS).clauses()[0])
    if expected is None:
        assert test is None
        return
    assert test is not None
    assert (test.signal, test.lower) == (expected.signal, expected.lower)
    assert (test.factor, test.offset) == pytest.approx((expected.factor, expected.offset))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected an expression such as"),
        ("lower(quality) >=", "expected an expression such as"),
        ("lower(quality)", "expected a comparison of two sides"),
        ("not lower(quality) >= 1", "expected a comparison of two sides"),
        ("0.5 <= lower(quality) <= 1", "expected two sides and one of"),
        ("lower(quality) == 1", "expected two sides and one of"),
        ("lower(speed) >= 1", "expected lower of one of the log's signals: cost, quality, got 'lower(speed)'"),
        ("lower() >= 1", "expected lower of one of the log's signals"),
        ("lower(quality, cost) >= 1", "expected lower of one of the log's signals"),
        ("ess(quality) >= 1", "expected nothing between the parentheses of ess"),
        ("least(quality) >= 1", "expected one of lower, upper"),
        ("upper(quality) >= 0.9", "expected lower(quality), for upper(quality) shows nothing on this side"),
        ("lower(cost) <= 0.1", "expected upper(cost)"),
        ("-lower(quality) >= -0.9", "expected upper(quality)"),
        ("lower(quality) * lower(cost) >= 1", "expected a number on one side of *"),
        ("1 / lower(quality) >= 1", "expected a number other than 0 under /"),
        ("lower(quality) / 0 >= 1", "expected a number other than 0 under /"),
        ("lower(quality) >= True", "expected a number, got 'True'"),
        ("lower(quality) >= 1e400", "expected a number"),
        ("1 >= 0.5", "expected one of lower, upper, estimate, logged, ess, largest_weight_share in it"),
        ("lower(quality) - lower(quality) >= 0", "in it"),
        ("quality >= 0.5", "in it"),
        ("__import__('os').system('true') >= 1", "expected"),
        ("(lambda: 1)() >= 1", "expected"),
        ("[x for x in (1,)] >= 1", "expected"),
        ("lower(quality) >= " + "-" * 1900 + "1", "expected"),
        ("(" * 900 + "1" + ")" * 900 + " >= 1", "expected"),
        ("1 >= " + "1+" * 1500 + "1", "expected at most 2000 characters"),
    ],
)
def test_invalid_input_is_refused(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse_requirement(text, SIGNALS)
    assert message in str(error.value)


@given(st.text(alphabet="lowerupqaitycsg()<>=+-*/.0198 andornt_", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        assert isinstance(parse_requirement(text, SIGNALS), Requirement)


def test_a_sum_of_signals() -> None:
    combination = parse_combination("quality - 20 * cost / 2 + 1", SIGNALS)
    assert combination.value({Term("", "quality"): 0.9, Term("", "cost"): 0.01}) == pytest.approx(1.8)
    for wrong in ("1 + 2", "lower(quality)", "speed", "quality * cost", ""):
        with pytest.raises(ExpressionError, match="expected"):
            parse_combination(wrong, SIGNALS)


@pytest.mark.parametrize("comparison", [">=", "<=", ">", "<"])
def test_no_clause_holds_of_a_nan(comparison: str) -> None:
    clause = parse_requirement(f"estimate(quality) {comparison} 0.5", SIGNALS).clauses()[0]
    assert not clause.holds({Term("estimate", "quality"): float("nan")})
