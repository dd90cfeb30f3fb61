"""The command ``pointsman evaluate``.

>>> from click.testing import CliRunner
>>> CliRunner().invoke(evaluate_command, ["--help"]).output.splitlines()[0]
'Usage: evaluate [OPTIONS]'
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pointsman.bandit.catalog import Objective, QualityRange
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.offpolicy.candidate import CandidateError, read_candidate
from pointsman.simulator.offpolicy.estimators.scores import NAMES
from pointsman.simulator.offpolicy.evaluation.estimates import IntervalEstimate
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation, SignalReport, evaluate_candidate
from pointsman.simulator.offpolicy.evaluation.signals import EvaluationError
from pointsman.simulator.offpolicy.expression import (
    ExpressionError,
    LinearCombination,
    Requirement,
    parse_combination,
    parse_requirement,
)
from pointsman.simulator.offpolicy.files import Told, as_values, write_evaluation
from pointsman.simulator.offpolicy.gate import Finding, judge
from pointsman.simulator.offpolicy.logs.log import Log, LogError
from pointsman.simulator.offpolicy.logs.read import FORMS, read_log
from pointsman.simulator.offpolicy.sentences import all_estimates, comparisons, forecasts, warnings
from pointsman.simulator.report.terminal import InputUnreadableError, console
from pointsman.simulator.run.versions import versions
from pointsman.simulator.world.utility import parse_objective


@click.command("evaluate")
@click.option("--log", "spec", metavar="L", required=True, help=f"What was logged: {FORMS}.")
@click.option(
    "--candidate",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The policy that might go live, as YAML; see docs/simulator.md.",
)
@click.option(
    "--require",
    metavar="EXPR",
    help="What must be shown, such as 'lower(quality) >= 0.98 * logged(quality) and upper(cost) <= 0.8 * logged(cost)'. "
    "Exits 1 if it is not. Bounds need the range of their signals: --range, or the bucket's scale in a journal.",
)
@click.option(
    "--estimators", metavar="E[,E…]", default=",".join(NAMES), show_default=True, help="What to estimate with."
)
@click.option("--level", type=click.FloatRange(0.5, 0.9999), default=0.95, show_default=True, help="Of all intervals.")
@click.option("--signal", "wanted", metavar="S", multiple=True, help="A signal to evaluate, or NAME=SUM of them, such as "
    "'worth=quality - 20 * cost'. Repeat for several. Default: quality, cost, latency, success.")  # fmt: skip
@click.option("--range", "stated_ranges", metavar="S=LOW,HIGH", multiple=True, help="The least and the largest value that a "
    "signal can have, which bounds rest on, such as quality=0,1. Known without: quality in a journal, success.")  # fmt: skip
@click.option("--cap", "caps", metavar="S=VALUE", multiple=True, help="The largest value alone, of a signal that is never below "
    "0, such as cost=0.05.")  # fmt: skip
@click.option("--objective", metavar="O", help="By what controls are judged, such as COST_FIRST:min_quality=0.8. Default: the "
    "candidate's objective, or the log's, if it says one for all decisions; else quality.")  # fmt: skip
@click.option("--decisions", metavar="FIRST:LAST", default=":", help="Only these of the log, counted from 0; LAST is not one of "
    "them. Either may be left out. The others take no memory.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for evaluation.json, evaluation.csv and evaluation.html.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def evaluate_command(
    spec: str,
    path: Path,
    require: str | None,
    estimators: str,
    level: float,
    wanted: Sequence[str],
    stated_ranges: Sequence[str],
    caps: Sequence[str],
    objective: str | None,
    decisions: str,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Estimate what another policy would have made of logged requests, and whether it may go live.

    Exits 0 if what --require asks for is shown, 1 if it is not and only then, 2 for a wrong command or a log that cannot be read.
    """
    try:
        candidate = read_candidate(path)
        with Console(stderr=True).status(f"reading {escape(spec)}"):
            log = read_log(spec, *_decisions(decisions))
        request = _request(log, wanted, require)
        evaluation = evaluate_candidate(
            log,
            candidate,
            signals=request.signals,
            sums=request.sums,
            caps=_caps(caps),
            ranges=_ranges(stated_ranges),
            objective=None if objective is None else _objective(log, objective, _ranges(stated_ranges)),
            estimators=_names(estimators),
            level=level,
            seed=seed,
        )
        verdict = None if request.requirement is None else judge(evaluation, request.requirement)
    except ExpressionError as error:
        raise click.UsageError(f"--require: {error}") from error
    except (CandidateError, EvaluationError, SettingError) as error:
        raise click.UsageError(str(error)) from error
    except LogError as error:
        raise InputUnreadableError(str(error)) from error
    except (OSError, MemoryError, RecursionError) as error:  # whatever keeps it from a verdict is none
        raise InputUnreadableError(f"{spec}: cannot be evaluated: {error!r}") from error
    configuration = {
        "log": spec,
        "log sha256": _digest(spec),
        "candidate": path.read_text(encoding="utf-8"),
        "require": require,
        "level": level,
        "estimators": estimators,
        "signals": list(wanted),
        "ranges": list(stated_ranges),
        "caps": list(caps),
        "objective": objective,
        "decisions": decisions,
        "seed": seed,
        **versions(),
    }
    told = Told(evaluation, verdict, () if verdict is None or request.requirement is None else tuple(
        forecasts(evaluation, request.requirement, verdict)))  # fmt: skip
    _tell(told, configuration, out, as_json)
    if verdict is not None and not verdict.passed:
        sys.exit(1)


@dataclass(frozen=True, slots=True)
class _Request:
    """An evaluation request: ``signals`` of the log (none: all that matter), ``sums`` of them by name, a requirement."""

    signals: Sequence[str]
    sums: Mapping[str, LinearCombination]
    requirement: Requirement | None


