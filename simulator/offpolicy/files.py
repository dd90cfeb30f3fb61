"""An evaluation as plain values, and as files: JSON, CSV and HTML.

>>> import numpy as np
>>> from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate
>>> from pointsman.simulator.offpolicy.evaluation.evaluate import evaluate_candidate
>>> from pointsman.simulator.offpolicy.logs.log import Log
>>> n, chosen_n = 1000, np.arange(1000) % 2
>>> log = Log(
...     "even", ("small", "large"), ("chat",), chosen_n, np.full(n, 0.5), np.full((n, 2), 0.5), np.ones((n, 2), dtype=np.bool_),
...     {"quality": 0.5 + 0.5 * chosen_n}, np.zeros((n, 0)), np.zeros(n, dtype=np.intp), np.arange(n),
... )
>>> candidate = Candidate("large only", BucketPolicy(policy="fixed", model="large"), {})
>>> values = as_values(Told(evaluate_candidate(log, candidate, estimators=["dr"])), {"level": 0.95})
>>> values["log"]
{'name': 'even', 'rounds': 1000, 'models': ['small', 'large'], 'groups': ['chat']}
>>> values["signals"]["quality"]["logged"]["estimate"]
0.75
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pointsman.simulator.offpolicy.evaluation.comparators import Comparator
from pointsman.simulator.offpolicy.evaluation.estimates import IntervalEstimate
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation, SignalReport
from pointsman.simulator.offpolicy.evaluation.missing import Missingness
from pointsman.simulator.offpolicy.gate import GateVerdict
from pointsman.simulator.offpolicy.page import evaluation_page
from pointsman.simulator.offpolicy.sentences import all_estimates, comparisons, warnings


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """An evaluation, the gate's verdict on it if one was asked for, and how long it would take (``sentences.forecasts``)."""

    evaluation: Evaluation
    verdict: GateVerdict | None = None
    forecasts: tuple[str, ...] = ()


def as_values(told: Told, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Every number, as JSON has them: ``None`` for NaN and infinity."""
    evaluation, verdict = told.evaluation, told.verdict
    log = evaluation.log
    values = {
        "configuration": dict(configuration),
        "log": {"name": log.name, "rounds": len(log), "models": list(log.models), "groups": list(log.groups)},
        "candidate": evaluation.candidate.name,
        "level": evaluation.level,
        "replaced": evaluation.target.replaced,
        "support": asdict(evaluation.support),
        "repeats": asdict(evaluation.repeats),
        "signals": {
            name: {**_report(report), "missing": _missing(evaluation.missing[name])}
            for name, report in evaluation.reports.items()
        },
        "controls": [_comparator(comparator) for comparator in evaluation.comparators],
        "diagnostics": asdict(evaluation.diagnostics),
        "verdict": None if verdict is None else asdict(verdict),
        "forecasts": list(told.forecasts),
        "says": [*comparisons(evaluation), *warnings(evaluation)],
    }
    finite: dict[str, Any] = _finite(values)
    return finite


def write_evaluation(out: Path, told: Told, configuration: Mapping[str, Any]) -> None:
    """Write evaluation.json, evaluation.csv and evaluation.html into the directory ``out``. Raises ``OSError``."""
    out.mkdir(parents=True, exist_ok=True)
    values = as_values(told, configuration)
    (out / "evaluation.json").write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    _write_csv(out / "evaluation.csv", told.evaluation)
    page = evaluation_page(told.evaluation, told.verdict, configuration, told.forecasts)
    (out / "evaluation.html").write_text(page, encoding="utf-8")


def _write_csv(path: Path, evaluation: Evaluation) -> None:
    """One row for every interval, and for every estimate without one."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("signal", "estimator", "estimate", "tuned", "interval", "low", "high", "level"))
        for signal, report in evaluation.reports.items():
            for estimate in all_estimates(evaluation, report):
                head = (signal, estimate.estimator, _blank(estimate.estimate), _blank(estimate.tuned))
                for kind, interval in estimate.intervals.items():
                    writer.writerow((*head, kind, _blank(interval.low), _blank(interval.high), interval.level))
                if not estimate.intervals:
                    writer.writerow((*head, "", "", "", ""))


def _report(report: SignalReport) -> dict[str, Any]:
    return {
        "reported": report.reported,
        "missing_p": report.missing_p,
        "low": report.low,
        "high": report.high,
        "low_seen": report.low_is_seen,
        "high_seen": report.high_is_seen,
        "logged": _estimate(report.logged),
        "estimates": [_estimate(estimate) for estimate in report.estimates],
    }


def _missing(missing: Missingness) -> dict[str, Any]:
    inside = [
        {"kind": k.name, "p": k.p_value, "model": k.model, "least": k.least, "most": k.most} for k in missing.inside
    ]
    return {"across_p": missing.across_p, "across": missing.across, "inside": inside}


def _comparator(comparator: Comparator) -> dict[str, Any]:
    return {
        "name": comparator.name,
        "quality": _estimate(comparator.quality),
        "cost": None if comparator.cost is None else _estimate(comparator.cost),
        "gain": _estimate(comparator.gain),
        "unit": comparator.unit,
        "above_floor": None if comparator.above is None else _estimate(comparator.above),
    }


def _estimate(estimate: IntervalEstimate) -> dict[str, Any]:
    return {
        "estimator": estimate.estimator,
        "estimate": estimate.estimate,
        "tuned": estimate.tuned,
        "intervals": {kind: [interval.low, interval.high] for kind, interval in estimate.intervals.items()},
    }


def _blank(value: float | None) -> float | str:
    return "" if value is None or not math.isfinite(value) else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
