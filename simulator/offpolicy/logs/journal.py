"""The journal's export (``pointsman export --to FILE.jsonl``) as a log, with all that its decisions were made with.

One JSON object a line, the contract's ``JournalRecord``. Only decisions, their outcomes and the scale of each bucket are read.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pointsman.bandit.catalog import Mode, Objective, QualityRange
from pointsman.bandit.policy import logged_propensities
from pointsman.bandit.predictions import Predictions
from pointsman.simulator.offpolicy.logs.log import Array, Log, LogError

_SIGNALS = {
    "SIGNAL_QUALITY": "quality",
    "SIGNAL_COST": "cost",
    "SIGNAL_LATENCY": "latency",
    "SIGNAL_SUCCESS": "success",
    "SIGNAL_INPUT_TOKENS": "input_tokens",
    "SIGNAL_OUTPUT_TOKENS": "output_tokens",
}
UNIT = QualityRange()


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What one decision was made with, over its own candidates ``models`` (k), as in ``bandit.event.DecisionMade``."""

    models: tuple[str, ...]
    chosen: int
    quality: QualityRange
    objective: Objective
    predicted: Predictions
    exclusions_k: np.ndarray[Any, np.dtype[np.int64]]
    multiplier: float
    exploration_floor: float
    newcomers: tuple[int, ...]
    quota: float
    limits_violated: bool


@dataclass(frozen=True, slots=True, eq=False)
class Journal:
    """A log of our own service: ``made`` has what each of its decisions was made with."""

    log: Log
    made: tuple[Made, ...]


@dataclass(slots=True)
class _Decision:
    position: int
    time_ns: int
    bucket: str
    model: str
    propensity: float
    x_d: Array
    made: Made
    known: dict[str, float] = field(default_factory=dict)


def read_journal(path: Path, first: int = 0, last: int | None = None) -> Journal:
    """Decisions number ``first`` to before ``last`` (counted from 0) with what came of them until the end of the file.

    Raises ``LogError`` with file, line and field for what cannot be read.
    """
    decisions: dict[str, _Decision] = {}
    scales: dict[str, QualityRange] = {}
    same: dict[tuple[str, ...], tuple[str, ...]] = {}  # one tuple for all decisions among the same models
    count = 0
    for line, position, time_ns, kind, message in _events(path):
        where = f"{path}, line {line}"
        try:
            if kind == "bucket_put":
                bucket = message["bucket"]
                scale = bucket.get("quality_range", {})
                low, high = float(scale.get("min", 0.0)), float(scale.get("max", 0.0))
                scales[bucket["name"].removeprefix("buckets/")] = QualityRange(low, high) if high > low else UNIT
            elif kind == "decision_made":
                if first <= count and (last is None or count < last):
                    made = _decision(message, position, time_ns, scales, same)
                    if message["id"] in decisions:
                        raise LogError(f"{where}: id: this decision is there twice")
                    decisions[message["id"]] = made
                count += 1
            elif kind == "outcome_applied" and message["decision_id"] in decisions:
                _report(decisions[message["decision_id"]], message)
        except LogError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise LogError(f"{where}: expected a {kind} of the journal's export: {error!r}") from error
    if not decisions:
        asked = "" if not first and last is None else f" from number {first} to {'the end' if last is None else last}"
        raise LogError(f"{path}: expected decisions{asked}, found none" + (f" of {count}" if count else ""))
    return _journal(str(path), list(decisions.values()))