def _request(log: Log, wanted: Sequence[str], require: str | None) -> _Request:
    """The signals that were asked for, with those that the requirement names."""
    signals: list[str] = []
    sums: dict[str, LinearCombination] = {}
    for text in wanted:
        name, equals, combination = text.partition("=")
        if not equals:
            signals.append(name.strip())
            continue
        try:
            sums[name.strip()] = parse_combination(combination, list(log.signals))
        except ExpressionError as error:
            raise EvaluationError(f"--signal {name.strip()}: {error}") from None
    if require is None:
        return _Request(signals, sums, None)
    requirement = parse_requirement(require, [*(signals or log.signals), *sums])
    if signals:
        named = {t.signal for clause in requirement.clauses() for t in clause.difference.factors if t.signal}
        signals += sorted(named - set(signals) - set(sums))
    return _Request(signals, sums, requirement)


def _digest(spec: str) -> str | None:
    """The SHA-256 of a file, so that a record says which log it was; ``None`` for a log that is no file."""
    path = Path(spec)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decisions(text: str) -> tuple[int, int | None]:
    first, colon, last = text.partition(":")
    ends = [0 if not end else int(end) if end.isdigit() else -1 for end in (first, last)]
    if not colon or min(ends) < 0 or (last and ends[1] <= ends[0]):
        raise EvaluationError(f"--decisions: expected FIRST:LAST such as 1000: or :5000 or 1000:5000, got {text!r}")
    return ends[0], ends[1] if last else None


def _caps(texts: Sequence[str]) -> dict[str, float]:
    cap_by_signal = {}
    for text in texts:
        signal, _, value = text.partition("=")
        try:
            cap = float(value)
        except ValueError:
            cap = math.nan
        if not math.isfinite(cap):
            raise EvaluationError(f"--cap: expected SIGNAL=VALUE such as cost=0.05, got {text!r}")
        cap_by_signal[signal.strip()] = cap
    return cap_by_signal


def _objective(log: Log, text: str, ranges: Mapping[str, tuple[float, float]]) -> Objective:
    """An objective, resolved on the scale of quality that is stated, or the log's, or 0 to 1. Raises ``SettingError``."""
    low, high = ranges.get("quality", log.ranges.get("quality", (0.0, 1.0)))
    return parse_objective(text, QualityRange(low, high) if math.isfinite(high - low) else QualityRange())


def _ranges(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    range_by_signal = {}
    for text in texts:
        signal, _, ends = text.partition("=")
        try:
            low, high = (float(end) for end in ends.split(","))
        except ValueError:
            low = high = math.nan
        if not -math.inf < low < high < math.inf:
            raise EvaluationError(f"--range: expected SIGNAL=LOW,HIGH such as quality=0,1, got {text!r}")
        range_by_signal[signal.strip()] = (low, high)
    return range_by_signal


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise EvaluationError(f"--estimators: expected some of {', '.join(NAMES)}, got {unknown[0]!r}")
    return names


def _tell(
    told: Told,
    configuration: Mapping[str, object],
    out: Path | None,
    as_json: bool,
) -> None:
    """Write what is asked for, and print it, as JSON or as tables and sentences."""
    if out is not None:
        try:
            write_evaluation(out, told, configuration)
        except OSError as error:
            raise InputUnreadableError(f"--out {out}: {error}") from error
    if as_json:
        click.echo(json.dumps(as_values(told, configuration), allow_nan=False))
        return
    _print(told)
    if out is not None:
        click.echo(f"\n{out / 'evaluation.html'}, evaluation.json and evaluation.csv are written.")


def _print(told: Told) -> None:
    evaluation, verdict = told.evaluation, told.verdict
    terminal = console()
    for report in evaluation.reports.values():
        terminal.print(_table(evaluation, report))
    for sentence in (*comparisons(evaluation), *warnings(evaluation)):
        terminal.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if verdict is not None:
        terminal.print()
        for line in (*map(_finding, (*verdict.clauses, *verdict.conditions)), *told.forecasts):
            terminal.print(line, markup=False, highlight=False, soft_wrap=True)
        word = "PASSED: shown" if verdict.passed else "NOT PASSED: not shown"
        terminal.print(f"{word} at {verdict.level:.2%}", style="bold", highlight=False)


def _table(evaluation: Evaluation, report: SignalReport) -> Table:
    """The estimates of one signal; what is not of the candidate is bold."""
    title = f"{report.signal} of {evaluation.candidate.name}, {report.reported} rounds with an outcome"
    table = Table(title=escape(title))
    for column in ("estimator", "estimate", f"{evaluation.level:.0%} normal", "bootstrap", "any time, any log"):
        table.add_column(column, justify="left" if column == "estimator" else "right")
    of_candidate = {estimate.estimator for estimate in report.estimates}
    for estimate in all_estimates(evaluation, report):
        table.add_row(
            escape(estimate.estimator + (f" ({estimate.tuned:g})" if estimate.tuned is not None else "")),
            "" if math.isnan(estimate.estimate) else f"{estimate.estimate:.5g}",
            *(_ends(estimate, kind) for kind in ("normal", "bootstrap", "betting")),
            style="" if estimate.estimator in of_candidate else "bold",
        )
    return table


def _finding(finding: Finding) -> str:
    return f"{'yes' if finding.shown else 'NO '}  {finding.what}: {finding.why}"


def _ends(estimate: IntervalEstimate, kind: str) -> str:
    interval = estimate.intervals.get(kind)
    return "" if interval is None else f"{interval.low:.5g} … {interval.high:.5g}"
