"""A candidate: the policy that might replace the one that made a log, as a YAML file, and what it would have done.

    policy: thompson            # the policy that serves, on what it knew then, with what is changed here
    objective: {mode: COST_FIRST, max_quality_loss: 0.02}
    exploration_floor: 0.01
    deny: [models/dear]
    buckets:                    # other settings for some buckets
      summarize: {policy: fixed, model: models/small}

``policy`` is ``logged`` (the one that made the log, the default for buckets that are not named), ``thompson``, ``fixed`` (with
``model``), ``uniform``, or ``mix`` (with ``shares`` of models). What is said at the top holds for every bucket that has
nothing of its own; a bucket's own settings replace them.

A candidate decides on what was known before the decision and nothing else, so that importance weighting is valid also for the
log of a policy that was learning. ``thompson`` computes, with the functions that serve, the probabilities that its settings
would have given at that very state. It has learned from the log's choices, not from its own; the first decisions after a switch
are like that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pointsman.bandit.catalog import Mode, Objective
from pointsman.bandit.errors import FieldError
from pointsman.bandit.limits import Exclusion
from pointsman.bandit.policy import exploration_floors, logged_propensities, score_arms
from pointsman.simulator.data.yaml_file import YamlError, load_yaml, said_of
from pointsman.simulator.offpolicy.logs.journal import Journal, Made
from pointsman.simulator.offpolicy.logs.log import Array, Indices, Log


class CandidateError(ValueError):
    """A candidate makes no sense, or not with this log. Says file and field."""


class _ObjectiveSetting(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode
    cost_weight: float | None = None
    latency_weight: float | None = None
    min_quality: float | None = None
    max_quality_loss: float | None = None


class Setting(BaseModel):
    """What decides in a bucket."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: Literal["logged", "thompson", "fixed", "uniform", "mix"] = "thompson"
    objective: _ObjectiveSetting | None = None
    exploration_floor: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    deny: tuple[str, ...] = ()
    model: str | None = None
    shares: dict[str, Annotated[float, Field(ge=0.0)]] | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        for name, value, policy in (("model", self.model, "fixed"), ("shares", self.shares, "mix")):
            if (value is not None) != (self.policy == policy):
                raise ValueError(f"{name}: expected with policy {policy}, and only there; the policy is {self.policy}")
        if self.policy != "thompson":
            for name in ("objective", "exploration_floor"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: expected with policy thompson only; the policy is {self.policy}")
        if self.deny and self.policy not in ("thompson", "uniform"):
            raise ValueError(f"deny: expected with policy thompson or uniform only; the policy is {self.policy}")
        if self.shares is not None and not math.isclose(sum(self.shares.values()), 1.0, abs_tol=1e-6):
            raise ValueError(f"shares: expected a sum of 1, got {sum(self.shares.values()):g}")
        return self


class _File(Setting):
    buckets: dict[str, Setting] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate: ``default`` for every bucket that is not in ``buckets``."""

    name: str
    default: Setting
    buckets: Mapping[str, Setting]

    @property
    def static(self) -> bool:
        """Whether what it does in a context never changes, as what was learned does."""
        return all(one.policy in ("fixed", "uniform", "mix") for one in (self.default, *self.buckets.values()))


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The candidate's distribution in every round (n, k), and in how many rounds it could not be had and the log's was taken:
    where the model it wants could not be chosen.
    """

    target_nk: Array
    replaced: int


def read_candidate(path: Path) -> Candidate:
    """Raises ``CandidateError`` with file, line and field."""
    try:
        _, values, node = load_yaml(path)
    except YamlError as error:
        raise CandidateError(str(error)) from error
    if "buckets" in values and "policy" not in values:
        values = {"policy": "logged", **values}
    try:
        found = _File.model_validate(values)
    except ValidationError as error:
        raise CandidateError(said_of(path, node, error)) from None
    return Candidate(
        path.stem,
        Setting(**{name: getattr(found, name) for name in Setting.model_fields}),
        {name.removeprefix("buckets/"): setting for name, setting in found.buckets.items()},
    )


def target(candidate: Candidate, source: Log | Journal) -> Target:
    """What ``candidate`` would have done in every round. Raises ``CandidateError`` if this log does not say enough for it."""
    log = source.log if isinstance(source, Journal) else source
    unknown = sorted(set(candidate.buckets) - set(log.groups))
    if unknown:
        raise CandidateError(f"buckets: {unknown[0]}: expected one of the log's: {', '.join(log.groups)}")
    target_nk, replaced = np.zeros(log.eligible_nk.shape), 0
    for number, group in enumerate(log.groups):
        rows_n = np.flatnonzero(log.group_n == number)
        setting = candidate.buckets.get(group, candidate.default)
        try:
            made_nk, missing = _of_group(setting, source, log, rows_n)
        except (CandidateError, FieldError) as error:
            where = f"buckets: {group}" if group in candidate.buckets else candidate.name
            raise CandidateError(f"{where}: {error}") from None
        target_nk[rows_n] = made_nk
        replaced += missing
    return Target(target_nk, replaced)


def _of_group(setting: Setting, source: Log | Journal, log: Log, rows_n: Indices) -> tuple[Array, int]:
    """The distributions in some rounds of one bucket."""
    denied_k = _columns(log, setting.deny)
    if setting.policy == "thompson":
        if not isinstance(source, Journal):
            raise CandidateError(
                "thompson: expected the journal's export, which says what the decisions were made with"
            )
        made_nk = np.zeros((len(rows_n), len(log.models)))
        number = {model: i for i, model in enumerate(log.models)}
        for i, row in enumerate(rows_n):
            made = source.made[row]
            made_nk[i, [number[model] for model in made.models]] = changed(setting, made)
        return made_nk, 0
    eligible_nk = log.eligible_nk[rows_n]
    if setting.policy == "logged":
        return _logged(log, rows_n), 0
    if setting.policy == "uniform":
        even_nk = (eligible_nk & ~denied_k).astype(np.float64)
    elif setting.policy == "fixed":
        assert setting.model is not None
        even_nk = eligible_nk * _columns(log, (setting.model,)).astype(np.float64)
    else:
        assert setting.shares is not None
        share_k = np.zeros(len(log.models))
        for model, share in setting.shares.items():
            share_k[_columns(log, (model,))] = share
        even_nk = eligible_nk * share_k
    total_n = even_nk.sum(axis=1)
    there_n = total_n > 0.0
    made_nk = np.divide(even_nk, total_n[:, None], out=np.zeros_like(even_nk), where=there_n[:, None])
    if not there_n.all():
        made_nk[~there_n] = _logged(log, rows_n[~there_n])
    return made_nk, int((~there_n).sum())


def changed(setting: Setting, made: Made) -> Array:
    """The probability of each candidate (k) of one decision under ``setting``, with the functions that serve.

    A budget's multiplier stays what it was. Without an ``exploration_floor`` of its own the candidate has the log's where the
    objective is the same, else what the service would choose for its objective. Denying all candidates denies none.
    """
    objective = made.objective
    if setting.objective is not None:
        given = setting.objective
        objective = Objective(
            given.mode, given.cost_weight, given.latency_weight, given.min_quality, given.max_quality_loss
        ).resolve(made.quality)
    denied = _ids(setting.deny)
    exclusions_k = made.exclusions_k.copy()
    out_k = np.array([model in denied for model in made.models])
    if out_k.any() and ((exclusions_k == 0) & ~out_k).any():
        exclusions_k[out_k] |= Exclusion.DENIED.bit
    floor = setting.exploration_floor
    if floor is None:
        floor = made.exploration_floor
        if objective != made.objective:
            scores = score_arms(objective, made.quality, made.predicted.batch(), exclusions_k[None], made.multiplier)
            floor = float(exploration_floors(scores, made.predicted.batch(), None)[0])
            if made.multiplier:  # a budget may hold exploration down
                floor = min(floor, made.exploration_floor)
    would = replace(made, objective=objective, exclusions_k=exclusions_k, exploration_floor=floor)
    return logged_propensities(would, made.quality)


def _logged(log: Log, rows_n: Indices) -> Array:
    if log.logged_nk is None:
        raise CandidateError(
            f"expected a log that has the whole distribution of its policy where the candidate does as that did; {log.name} "
            "has only the propensity of what was chosen"
        )
    return np.asarray(log.logged_nk[rows_n])


def _ids(names: tuple[str, ...]) -> set[str]:
    return {name.removeprefix("models/") for name in names}


def _columns(log: Log, names: tuple[str, ...]) -> Any:
    """Which of the log's models (k) are among ``names``. Raises ``CandidateError`` for one that is not in the log."""
    ids = _ids(names)
    unknown = sorted(ids - set(log.models))
    if unknown:
        shown = ", ".join(log.models[:20]) + (", …" if len(log.models) > 20 else "")
        raise CandidateError(f"models/{unknown[0]}: expected one of the log's models: {shown}")
    return np.array([model in ids for model in log.models])
