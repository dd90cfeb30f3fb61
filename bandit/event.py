"""Journal events as values: everything that can change state, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bandit.catalog import Bucket, Model, Objective
from bandit.outcome import Change, Ledger
from bandit.policy import Limits, Predictions


@dataclass(frozen=True, slots=True)
class ModelPut:
    """A model was created or replaced."""

    model: Model


@dataclass(frozen=True, slots=True)
class ModelDeleted:
    """A model was deleted, with what was learned of it."""

    model: str


@dataclass(frozen=True, slots=True)
class AvailabilitySet:
    """An operator switched a model on or off."""

    model: str
    available: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BucketPut:
    """A bucket was created or replaced."""

    bucket: Bucket


@dataclass(frozen=True, slots=True)
class BucketDeleted:
    """A bucket was deleted, with its posteriors."""

    bucket: str


@dataclass(frozen=True, slots=True, eq=False)
class DecisionMade:
    """A decision with the numbers it was made with; columns run over ``models`` (k).

    ``id`` is the 16 bytes of a ULID, ``x_d`` the features, ``expire_ns`` the end of the attribution window,
    ``state_position`` the position of the state the draw was made on; token counts are -1 when unknown. ``draw_k`` are the
    draws of quality that decided (``bandit.policy.OUT`` for models that were not eligible), ``multiplier`` what a budget
    added to λ (quality scaled to [0, 1], per dollar).
    """

    id: bytes
    bucket: str
    generation: int
    x_d: npt.NDArray[np.float64]
    models: tuple[str, ...]
    chosen: int
    fallbacks: tuple[int, ...]
    propensity: float
    explored: bool
    limits_violated: bool
    predicted: Predictions
    draw_k: npt.NDArray[np.float64]
    exclusions_k: npt.NDArray[np.int64]
    objective: Objective
    multiplier: float
    exploration_floor: float
    limits: Limits
    state_position: int
    expire_ns: int
    request_id: str = ""
    input_tokens: int = -1
    max_output_tokens: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeApplied:
    """An outcome joined with its decision, as the change it makes.

    ``x_d`` and ``state_position`` are the decision's, ``expected_cost`` is what it counted as spent for this model (dollars;
    0 unless it was the chosen one); ``ledgers`` is all that is known of it after this event, by model.
    """

    decision_id: bytes
    bucket: str
    generation: int
    model: str
    x_d: npt.NDArray[np.float64]
    state_position: int
    expected_cost: float
    changes: tuple[Change, ...]
    ledgers: Mapping[str, Ledger]
    idempotency_key: str = ""


Event = ModelPut | ModelDeleted | AvailabilitySet | BucketPut | BucketDeleted | DecisionMade | OutcomeApplied


@dataclass(frozen=True, slots=True)
class Record:
    """An event at its place in the journal: ``position`` from 1, ``time_ns`` never less than the one before."""

    position: int
    time_ns: int
    event: Event
