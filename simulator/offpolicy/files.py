"""An evaluation as plain values, and as files: JSON, CSV and HTML."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pointsman.simulator.offpolicy.evaluation.comparators import Line
from pointsman.simulator.offpolicy.evaluation.evaluate import Evaluation
from pointsman.simulator.offpolicy.gate import Verdict, as_json
from pointsman.simulator.offpolicy.page import html
from pointsman.simulator.offpolicy.sentences import controls_sentence, lines_of, warnings


def as_rows(evaluation: Evaluation, verdict: Verdict | None, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Every number, as JSON has them; NaN and infinity are null."""
    found = {
        "configuration": dict(configuration),
        "log": {
            "name": evaluation.log.name,
            "rounds": len(evaluation.log),
            "models": list(evaluation.log.models),
            "groups": list(evaluation.log.groups),
        },
        "candidate": evaluation.candidate.name,
        "level": evaluation.level,
        "replaced": evaluation.replaced,
        "signals": {
            name: {
                "reported": report.reported,
                "missing_p": report.missing_p,
                "low": report.low,
                "high": report.high,
                "high_seen": report.high_seen,
                "logged": _line(report.logged),
                "estimates": [_line(line) for line in report.lines],
            }
            for name, report in evaluation.reports.items()
        },
        "controls": [
            {
                "name": control.name,
                "quality": _line(control.quality),
                "cost": None if control.cost is None else _line(control.cost),
                "gain": _line(control.gain),
            }
            for control in evaluation.controls
        ],
        "diagnostics": asdict(evaluation.diagnostics),
        "verdict": None if verdict is None else as_json(verdict),
        "says": [*controls_sentence(evaluation), *warnings(evaluation)],
    }
    cleaned: dict[str, Any] = _finite(found)
    return cleaned


def write_outcome(out: Path, evaluation: Evaluation, verdict: Verdict | None, configuration: Mapping[str, Any]) -> None:
    """Write evaluation.json, evaluation.csv and evaluation.html into a directory. Raises ``OSError``."""
    out.mkdir(parents=True, exist_ok=True)
    rows = as_rows(evaluation, verdict, configuration)
    (out / "evaluation.json").write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with (out / "evaluation.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("signal", "estimator", "estimate", "tuned", "interval", "low", "high", "level"))
        for signal, report in evaluation.reports.items():
            for line in lines_of(evaluation, report):
                head = (signal, line.estimator, _blank(line.estimate), _blank(line.tuned))
                for kind, interval in line.intervals.items():
                    writer.writerow((*head, kind, _blank(interval.low), _blank(interval.high), interval.level))
                if not line.intervals:
                    writer.writerow((*head, "", "", "", ""))
    (out / "evaluation.html").write_text(html(evaluation, verdict, configuration), encoding="utf-8")


def _line(line: Line) -> dict[str, Any]:
    return {
        "estimator": line.estimator,
        "estimate": line.estimate,
        "tuned": line.tuned,
        "intervals": {kind: [interval.low, interval.high] for kind, interval in line.intervals.items()},
    }


def _blank(value: float | None) -> float | str:
    return "" if value is None or not math.isfinite(value) else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
