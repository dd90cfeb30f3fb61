"""Journal events as values: everything that can change state, and nothing else.

>>> Record(position=1, time_ns=0, event=ModelPut(Model("small")))  # doctest: +ELLIPSIS
Record(position=1, time_ns=0, event=ModelPut(model=Model(id='small', ...)))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import Bucket, Model, Objective, Project, QualityRange
from pointsman.bandit.encoder import NOTHING_MEASURED, VERSION
from pointsman.bandit.limits import Limits
from pointsman.bandit.outcome import ReportedOutcome, SignalChange
from pointsman.bandit.policy import PartialModels
from pointsman.bandit.predictions import Predictions


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
    """A bucket was created or replaced. ``encoder_version`` is what its features are made by if its schema is new."""

    bucket: Bucket
    encoder_version: int = VERSION


@dataclass(frozen=True, slots=True)
class BucketDeleted:
    """A bucket was deleted, with its posteriors."""

    bucket: str


@dataclass(frozen=True, slots=True)
class ProjectPut:
    """A project was created or replaced."""

    project: Project


@dataclass(frozen=True, slots=True)
class ProjectDeleted:
    """A project was deleted, with the count of what it spent."""

    project: str


@dataclass(frozen=True, slots=True, eq=False)
class DecisionMade:
    """A decision with the numbers it was made with; columns run over ``models`` (k).

    ``id`` is the 16 bytes of a ULID, ``x_d`` the features, ``expire_ns`` the end of the attribution window,
    ``state_position`` the position of the state the draw was made on; token counts are -1 when unknown. ``quality`` is the
    bucket's scale at that time, ``draw_k`` are the draws of quality that decided (``bandit.policy.INELIGIBLE`` for models that
    were not eligible), ``multiplier`` what a budget added to λ (quality scaled to [0, 1], per dollar), ``project`` the id of the
    project that it draws on, or "".
    ``newcomers``, whose calls waited to be judged, took full part in a share of the draws only, ``quotas``, one for each;
    decisions from before they had their own have ``quota``, one for all. ``by_price``: draws under a quality floor depended on
    prices (``bandit.floor_rule``).

    For what is to be learned of the chosen model later: ``max_cost`` are the dollars that a hard budget reserves for it until
    its cost is known (0 without one), ``references`` the dollars, seconds and output tokens that its regressions expected,
    and the seconds again for percentiles, 0 where they had seen too little (empty before version 0.2), ``log_decays`` its log
    decays by response (``bandit.posterior.log_decay``). ``measured_m`` are the context's numbers and the lengths of its
    embeddings before the bucket scaled them (``bandit.encoder.Encoded``).
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
    quality: QualityRange
    multiplier: float
    exploration_floor: float
    limits: Limits
    state_position: int
    expire_ns: int
    request_id: str = ""
    input_tokens: int = -1
    max_output_tokens: int = -1
    project: str = ""
    newcomers: tuple[int, ...] = ()
    quota: float = 1.0
    max_cost: float = 0.0
    log_decays: tuple[float, ...] = ()
    measured_m: npt.NDArray[np.float64] = field(default_factory=lambda: NOTHING_MEASURED)
    by_price: bool = False
    references: tuple[float, ...] = ()
    quotas: tuple[float, ...] = ()

    @property
    def partial(self) -> PartialModels:
        """Which candidates took full part only in a share of the draws."""
        return PartialModels(self.newcomers, self.quotas, self.quota)


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeApplied:
    """An outcome joined with its decision, as the change it makes.

    ``x_d``, ``state_position``, ``project``, ``input_tokens`` (-1 if unknown) and ``decided_ns`` (its time) are the decision's;
    so are ``expected_cost``, what it counted as spent (dollars), ``max_cost``, what it reserved of a hard budget, and its
    ``references``, each 0 or empty unless ``model`` was the chosen one, and ``expected_quality``, scaled to [0, 1], what it
    counted towards a floor on mean quality, ``None`` without one. ``reported_outcomes`` is all that is known of the decision
    after this event, by model.
    """

    decision_id: bytes
    bucket: str
    generation: int
    model: str
    x_d: npt.NDArray[np.float64]
    state_position: int
    expected_cost: float
    changes: tuple[SignalChange, ...]
    reported_outcomes: Mapping[str, ReportedOutcome]
    idempotency_key: str = ""
    project: str = ""
    decided_ns: int = 0
    max_cost: float = 0.0
    expected_quality: float | None = None
    references: tuple[float, ...] = ()
    input_tokens: int = -1


Event = (
    ModelPut
    | ModelDeleted
    | AvailabilitySet
    | BucketPut
    | BucketDeleted
    | ProjectPut
    | ProjectDeleted
    | DecisionMade
    | OutcomeApplied
)


@dataclass(frozen=True, slots=True)
class Record:
    """An event at its place in the journal: ``position`` from 1, ``time_ns`` never less than the one before."""

    position: int
    time_ns: int
    event: Event
