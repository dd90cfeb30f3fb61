"""The files of a simulation: every number as JSON and CSV, and the report as one HTML page.

>>> flatten_shares({"policy": "uniform", "shares": {"small": 0.5, "large": 0.5}})
{'policy': 'uniform', 'share/small': 0.5, 'share/large': 0.5}
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pointsman.simulator.report.simulation import html
from pointsman.simulator.report.summary import RunGroup, chooses_models, comparisons
from pointsman.simulator.run.experiment import RunResult


def write_results(
    directory: Path,
    results: Sequence[RunResult],
    groups: Sequence[RunGroup],
    configuration: Mapping[str, str],
    options: Mapping[str, object],
) -> None:
    """Write into ``directory``, made if need be: ``results`` and ``traces``, each as .json and .csv, ``verdicts.json``,
    ``report.html``, and ``run.json``, with the ``options`` that give the same again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_rows(directory / "results", [result.row for result in results])
    write_rows(directory / "traces", [point for result in results for point in trace(result)])
    compared = [
        {
            "world": group.world,
            "policy": group.policy,
            "objective": group.objective,
            "budget": group.budget,
            "against": comparison.control,
            "gain": None if comparison.gain is None else comparison.gain.mean,
            "half": None if comparison.gain is None else comparison.gain.half,
            "unit": comparison.unit,
            "beats": comparison.beats,
            "sentence": comparison.sentence,
        }
        for group in groups
        for comparison in (comparisons(group) if chooses_models(group) else ())
    ]
    _write_json(directory / "verdicts.json", compared)
    _write_json(
        directory / "run.json", {"options": dict(sorted(options.items())), "configuration": dict(configuration)}
    )
    (directory / "report.html").write_text(html(groups, configuration), encoding="utf-8")


def trace(result: RunResult) -> list[dict[str, object]]:
    """The points of one run's curves as flat rows; ``None`` where a number is not known."""
    row = result.row
    points = []
    for c, rounds in enumerate(result.round_c.tolist()):
        spent = float(result.spend_c[c])
        point: dict[str, object] = {
            "world": row["world"],
            "policy": row["policy"],
            "objective": row["objective"],
            "budget": row["budget"],
            "seed": row["seed"],
            "round": rounds,
            "regret": float(result.regret_c[c]),
            "mean_cost": None if math.isnan(spent) else spent,
            "spend_ratio": None if math.isnan(spent) or row["budget"] is None else spent / row["budget"],
        }
        shares = zip(row["shares"], result.share_ck[c].tolist(), strict=True)
        points.append(point | {f"share/{model}": share for model, share in shares})
    return points


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """``path``.json and ``path``.csv; ``shares`` are columns there. Worlds may have different models, whose cells are empty
    where there are none. Raises ``OSError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_json(path.with_suffix(".json"), rows)
    flats = [flatten_shares(row) for row in rows]
    columns = dict.fromkeys(name for row in flats for name in row)
    with path.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(flats)


def flatten_shares(row: Mapping[str, object]) -> dict[str, object]:
    """A row with a column ``share/<model>`` for each model in place of ``shares``, if there are any."""
    cells = {name: value for name, value in row.items() if name != "shares"}
    shares = row.get("shares")
    return cells | ({f"share/{model}": share for model, share in shares.items()} if isinstance(shares, dict) else {})
