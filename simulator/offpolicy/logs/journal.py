"""The journal's export (``pointsman export --to FILE.jsonl``) as a log, with all that its decisions were made with.

One JSON object a line, the contract's ``JournalRecord``. Only decisions, their outcomes and each bucket's scale of quality are
read.

>>> import tempfile
>>> from pathlib import Path
>>> record = {
...     "position": "1",
...     "event": {
...         "time_ns": "5",
...         "decision_made": {
...             "id": "01",
...             "bucket": "chat",
...             "models": ["small"],
...             "propensity": 1.0,
...             "exclusions": ["0"],
...             **{name: [0.5] for name in ("quality_mean", "quality_sd", "cost", "latency", "latency_p95", "output_tokens")},
...         },
...     },
... }
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder, "export.jsonl")
...     _ = path.write_text(json.dumps(record))
...     log = read_journal(path)
>>> log.models, log.logged_nk.tolist(), log.is_journal
(('small',), [[1.0]], True)
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pointsman.bandit.catalog import FLOORS, Mode, Objective, QualityRange
from pointsman.bandit.limits import Exclusion
from pointsman.bandit.novelty import Novelty
from pointsman.bandit.policy import logged_propensities
from pointsman.bandit.predictions import Predictions
from pointsman.simulator.offpolicy.logs.log import Array, Flags, Log, LogError, LoggedDecision

_SIGNALS = {
    "SIGNAL_QUALITY": "quality",
    "SIGNAL_COST": "cost",
    "SIGNAL_LATENCY": "latency",
    "SIGNAL_SUCCESS": "success",
    "SIGNAL_INPUT_TOKENS": "input_tokens",
    "SIGNAL_OUTPUT_TOKENS": "output_tokens",
}
_PREDICTIONS = ("quality_mean", "quality_sd", "cost", "latency", "latency_p95", "output_tokens")
_NOVELTY = ("novelty", "wide_mean", "wide_sd")
_WEIGHTS = ("cost_weight", "latency_weight", *FLOORS)
_KINDS = ("decision_made", "outcome_applied", "bucket_put")
_DEFAULT_QUALITY = QualityRange()

PROPENSITY_TOLERANCE = 1e-6
"""The most by which a logged propensity may differ from what the decision's own numbers give."""


@dataclass(frozen=True, slots=True)
class _Event:
    """One event that is read: the ``line`` of the file, and ``message`` under the name ``kind``."""

    line: int
    position: int
    time_ns: int
    kind: str
    message: dict[str, Any]


@dataclass(slots=True)
class _Round:
    """A decision and what has been reported of its chosen model so far, by signal."""

    position: int
    time_ns: int
    bucket: str
    propensity: float
    x_d: Array
    decision: LoggedDecision
    value_by_signal: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.decision.models[self.decision.chosen]


def read_journal(path: Path, first: int = 0, last: int | None = None) -> Log:
    """The decisions ``first`` <= number < ``last``, counted from 0, with their outcomes until the end of the file.

    Raises ``LogError`` with file, line and field for what cannot be read.
    """
    reader = _Reader(first, last)
    for event in _events(path):
        where = f"{path}, line {event.line}"
        try:
            reader.read(event, where)
        except LogError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise LogError(f"{where}: expected a {event.kind} of the journal's export: {error!r}") from error
    if not reader.round_by_id:
        wanted = "" if not first and last is None else f" from number {first} to {'the end' if last is None else last}"
        total = f" of {reader.count}" if reader.count else ""
        raise LogError(f"{path}: expected decisions{wanted}, found none{total}")
    return _log(str(path), list(reader.round_by_id.values()))


