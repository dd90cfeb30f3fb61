"""Requirements of a promotion gate: expressions parsed into clauses; nothing in them is ever executed.

    lower(quality) >= 0.98 * logged(quality) and upper(cost) <= 0.8 * logged(cost) and ess() >= 1000

A term is ``lower(S)``, ``upper(S)``, ``estimate(S)`` or ``logged(S)`` of a signal S that the log has, ``ess()``,
``largest_weight_share()``, or a number, with + - * / and parentheses. A clause compares two sides with >=, <=, > or <.
Clauses are joined by ``and`` and ``or``; there is no ``not``. Of a signal that can be negative a factor of the logged value means
the opposite of what it seems to, so differences are wanted there: ``lower(S) >= logged(S) + 0.1``.

A clause with a bound of one signal and the logged value of the same, ``lower(S) >= c * logged(S) + d`` with c >= 0, is one
question about paired rounds, is V(candidate) - c·V(logged) >= d?, and is tested as one: that takes far fewer rounds than two
bounds that must not touch. Any other clause is computed from bounds and estimates as it stands.

>>> requirement = parse_requirement("lower(quality) >= 0.98 * logged(quality) and ess() >= 1000", ["quality"])
>>> [clause.text for clause in requirement.clauses()]
['lower(quality) >= 0.98 * logged(quality)', 'ess() >= 1000']
>>> paired_test(requirement.clauses()[0]).factor
0.98
>>> parse_requirement("upper(quality) >= 0.5", ["quality"])
Traceback (most recent call last):
    ...
pointsman.simulator.offpolicy.expression.ExpressionError: column 1: expected lower(quality), for upper(quality) shows nothing \
on this side, got 'upper(quality) >= 0.5'
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

OF_SIGNAL = ("lower", "upper", "estimate", "logged")
"""Functions of a signal."""
OF_WEIGHTS = ("ess", "largest_weight_share")
"""Functions of the importance weights."""
MAX_LENGTH = 2000
"""Most characters of an expression."""
_COMPARISONS = {ast.GtE: ">=", ast.LtE: "<=", ast.Gt: ">", ast.Lt: "<"}


class ExpressionError(ValueError):
    """An expression cannot be understood. Says where and what was expected."""


@dataclass(frozen=True, slots=True)
class Term:
    """``function`` of ``signal``, "" for a function of the weights."""

    function: str
    signal: str = ""

    def __str__(self) -> str:
        return f"{self.function}({self.signal})"


@dataclass(frozen=True, slots=True, eq=False)
class LinearCombination:
    """``constant`` + Σ factor · term."""

    factors: Mapping[Term, float]
    constant: float = 0.0

    def value(self, values: Mapping[Term, float]) -> float:
        """Its value where the terms have these values."""
        return self.constant + sum(factor * values[term] for term, factor in self.factors.items())


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One comparison, as it was written in ``text``: ``difference``, the left side less the right, compared with 0."""

    text: str
    difference: LinearCombination
    comparison: str

    def holds(self, values: Mapping[Term, float]) -> bool:
        """Whether it holds where the terms have these values; not if any is NaN."""
        value = self.difference.value(values)
        return {">=": value >= 0.0, "<=": value <= 0.0, ">": value > 0.0, "<": value < 0.0}[self.comparison]


@dataclass(frozen=True, slots=True)
class PairedTest:
    """A clause that is one question: is V(candidate) - ``factor`` · V(logged) of ``signal`` at least (``lower``) or at most
    ``offset``?
    """

    signal: str
    lower: bool
    factor: float
    offset: float


@dataclass(frozen=True, slots=True, eq=False)
class Requirement:
    """Clauses and requirements, ``parts``, joined by ``operator``, which is ``and`` or ``or``."""

    operator: str
    parts: tuple[Clause | Requirement, ...]

    def clauses(self) -> list[Clause]:
        """All clauses, from left to right."""
        return [c for part in self.parts for c in ([part] if isinstance(part, Clause) else part.clauses())]

    def holds(self, shown: Mapping[Clause, bool | None]) -> bool | None:
        """Whether it holds, given which of its clauses are shown; ``None`` if that hangs on clauses that are ``None``."""
        decisive = self.operator == "or"  # one such part decides
        holds = [shown[part] if isinstance(part, Clause) else part.holds(shown) for part in self.parts]
        if decisive in holds:
            return decisive
        return None if None in holds else not decisive


