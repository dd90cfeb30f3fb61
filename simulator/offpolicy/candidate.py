"""A candidate policy as a YAML file, and its action probabilities on logged rounds.

    policy: thompson            # the policy that serves, on what it knew then, with what is changed here
    objective: {mode: COST_FIRST, max_quality_loss: 0.02}
    exploration_floor: 0.01
    deny: [models/dear]
    buckets:                    # other settings for some buckets
      summarize: {policy: fixed, model: models/small}

``policy`` is ``logged`` (the one that made the log, the default for buckets that are not named), ``thompson``, ``fixed`` (with
``model``), ``uniform``, or ``mix`` (with ``shares`` of models). Settings at the top hold for every bucket without settings of its
own; a bucket's own settings replace them.

A candidate decides on what was known before the decision and nothing else, so that importance weighting is valid also for the
log of a policy that was learning. ``thompson`` computes, with the functions that serve, the probabilities that its settings
would have given at that very state. It has learned from the log's choices, not from its own; the first decisions after a switch
are like that.

>>> candidate = Candidate("cheap", BucketPolicy(policy="mix", shares={"small": 0.75, "large": 0.25}), {})
>>> candidate.is_static, candidate.default.shares
(True, {'small': 0.75, 'large': 0.25})
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pointsman.bandit.catalog import Mode, Objective
from pointsman.bandit.errors import FieldError
from pointsman.bandit.limits import Exclusion
from pointsman.bandit.policy import exploration_floors, logged_propensities, score_arms
from pointsman.simulator.offpolicy.logs.log import Array, Flags, Indices, Log, LoggedDecision
from pointsman.yaml_lines import YamlError, read_yaml

_ROUNDING = 1e-9
"""Shares below are rounding."""


class CandidateError(ValueError):
    """A candidate is not acceptable, or not for this log. Says file and field."""


class _ObjectiveSetting(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode
    cost_weight: float | None = None
    latency_weight: float | None = None
    min_quality: float | None = None
    max_quality_loss: float | None = None


class BucketPolicy(BaseModel):
    """The policy of a bucket, with its settings."""

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


class _File(BucketPolicy):
    buckets: dict[str, BucketPolicy] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate: ``default`` for every bucket that is not in ``buckets``."""

    name: str
    default: BucketPolicy
    buckets: Mapping[str, BucketPolicy]

    @property
    def is_static(self) -> bool:
        """Whether what it does in a context never changes, as it would with what is learned."""
        policies = (self.default, *self.buckets.values())
        return all(bucket.policy in ("fixed", "uniform", "mix") for bucket in policies)


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The candidate's distribution in every round, (n, k), rows sum to 1.

    A fixed model or a mix may want models that were not eligible then (limits, capabilities, availability): ``displaced_n`` (n),
    in [0, 1], is the share of its choices that fell on those. The eligible ones of a mix share it; where none is, the logging
    policy decides, as it did. ``barred`` are the models that it wants in a bucket in which they never were eligible, as
    (bucket, model), with the share of all its choices that this is.
    """

    target_nk: Array
    displaced_n: Array
    barred: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def replaced(self) -> int:
        """The rounds in which none of its models was eligible, so that the logging policy stands in."""
        return int((self.displaced_n >= 1.0).sum())

    @property
    def acted_n(self) -> Flags:
        """The rounds (n) in which every model that it wants was eligible."""
        return np.asarray(self.displaced_n <= 0.0)


def read_candidate(path: Path) -> Candidate:
    """The candidate in a YAML file. Raises ``CandidateError`` with file, line and field."""
    try:
        document = read_yaml(path)
        values = document.mapping()
    except YamlError as error:
        raise CandidateError(str(error)) from error
    if "buckets" in values and "policy" not in values:
        values = {"policy": "logged", **values}
    try:
        file = _File.model_validate(values)
    except ValidationError as error:
        raise CandidateError(document.explain(error.errors())) from None
    return Candidate(
        path.stem,
        BucketPolicy(**{name: getattr(file, name) for name in BucketPolicy.model_fields}),
        {name.removeprefix("buckets/"): policy for name, policy in file.buckets.items()},
    )


def target_of(candidate: Candidate, log: Log) -> Target:
    """The action probabilities of ``candidate`` in every round. Raises ``CandidateError`` if the log lacks what it needs."""
    unknown = sorted(set(candidate.buckets) - set(log.groups))
    if unknown:
        raise CandidateError(f"buckets: {unknown[0]}: expected one of the log's: {', '.join(log.groups)}")
    target_nk, displaced_n = np.zeros(log.eligible_nk.shape), np.zeros(len(log))
    barred: dict[tuple[str, str], float] = {}
    for number, group in enumerate(log.groups):
        rows_n = np.flatnonzero(log.group_n == number)
        policy = candidate.buckets.get(group, candidate.default)
        try:
            in_group = _target_of_rows(policy, log, rows_n)
        except (CandidateError, FieldError) as error:
            where = f"buckets: {group}" if group in candidate.buckets else candidate.name
            raise CandidateError(f"{where}: {error}") from None
        target_nk[rows_n], displaced_n[rows_n] = in_group.target_nk, in_group.displaced_n
        barred |= {(group, model): share * len(rows_n) / len(log) for (_, model), share in in_group.barred.items()}
    return Target(target_nk, displaced_n, barred)


def _target_of_rows(policy: BucketPolicy, log: Log, rows_n: Indices) -> Target:
    """The distributions in some rounds of one bucket."""
    denied_k = _is_among(policy.deny, log)
    if policy.policy == "thompson":
        return Target(_thompson(policy, log, rows_n), np.zeros(len(rows_n)))
    if policy.policy == "logged":
        return Target(_logged(log, rows_n), np.zeros(len(rows_n)))
    if policy.policy == "uniform":
        even = _static((~denied_k).astype(np.float64), log, rows_n)
        return Target(even.target_nk, np.floor(even.displaced_n))  # an even draw is one of the eligible models
    if policy.policy == "fixed":
        assert policy.model is not None
        share_k = _is_among((policy.model,), log).astype(np.float64)
    else:
        assert policy.shares is not None
        share_k = np.zeros(len(log.models))
        for model, share in policy.shares.items():
            share_k[_is_among((model,), log)] = share
    return _static(share_k, log, rows_n)


def _static(share_k: Array, log: Log, rows_n: Indices) -> Target:
    """Shares of the eligible models, normalised; the logging policy's distribution where none of them is eligible.

    A model that was eligible keeps its share, whatever its propensity was: what the log cannot show is not left out.
    """
    share_nk = log.eligible_nk[rows_n] * share_k
    total_n = share_nk.sum(axis=1)
    can_choose_n = total_n > 0.0
    target_nk = np.divide(share_nk, total_n[:, None], out=np.zeros_like(share_nk), where=can_choose_n[:, None])
    if not can_choose_n.all():
        target_nk[~can_choose_n] = _logged(log, rows_n[~can_choose_n])
    displaced_n = 1.0 - total_n / share_k.sum() if share_k.any() else np.ones(len(rows_n))
    displaced_n[np.abs(displaced_n) < _ROUNDING] = 0.0
    never_k = (share_k > 0.0) & ~log.eligible_nk[rows_n].any(axis=0)
    barred = {("", log.models[i]): float(share_k[i]) for i in np.flatnonzero(never_k).tolist()} if len(rows_n) else {}
    return Target(target_nk, displaced_n, barred)


def _thompson(policy: BucketPolicy, log: Log, rows_n: Indices) -> Array:
    if log.decisions is None:
        raise CandidateError("thompson: expected the journal's export, which says what the decisions were made with")
    target_nk = np.zeros((len(rows_n), len(log.models)))
    number_by_model = {model: i for i, model in enumerate(log.models)}
    for i, row in enumerate(rows_n):
        decision = log.decisions[row]
        target_nk[i, [number_by_model[model] for model in decision.models]] = thompson_distribution(policy, decision)
    return target_nk


def thompson_distribution(policy: BucketPolicy, decision: LoggedDecision) -> Array:
    """The probability of each candidate (k) of one decision under the settings of ``policy``, with the functions that serve.

    A budget's multiplier stays what it was; that of a floor on mean quality goes with its objective. Without an
    ``exploration_floor`` of its own the policy has the log's where the objective is the same, else what the service would choose
    for its objective. Denying all candidates denies none.
    """
    objective = decision.objective
    if policy.objective is not None:
        objective = Objective(**policy.objective.model_dump()).resolve(decision.quality)
    denied = _ids(policy.deny)
    denied_k = np.array([model in denied for model in decision.models])
    exclusions_k = decision.exclusions_k.copy()
    if objective.mode is not Mode.AVAILABILITY_FIRST:
        exclusions_k &= ~Exclusion.AVAILABILITY.bit  # what that objective left out, another one may choose
    if denied_k.any() and ((exclusions_k == 0) & ~denied_k).any():
        exclusions_k[denied_k] |= Exclusion.DENIED.bit
    left_floor = objective != decision.objective and decision.objective.min_mean_quality is not None
    multiplier = 0.0 if left_floor else decision.multiplier
    floor = policy.exploration_floor
    if floor is None:
        floor = decision.exploration_floor
        if objective != decision.objective:
            predicted_1k = decision.predicted.batch()
            scores = score_arms(objective, decision.quality, predicted_1k, exclusions_k[None], multiplier)
            floor = float(exploration_floors(scores, predicted_1k, None)[0])
            if multiplier:  # a budget may hold exploration down
                floor = min(floor, decision.exploration_floor)
    changed = replace(
        decision,
        objective=objective,
        exclusions_k=exclusions_k,
        exploration_floor=floor,
        multiplier=multiplier,
        by_price=decision.by_price or objective != decision.objective,  # another objective: by the rule that serves now
    )
    return logged_propensities(changed)


def _logged(log: Log, rows_n: Indices) -> Array:
    if log.logged_nk is None:
        raise CandidateError(
            f"expected a log that has the whole distribution of its policy where the candidate does as that did; {log.name} "
            "has only the propensity of what was chosen"
        )
    return np.asarray(log.logged_nk[rows_n])


def _ids(names: tuple[str, ...]) -> set[str]:
    return {name.removeprefix("models/") for name in names}


def _is_among(names: tuple[str, ...], log: Log) -> Flags:
    """Which of the log's models (k) are among ``names``. Raises ``CandidateError`` for one that is not in the log."""
    ids = _ids(names)
    unknown = sorted(ids - set(log.models))
    if unknown:
        shown = ", ".join(log.models[:20]) + (", …" if len(log.models) > 20 else "")
        raise CandidateError(
            f"models/{unknown[0]}: expected one of the log's models: {shown}; of others it shows nothing"
        )
    return np.array([model in ids for model in log.models])
