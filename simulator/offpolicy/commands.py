"""The command ``pointsman evaluate``."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pointsman.simulator.offpolicy.candidate import CandidateError, read_candidate
from pointsman.simulator.offpolicy.estimators.scores import NAMES
from pointsman.simulator.offpolicy.evaluation.comparators import Line
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation, evaluate
from pointsman.simulator.offpolicy.evaluation.evidence import EvaluationError
from pointsman.simulator.offpolicy.expression import ExpressionError, Sum, combination, parse
from pointsman.simulator.offpolicy.files import as_rows, write_outcome
from pointsman.simulator.offpolicy.gate import Finding, Verdict, judge
from pointsman.simulator.offpolicy.logs.journal import Journal
from pointsman.simulator.offpolicy.logs.log import LogError
from pointsman.simulator.offpolicy.logs.read import FORMS, read_log
from pointsman.simulator.offpolicy.sentences import controls_sentence, lines_of, warnings
from pointsman.simulator.report.terminal import console
from pointsman.simulator.run.versions import versions


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
    "Exits 1 if it is not.",
)
@click.option(
    "--estimators", metavar="E[,E…]", default=",".join(NAMES), show_default=True, help="What to estimate with."
)
@click.option("--level", type=click.FloatRange(0.5, 0.9999), default=0.95, show_default=True, help="Of all intervals.")
@click.option("--signal", "wanted", metavar="S", multiple=True, help="A signal to evaluate, or NAME=SUM of them, such as "
    "'worth=quality - 20 * cost'. Repeat for several. Default: quality, cost, latency, success.")  # fmt: skip
@click.option("--cap", "caps", metavar="S=VALUE", multiple=True, help="The largest value that a signal can have. Default: the "
    "end of its range, or the largest seen.")  # fmt: skip
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
    caps: Sequence[str],
    decisions: str,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Estimate what another policy would have made of logged requests, and whether it may go live.

    Exits 0 if what --require asks for is shown, 1 if it is not, 2 for a wrong command.
    """
    try:
        candidate = read_candidate(path)
        with Console(stderr=True).status(f"reading {escape(spec)}"):
            source = read_log(spec, *_decisions(decisions))
        log = source.log if isinstance(source, Journal) else source
        signals, sums = _wanted(wanted, list(log.signals))
        asked = [*(signals or log.signals), *sums]
        requirement = None if require is None else parse(require, asked)
        if requirement is not None:
            named = {t.signal for c in requirement.clauses() for t in c.difference.factors if t.signal}
            signals = [*signals, *sorted(named - set(signals) - set(sums))] if signals else signals
        evaluation = evaluate(
            source,
            candidate,
            signals=signals,
            sums=sums,
            caps=_caps(caps),
            estimators=_names(estimators),
            level=level,
            seed=seed,
        )
        verdict = None if requirement is None else judge(evaluation, requirement)
    except ExpressionError as error:
        raise click.UsageError(f"--require: {error}") from error
    except (CandidateError, EvaluationError) as error:
        raise click.UsageError(str(error)) from error
    except LogError as error:
        raise click.ClickException(str(error)) from error
    configuration = {
        "log": spec,
        "log sha256": _digest(spec),
        "candidate": path.read_text(encoding="utf-8"),
        "require": require,
        "level": level,
        "estimators": estimators,
        "signals": list(wanted),
        "caps": list(caps),
        "decisions": decisions,
        "seed": seed,
        **versions(),
    }
    if out is not None:
        try:
            write_outcome(out, evaluation, verdict, configuration)
        except OSError as error:
            raise click.ClickException(f"--out {out}: {error}") from error
    if as_json:
        click.echo(json.dumps(as_rows(evaluation, verdict, configuration), allow_nan=False))
    else:
        _print(evaluation, verdict)
        if out is not None:
            click.echo(f"\n{out / 'evaluation.html'}, evaluation.json and evaluation.csv are written.")
    if verdict is not None and not verdict.passed:
        sys.exit(1)


def _wanted(given: Sequence[str], known: Sequence[str]) -> tuple[list[str], Mapping[str, Sum]]:
    signals, sums = [], {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            signals.append(name.strip())
            continue
        try:
            sums[name.strip()] = combination(text, known)
        except ExpressionError as error:
            raise EvaluationError(f"--signal {name.strip()}: {error}") from None
    return signals, sums


def _digest(spec: str) -> str | None:
    """Of a file, so that a record says which log it was."""
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


def _caps(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for one in given:
        name, _, text = one.partition("=")
        try:
            found[name.strip()] = float(text)
        except ValueError:
            found[name.strip()] = math.nan
        if not math.isfinite(found[name.strip()]):
            raise EvaluationError(f"--cap: expected SIGNAL=VALUE such as cost=0.05, got {one!r}")
    return found


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise EvaluationError(f"--estimators: expected some of {', '.join(NAMES)}, got {unknown[0]!r}")
    return names


def _print(evaluation: Evaluation, verdict: Verdict | None) -> None:
    out = console()
    for report in evaluation.reports.values():
        title = f"{report.signal} of {evaluation.candidate.name}, {report.reported} rounds with an outcome"
        sheet = Table(title=escape(title))
        for title in ("estimator", "estimate", f"{evaluation.level:.0%} normal", "bootstrap", "any time, any log"):
            sheet.add_column(title, justify="left" if title == "estimator" else "right")
        of_candidate = {line.estimator for line in report.lines}
        for line in lines_of(evaluation, report):
            sheet.add_row(
                escape(line.estimator + (f" ({line.tuned:g})" if line.tuned is not None else "")),
                "" if math.isnan(line.estimate) else f"{line.estimate:.5g}",
                *(_shown(line, kind) for kind in ("normal", "bootstrap", "betting")),
                style="" if line.estimator in of_candidate else "bold",
            )
        out.print(sheet)
    for sentence in (*controls_sentence(evaluation), *warnings(evaluation)):
        out.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if verdict is not None:
        out.print()
        for finding in (*verdict.clauses, *verdict.conditions):
            out.print(_said(finding), markup=False, highlight=False, soft_wrap=True)
        word = "PASSED: shown" if verdict.passed else "NOT PASSED: not shown"
        out.print(f"{word} at {verdict.level:.2%}", style="bold", highlight=False)


def _said(finding: Finding) -> str:
    return f"{'yes' if finding.shown else 'NO '}  {finding.what}: {finding.why}"


def _shown(line: Line, kind: str) -> str:
    found = line.intervals.get(kind)
    return "" if found is None else f"{found.low:.5g} … {found.high:.5g}"