def parse_requirement(text: str, signals: Collection[str]) -> Requirement:
    """A requirement on the ``signals`` of a log. Raises ``ExpressionError``."""
    example = "an expression such as lower(quality) >= 0.98 * logged(quality)"
    parsed = _parsed(text, example, lambda tree: _Parser(text.strip(), signals).requirement(tree))
    return parsed if isinstance(parsed, Requirement) else Requirement("and", (parsed,))


def parse_combination(text: str, signals: Collection[str]) -> LinearCombination:
    """A sum of signals, such as ``quality - 20 * cost``: terms of the function "". Raises ``ExpressionError``."""
    example = "a sum of signals such as quality - 20 * cost"
    parsed = _parsed(text, example, lambda tree: _Parser(text.strip(), signals).sum(tree))
    if not parsed.factors or any(term.function for term in parsed.factors):
        raise ExpressionError(f"expected {example}")
    return parsed


def paired_test(clause: Clause) -> PairedTest | None:
    """The paired test that ``clause`` is, ``None`` if it is not a single question."""
    bounds = [t for t in clause.difference.factors if t.function in ("lower", "upper")]
    others = [t for t in clause.difference.factors if t.function not in ("lower", "upper")]
    if len(bounds) != 1 or any(t.function != "logged" or t.signal != bounds[0].signal for t in others):
        return None
    bound, scale = bounds[0], clause.difference.factors[bounds[0]]
    factor = -sum(clause.difference.factors[t] for t in others) / scale
    more = (clause.comparison[0] == ">") == (scale > 0.0)
    if factor < 0.0 or more != (bound.function == "lower"):
        return None
    return PairedTest(bound.signal, bound.function == "lower", factor, -clause.difference.constant / scale)


def scaled_logged(clause: Clause) -> str | None:
    """The signal whose logged value ``clause`` compares, times a factor, with a bound or estimate of the same; ``None`` if none.

    Where a signal can be negative, a factor turns round: 1.1 times -1 is less than -1.

    >>> scaled_logged(parse_requirement("lower(quality) >= 1.1 * logged(quality)", ["quality"]).clauses()[0])
    'quality'
    >>> scaled_logged(parse_requirement("lower(quality) >= logged(quality) - 0.02", ["quality"]).clauses()[0])
    """
    factors = clause.difference.factors
    for term, factor in factors.items():
        of_candidate = [f for t, f in factors.items() if t.signal == term.signal and t.function != "logged"]
        if term.function == "logged" and of_candidate and abs(sum(of_candidate) + factor) > 1e-12 * abs(factor):
            return term.signal
    return None