class _Reader:
    """Takes the events of an export in their order; keeps the decisions that are wanted, by id."""

    def __init__(self, first: int, last: int | None) -> None:
        self.round_by_id: dict[str, _Round] = {}
        self.count = 0
        self._first, self._last = first, last
        self._quality_by_bucket: dict[str, QualityRange] = {}
        self._models: dict[tuple[str, ...], tuple[str, ...]] = {}  # one tuple for all decisions among the same models

    def read(self, event: _Event, where: str) -> None:
        message = event.message
        if event.kind == "bucket_put":
            bucket = message["bucket"]
            self._quality_by_bucket[bucket["name"].removeprefix("buckets/")] = _quality(bucket.get("quality_range", {}))
        elif event.kind == "decision_made":
            if self._first <= self.count and (self._last is None or self.count < self._last):
                if message["id"] in self.round_by_id:
                    raise LogError(f"{where}: id: this decision is there twice")
                self.round_by_id[message["id"]] = self._round(event)
            self.count += 1
        elif message["decision_id"] in self.round_by_id:
            _add_report(self.round_by_id[message["decision_id"]], message)

    def _round(self, event: _Event) -> _Round:
        message = event.message
        models = tuple(message["models"])
        propensity = float(message["propensity"])
        if not 0.0 < propensity <= 1.0:
            raise ValueError(f"propensity: expected above 0 and at most 1, got {propensity}")
        quality = self._quality_by_bucket.get(
            message["bucket"], _DEFAULT_QUALITY
        )  # exports before 0.2 say it there alone
        if "quality_range" in message:
            quality = _quality(message["quality_range"])
        return _Round(
            position=event.position,
            time_ns=event.time_ns,
            bucket=sys.intern(message["bucket"]),
            propensity=propensity,
            x_d=np.array(message.get("features", ()), dtype=np.float64),
            decision=_decision(message, self._models.setdefault(models, models), quality),
        )