def _events(path: Path) -> Iterator[tuple[int, int, int, str, dict[str, Any]]]:
    """Line, position, time, kind and message of every event."""
    last_ns = -(2**63)
    for line, text in enumerate(_lines(path), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
            event = record["event"]
            position, time_ns = int(record["position"]), int(event["time_ns"])
        except (ValueError, KeyError, TypeError) as error:
            raise LogError(
                f"{path}, line {line}: expected a record as JSON with position and event.time_ns: {error!r}"
            ) from error
        if time_ns < last_ns:
            raise LogError(f"{path}, line {line}: event.time_ns: expected at least {last_ns}, got {time_ns}")
        last_ns = time_ns
        for kind in ("decision_made", "outcome_applied", "bucket_put"):
            if kind in event:
                yield line, position, time_ns, kind, event[kind]


def _lines(path: Path) -> Iterable[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except (OSError, UnicodeDecodeError) as error:
        raise LogError(f"{path}: cannot be read: {error}") from error


def _decision(
    message: dict[str, Any],
    position: int,
    time_ns: int,
    scales: Mapping[str, QualityRange],
    same: dict[tuple[str, ...], tuple[str, ...]],
) -> _Decision:
    models = tuple(message["models"])
    models = same.setdefault(models, models)
    propensity = float(message["propensity"])
    if not 0.0 < propensity <= 1.0:
        raise ValueError(f"propensity: expected above 0 and at most 1, got {propensity}")
    return _Decision(
        position=position,
        time_ns=time_ns,
        bucket=sys.intern(message["bucket"]),
        model=models[int(message.get("chosen", 0))],
        propensity=propensity,
        x_d=np.array(message.get("features", ()), dtype=np.float64),
        made=_made(message, models, scales.get(message["bucket"], UNIT)),
    )


def _report(decision: _Decision, message: Mapping[str, Any]) -> None:
    # "ledgers" and "tallies" in exports of version 0.1.0
    for reported in message.get("reported_outcomes", message.get("ledgers", ())):
        if reported["model"] != decision.model:
            continue  # a report on a fallback: the policy is judged by what it chose
        for aggregate in reported.get("aggregates", reported.get("tallies", ())):
            value = float(aggregate.get("value", 0.0))
            if not math.isfinite(value):
                raise ValueError(f"value: expected a finite number, got {value}")
            decision.known[_SIGNALS[aggregate["signal"]]] = value


def _journal(name: str, decisions: list[_Decision]) -> Journal:
    made = tuple(one.made for one in decisions)
    models = tuple(sorted({model for one in {one.models for one in made} for model in one}))
    number = {model: i for i, model in enumerate(models)}
    columns = {one: [number[model] for model in one] for one in {one.models for one in made}}
    groups = tuple(sorted({one.bucket for one in decisions}))
    n, k, d = len(decisions), len(models), max(len(one.x_d) for one in decisions)
    logged_nk, eligible_nk = np.zeros((n, k)), np.zeros((n, k), dtype=np.bool_)
    x_nd = np.zeros((n, d))
    for i, one in enumerate(decisions):
        here = columns[one.made.models]
        logged_nk[i, here] = logged_propensities(one.made, one.made.quality)
        eligible_nk[i, here] = one.made.exclusions_k == 0
        eligible_nk[i, number[one.model]] = True
        x_nd[i, : len(one.x_d)] = one.x_d
    chosen_n = np.array([number[one.model] for one in decisions], dtype=np.intp)
    propensity_n = np.array([one.propensity for one in decisions])
    off_n = np.abs(logged_nk[np.arange(n), chosen_n] - propensity_n)
    if float(off_n.max()) > 1e-6:
        i = int(off_n.argmax())
        raise LogError(
            f"{name}, position {decisions[i].position}: propensity: {propensity_n[i]} was logged, but its numbers give "
            f"{logged_nk[i, chosen_n[i]]}"
        )
    names = sorted({signal for one in decisions for signal in one.known})
    signals = {s: np.array([one.known.get(s, math.nan) for one in decisions]) for s in names}
    log = Log(
        name=name,
        models=models,
        groups=groups,
        chosen_n=chosen_n,
        propensity_n=propensity_n,
        logged_nk=logged_nk,
        eligible_nk=eligible_nk,
        signals=signals,
        x_nd=x_nd,
        group_n=np.array([groups.index(one.bucket) for one in decisions], dtype=np.intp),
        time_ns_n=np.array([one.time_ns for one in decisions], dtype=np.int64),
    )
    return Journal(log, made)


def _made(m: Mapping[str, Any], models: tuple[str, ...], quality: QualityRange) -> Made:
    k = len(models)

    def array(name: str) -> Array:
        values = np.array(m[name], dtype=np.float64)
        if values.shape != (k,):
            raise ValueError(f"{name}: expected {k} numbers, got {len(values)}")
        return values

    objective = m.get("objective", {})
    return Made(
        models=models,
        chosen=int(m.get("chosen", 0)),
        quality=quality,
        objective=Objective(
            Mode(objective.get("mode", "OBJECTIVE_MODE_BALANCED").removeprefix("OBJECTIVE_MODE_")),
            *(
                None if objective.get(name) is None else float(objective[name])
                for name in ("cost_weight", "latency_weight", "min_quality", "max_quality_loss")
            ),
        ),
        predicted=Predictions(
            *(array(f) for f in ("quality_mean", "quality_sd", "cost", "latency", "latency_p95", "output_tokens"))
        ),
        exclusions_k=np.array([int(v) for v in m["exclusions"]], dtype=np.int64),
        multiplier=float(m.get("multiplier", 0.0)),
        exploration_floor=float(m.get("exploration_floor", 0.0)),
        newcomers=tuple(int(v) for v in m.get("newcomers", ())),
        quota=float(m.get("quota", 1.0)),
        limits_violated=bool(m.get("limits_violated", False)),
    )