def _parsed(text: str, example: str, convert: Callable[[ast.expr], T]) -> T:
    """``convert`` applied to the tree of ``text``, which may be any text, nested as deep as it likes."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"expected at most {MAX_LENGTH} characters, got {len(text)}")
    try:
        return convert(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        at = f"column {error.offset}: " if error.offset else ""
        raise ExpressionError(f"{at}expected {example}") from None
    except ExpressionError:
        raise
    except (ValueError, RecursionError, MemoryError):
        raise ExpressionError(f"expected {example}, not so deeply nested") from None


class _Parser:
    def __init__(self, text: str, signals: Collection[str]) -> None:
        self._text, self._signals = text, signals

    def requirement(self, node: ast.expr) -> Clause | Requirement:
        if isinstance(node, ast.BoolOp):
            operator = "and" if isinstance(node.op, ast.And) else "or"
            return Requirement(operator, tuple(self.requirement(value) for value in node.values))
        if not isinstance(node, ast.Compare):
            raise self._wrong(node, "a comparison of two sides with >=, <=, > or <, perhaps joined by and, or")
        if len(node.ops) != 1 or type(node.ops[0]) not in _COMPARISONS:
            raise self._wrong(node, "two sides and one of >=, <=, >, <")
        left, right = self.sum(node.left), self.sum(node.comparators[0])
        difference = _add(left, right, -1.0)
        if not difference.factors or any(not term.function for term in difference.factors):
            raise self._wrong(node, f"one of {', '.join(OF_SIGNAL + OF_WEIGHTS)} in it")
        text = ast.get_source_segment(self._text, node) or ""
        clause = Clause(text, difference, _COMPARISONS[type(node.ops[0])])
        self._safe(node, clause)
        return clause

    def sum(self, node: ast.expr) -> LinearCombination:
        match node:
            case ast.Constant(value=bool()):
                raise self._wrong(node, "a number")
            case ast.Constant(value=int() | float() as value) if abs(value) < 1e300:
                return LinearCombination({}, float(value))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign):
                return _scaled(self.sum(node.operand), -1.0 if isinstance(sign, ast.USub) else 1.0)
            case ast.BinOp(op=ast.Add() | ast.Sub() as sign):
                return _add(self.sum(node.left), self.sum(node.right), 1.0 if isinstance(sign, ast.Add) else -1.0)
            case ast.BinOp(op=ast.Mult()):
                left, right = self.sum(node.left), self.sum(node.right)
                if left.factors and right.factors:
                    raise self._wrong(node, "a number on one side of *")
                return _scaled(left, right.constant) if left.factors else _scaled(right, left.constant)
            case ast.BinOp(op=ast.Div()):
                left, right = self.sum(node.left), self.sum(node.right)
                if right.factors or right.constant == 0.0:
                    raise self._wrong(node, "a number other than 0 under /")
                return _scaled(left, 1.0 / right.constant)
            case ast.Name(id=signal) if signal in self._signals:
                return LinearCombination({Term("", signal): 1.0})
            case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]):
                return LinearCombination({self._term(node, function, arguments): 1.0})
        raise self._wrong(node, f"a number, or one of {', '.join(OF_SIGNAL)} of a signal, {', '.join(OF_WEIGHTS)}")

    def _term(self, node: ast.expr, function: str, arguments: list[ast.expr]) -> Term:
        if function in OF_WEIGHTS:
            if arguments:
                raise self._wrong(node, f"nothing between the parentheses of {function}")
            return Term(function)
        if function not in OF_SIGNAL:
            raise self._wrong(node, f"one of {', '.join(OF_SIGNAL + OF_WEIGHTS)}")
        match arguments:
            case [ast.Name(id=signal)] if signal in self._signals:
                return Term(function, signal)
        raise self._wrong(node, f"{function} of one of the log's signals: {', '.join(sorted(self._signals))}")

    def _safe(self, node: ast.expr, clause: Clause) -> None:
        """A lower bound shows that something is large, an upper one that it is small: the other way about shows nothing."""
        for term, factor in clause.difference.factors.items():
            if term.function in ("lower", "upper") and factor:
                large = (clause.comparison[0] == ">") == (factor > 0.0)
                if large != (term.function == "lower"):
                    wanted = "lower" if large else "upper"
                    raise self._wrong(node, f"{wanted}({term.signal}), for {term} shows nothing on this side")

    def _wrong(self, node: ast.expr, expected: str) -> ExpressionError:
        segment = ast.get_source_segment(self._text, node) or self._text
        return ExpressionError(f"column {node.col_offset + 1}: expected {expected}, got {segment!r}")


def _scaled(combination: LinearCombination, factor: float) -> LinearCombination:
    factors = {term: factor * value for term, value in combination.factors.items()}
    return LinearCombination(factors, factor * combination.constant)


def _add(left: LinearCombination, right: LinearCombination, sign: float) -> LinearCombination:
    factors = dict(left.factors)
    for term, value in right.factors.items():
        factors[term] = factors.get(term, 0.0) + sign * value
    return LinearCombination(
        {term: value for term, value in factors.items() if value != 0.0}, left.constant + sign * right.constant
    )