def _events(path: Path) -> Iterator[_Event]:
    """The events of ``_KINDS`` in their order. Raises ``LogError``, also where time falls."""
    last_ns = -(2**63)
    for line, text in enumerate(_lines(path), start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
            event = record["event"]
            position, time_ns = int(record["position"]), int(event["time_ns"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LogError(
                f"{path}, line {line}: expected a record as JSON with position and event.time_ns: {error!r}"
            ) from error
        if time_ns < last_ns:
            raise LogError(f"{path}, line {line}: event.time_ns: expected at least {last_ns}, got {time_ns}")
        last_ns = time_ns
        for kind in _KINDS:
            if kind in event:
                yield _Event(line, position, time_ns, kind, event[kind])


def _lines(path: Path) -> Iterable[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except (OSError, UnicodeDecodeError) as error:
        raise LogError(f"{path}: cannot be read: {error}") from error


def _quality(message: Mapping[str, Any]) -> QualityRange:
    """A bucket's scale of quality; [0, 1] where it has none."""
    low, high = float(message.get("min", 0.0)), float(message.get("max", 0.0))
    return QualityRange(low, high) if high > low else _DEFAULT_QUALITY


def _decision(message: Mapping[str, Any], models: tuple[str, ...], quality: QualityRange) -> LoggedDecision:
    k = len(models)

    def array(name: str) -> Array:
        values = np.array(message[name], dtype=np.float64)
        if values.shape != (k,):
            raise ValueError(f"{name}: expected {k} numbers, got {len(values)}")
        return values

    chosen = int(message.get("chosen", 0))
    if not 0 <= chosen < k:
        raise ValueError(f"chosen: expected the number of one of {k} models, got {chosen}")
    objective = message.get("objective", {})
    return LoggedDecision(
        models=models,
        chosen=chosen,
        quality=quality,
        objective=Objective(
            Mode(objective.get("mode", "OBJECTIVE_MODE_BALANCED").removeprefix("OBJECTIVE_MODE_")),
            *(None if objective.get(name) is None else float(objective[name]) for name in _WEIGHTS),
        ),
        predicted=_predictions(array, message),
        exclusions_k=np.array([int(bits) for bits in message["exclusions"]], dtype=np.int64),
        multiplier=float(message.get("multiplier", 0.0)),
        exploration_floor=float(message.get("exploration_floor", 0.0)),
        newcomers=tuple(int(i) for i in message.get("newcomers", ())),
        quota=float(message.get("quota", 1.0)),
        limits_violated=bool(message.get("limits_violated", False)),
        by_price=bool(message.get("by_price", False)),
        quotas=tuple(float(share) for share in message.get("quotas", ())),
    )


def _predictions(array: Callable[[str], Array], message: Mapping[str, Any]) -> Predictions:
    novelty = Novelty(*map(array, _NOVELTY)) if message.get(_NOVELTY[0]) else None
    draw_sd_k = array("draw_sd") if message.get("draw_sd") else None
    quality_k, sd_k, cost_k, latency_k, p95_k, tokens_k = map(array, _PREDICTIONS)
    charged_k = array("charged_cost") if message.get("charged_cost") else None
    return Predictions(quality_k, sd_k, cost_k, latency_k, p95_k, tokens_k, draw_sd_k, novelty, charged_k)


def _add_report(round_: _Round, message: Mapping[str, Any]) -> None:
    """Replace what is known of ``round_`` by what an outcome says of its chosen model."""
    # "ledgers" and "tallies" in exports of version 0.1.0
    for reported in message.get("reported_outcomes", message.get("ledgers", ())):
        if reported["model"] != round_.model:
            continue  # a report on a fallback: the policy is judged by what it chose
        for aggregate in reported.get("aggregates", reported.get("tallies", ())):
            value = float(aggregate.get("value", 0.0))
            if not math.isfinite(value):
                raise ValueError(f"value: expected a finite number, got {value}")
            round_.value_by_signal[_SIGNALS[aggregate["signal"]]] = value


def _log(name: str, rounds: Sequence[_Round]) -> Log:
    """Rounds as arrays over all models that any of them had. Raises ``LogError`` if a propensity is not what its numbers give."""
    models = tuple(sorted({model for candidates in {r.decision.models for r in rounds} for model in candidates}))
    number_by_model = {model: i for i, model in enumerate(models)}
    groups = tuple(sorted({r.bucket for r in rounds}))
    number_by_group = {group: i for i, group in enumerate(groups)}
    chosen_n = np.array([number_by_model[r.model] for r in rounds], dtype=np.intp)
    propensity_n = np.array([r.propensity for r in rounds])
    logged_nk, eligible_nk = _distributions(rounds, number_by_model)
    stated_n = logged_nk[np.arange(len(rounds)), chosen_n]
    difference_n = np.abs(stated_n - propensity_n)
    if float(difference_n.max()) > PROPENSITY_TOLERANCE:
        i = int(difference_n.argmax())
        raise LogError(
            f"{name}, position {rounds[i].position}: propensity: {propensity_n[i]} was logged, but its numbers give "
            f"{stated_n[i]}"
        )
    signals = sorted({signal for r in rounds for signal in r.value_by_signal})
    x_nd = np.zeros((len(rounds), max(len(r.x_d) for r in rounds)))
    for i, r in enumerate(rounds):
        x_nd[i, : len(r.x_d)] = r.x_d
    return Log(
        name=name,
        models=models,
        groups=groups,
        chosen_n=chosen_n,
        propensity_n=propensity_n,
        logged_nk=logged_nk,
        eligible_nk=eligible_nk,
        signals={s: np.array([r.value_by_signal.get(s, math.nan) for r in rounds]) for s in signals},
        x_nd=x_nd,
        group_n=np.array([number_by_group[r.bucket] for r in rounds], dtype=np.intp),
        time_ns_n=np.array([r.time_ns for r in rounds], dtype=np.int64),
        decisions=tuple(r.decision for r in rounds),
        ranges=_ranges(rounds, signals),
        has_ids=True,
    )


def _ranges(rounds: Sequence[_Round], signals: Sequence[str]) -> dict[str, tuple[float, float]]:
    """What values each signal can have: quality those of its buckets' scales, the others none below 0."""
    scales = {r.decision.quality for r in rounds}
    known = {"quality": (min(s.min for s in scales), max(s.max for s in scales)), "success": (0.0, 1.0)}
    return {signal: known.get(signal, (0.0, math.inf)) for signal in signals}


def _distributions(rounds: Sequence[_Round], number_by_model: Mapping[str, int]) -> tuple[Array, Flags]:
    """The logging policy's distribution in every round, and which models were eligible, each (n, k).

    One that ``AVAILABILITY_FIRST`` left out was eligible: that objective's choice, which another one need not make.
    """
    logged_nk = np.zeros((len(rounds), len(number_by_model)))
    eligible_nk = np.zeros(logged_nk.shape, dtype=np.bool_)
    columns_by_models = {
        models: [number_by_model[model] for model in models] for models in {r.decision.models for r in rounds}
    }
    for i, r in enumerate(rounds):
        columns = columns_by_models[r.decision.models]
        logged_nk[i, columns] = logged_propensities(r.decision)
        eligible_nk[i, columns] = (r.decision.exclusions_k & ~Exclusion.AVAILABILITY.bit) == 0
        eligible_nk[i, number_by_model[r.model]] = True
    return logged_nk, eligible_nk
