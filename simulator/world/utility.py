"""Objectives as numbers: how they are written on a command line, and what an outcome is worth under one.

The utility of an outcome with quality q, cost c (dollars) and latency l (seconds):

- ``BALANCED``, ``WEIGHTED``: q - λ·c - μ·l; ``QUALITY_FIRST``, ``AVAILABILITY_FIRST``: q (a failed call is worth the
  least). In the table's units of quality.
- ``COST_FIRST``: -c if q clears the floor, else -(c + the dearest outcome of the same prompt): what it costs to have the
  prompt answered when an answer under the floor must be bought again, at the highest price. In dollars. The floor is
  ``min_quality``, or the best quality on the prompt less ``max_quality_loss``; where nothing clears it, the best does.
- ``LATENCY_FIRST``: the same with latency for cost. In seconds.
- ``COST_FIRST`` with ``min_mean_quality``: -c, in dollars. Best achievable are the cheapest choices whose mean quality keeps the
  floor, so that a policy that falls short of it can have a negative regret: see ``mean_quality`` beside it.

Regret is the sum over rounds of the best achievable utility less the achieved one. Best achievable is each prompt's best
model; with a budget, the best choice for all prompts whose mean cost is within it, so that a policy that overspends can
have a negative regret.

>>> objective = parse_objective("WEIGHTED:cost_weight=10:latency_weight=0.1", QualityRange())
>>> utility_of(objective, np.array([[0.8]]), np.array([[0.02]]), np.array([[1.0]])).round(9).tolist()
[[0.5]]
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import FLOOR_MODES, FLOORS, Mode, Objective, QualityRange
from pointsman.bandit.errors import FieldError
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_PARAMETERS = ("cost_weight", "latency_weight", *FLOORS)


def parse_objective(text: str, quality: QualityRange) -> Objective:
    """``MODE[:parameter=value…]``, such as ``BALANCED:cost_weight=20:latency_weight=0.1``, as a resolved objective.

    Raises ``SettingError``.
    """
    name, *settings = text.split(":")
    if name not in Mode.__members__:
        raise SettingError(f"objective {text!r}: expected one of {', '.join(Mode.__members__)}, got {name!r}")
    values: dict[str, float] = {}
    for setting in settings:
        parameter, equals, value = setting.partition("=")
        if not equals or parameter not in _PARAMETERS:
            raise SettingError(
                f"objective {text!r}: expected parameter=value with one of {', '.join(_PARAMETERS)}, got {setting!r}"
            )
        if parameter in values:
            raise SettingError(f"objective {text!r}: {parameter} is given twice")
        try:
            values[parameter] = float(value)
        except ValueError:
            raise SettingError(f"objective {text!r}: {parameter}: expected a number, got {value!r}") from None
    try:
        return Objective(Mode[name], **values).resolve(quality)
    except FieldError as error:
        raise SettingError(f"objective {text!r}: {error}") from None


def utility_unit(objective: Objective) -> str:
    """The unit of ``utilities`` under ``objective``: ``quality``, ``dollars`` or ``seconds``."""
    return {Mode.COST_FIRST: "dollars", Mode.LATENCY_FIRST: "seconds"}.get(objective.mode, "quality")


def utilities(table: OutcomeTable, objective: Objective) -> Array:
    """``utility_of`` every outcome of ``table``, (n, k). Raises ``SettingError`` for an empty cell that ``objective`` needs."""
    no_cost = objective.mode is Mode.BALANCED and bool(np.isnan(table.cost_nk).all())
    if objective.mode in FLOOR_MODES:
        required_cells(table, "cost" if objective.mode is Mode.COST_FIRST else "latency", objective.mode.value)
    elif objective.cost_weight and not no_cost:
        required_cells(table, "cost", f"{objective.mode.value} with a cost weight")
    if objective.mode not in FLOOR_MODES and objective.latency_weight:
        required_cells(table, "latency", f"{objective.mode.value} with a latency weight")
    return utility_of(objective, table.quality_nk, table.cost_nk, table.latency_nk)


def utility_of(
    objective: Objective, quality_nk: Array, cost_nk: Array, latency_nk: Array, available_nk: Flags | None = None
) -> Array:
    """The utility of calls under a resolved ``objective``, (n, k); see the module.

    A cost weight where no cost is known at all weighs nothing, because BALANCED has one by default. A call that took no known
    time, because it failed, took none. Models that are not there (``available_nk`` False) are worth less than the worst call.
    """
    available_nk = np.ones(quality_nk.shape, dtype=np.bool_) if available_nk is None else available_nk
    if objective.min_mean_quality is not None:
        utility_nk = -cost_nk
    elif objective.mode in FLOOR_MODES:
        price_nk = cost_nk if objective.mode is Mode.COST_FIRST else np.nan_to_num(latency_nk, nan=0.0)
        best_n1 = np.where(available_nk, quality_nk, -np.inf).max(axis=1, keepdims=True)
        if objective.min_quality is not None:
            floor_n1 = np.minimum(objective.min_quality, best_n1)
        else:
            floor_n1 = best_n1 - (objective.max_quality_loss or 0.0)
        again_n1 = np.where(available_nk, price_nk, -np.inf).max(axis=1, keepdims=True)
        utility_nk = -np.where(quality_nk >= floor_n1, price_nk, price_nk + again_n1)
    else:
        utility_nk = quality_nk.copy()
        no_cost = objective.mode is Mode.BALANCED and bool(np.isnan(cost_nk).all())
        if objective.cost_weight and not no_cost:
            utility_nk -= objective.cost_weight * cost_nk
        if objective.latency_weight:
            utility_nk -= objective.latency_weight * np.nan_to_num(latency_nk, nan=0.0)
    if available_nk.all():
        return np.asarray(utility_nk)
    return np.where(available_nk, utility_nk, utility_nk.min() - 1.0)


def required_cells(table: OutcomeTable, kind: str, why: str) -> Array:
    """All ``cost`` or ``latency`` cells, (n, k). Raises ``SettingError`` naming the first empty one, and ``why``."""
    cells_nk: Array = table.cost_nk if kind == "cost" else table.latency_nk
    empty = np.argwhere(np.isnan(cells_nk))
    if empty.size:
        row, model = empty[0]
        raise SettingError(
            f"{why} needs a {kind} of every model: {table.name}: row {row + 1} ({table.prompt_ids[row]!r}), "
            f"column {kind}/{table.models[model]} is empty or missing"
        )
    return cells_nk
