"""What of a candidate a log can show at all: its choices must be among those that the logging policy made.

A choice of propensity 0 never comes, one of a tiny propensity hardly ever, and where the log does not say the distributions, a
model that a bucket never chose may have had no chance there. What would have come of such choices no estimator knows. Bounds
assume the worst of them; predictions only guess.

A model that was *not eligible* (excluded by a request's limits, not available) is another case: the candidate could not have
chosen it either. See ``candidate.Target``: others take its part. Those rounds then say little of the candidate; ``acted`` counts
the rest.

>>> from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate, target_of
>>> n = 1000
>>> log = Log(
...     "one of two", ("small", "large"), ("chat",), np.zeros(n, dtype=np.intp), np.ones(n), np.tile([1.0, 0.0], (n, 1)),
...     np.ones((n, 2), dtype=np.bool_), {"quality": np.ones(n)}, np.zeros((n, 0)), np.zeros(n, dtype=np.intp), np.arange(n),
... )
>>> mix = Candidate("mix", BucketPolicy(policy="mix", shares={"small": 0.95, "large": 0.05}), {})
>>> support = support_of(log, target_of(mix, log))
>>> round(support.unshown, 9), support.is_enough, describe_gaps(support)
(0.05, False, 'large (5.00%: propensity 0)')
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pointsman.simulator.offpolicy.candidate import Target
from pointsman.simulator.offpolicy.evaluation.diagnostics import MAX_WEIGHT_SHARE
from pointsman.simulator.offpolicy.evaluation.estimates import MAX_UNSUPPORTED
from pointsman.simulator.offpolicy.evaluation.missing import kinds_of_rounds
from pointsman.simulator.offpolicy.logs.log import Array, Flags, Indices, Log

MAX_UNSHOWN = MAX_UNSUPPORTED
"""Share of the candidate's choices that may have been impossible in the log: rounding."""
MAX_RARE = 1e-3
"""Share of the candidate's choices that may have been so rare in the log that one round of them would outweigh the rest."""
_SURELY = 15.0
"""Expected choices of which it happens in 3 of 10 million cases that none comes."""
_MOST_NAMED = 5
"""Gaps that are named one by one."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A ``share`` of the candidate's choices that the log cannot show: of ``model`` in the bucket ``group``, and why.

    Of a log of one bucket ``group`` is empty.
    """

    model: str
    group: str
    share: float
    reason: str


@dataclass(frozen=True, slots=True)
class Support:
    """How far the log covers a candidate, in shares of its choices over all rounds.

    ``unshown`` could not come of the log, or never came: propensity 0, or a model that was never chosen. ``rare`` had a
    propensity so small that one such round would have had more than ``MAX_WEIGHT_SHARE`` of all weight. ``gaps`` are both by
    model and bucket, the largest first. ``displaced`` fell on models that were not eligible; ``acted`` rounds had none of those,
    and ``barred`` are the models, by bucket, that the candidate wants and that never were eligible there.
    """

    unshown: float
    rare: float
    gaps: tuple[Gap, ...]
    displaced: float
    acted: int
    barred: tuple[Gap, ...]

    @property
    def shows_choices(self) -> bool:
        """Whether the choices that the candidate makes could come of the log, and did."""
        return self.unshown <= MAX_UNSHOWN and self.rare <= MAX_RARE

    @property
    def is_enough(self) -> bool:
        """Whether the log shows what the candidate does, and that it could do what it wants."""
        return self.shows_choices and self.acted > 0 and not self.barred


def support_of(log: Log, target: Target) -> Support:
    """How far ``log`` covers a candidate whose distributions are ``target``."""
    n, wanted_nk = len(log), target.target_nk
    acted = int(target.acted_n.sum())
    untried_nk = _untried(log, wanted_nk)
    zero_nk, rare_nk = np.zeros(wanted_nk.shape, dtype=np.bool_), np.zeros(wanted_nk.shape, dtype=np.bool_)
    if log.logged_nk is not None:
        zero_nk = (wanted_nk > 0.0) & (log.logged_nk <= 0.0)
        untried_nk &= ~zero_nk
        rare_nk = ~zero_nk & ~untried_nk & (wanted_nk > MAX_WEIGHT_SHARE * max(acted, 1) * log.logged_nk * (1.0 + 1e-9))
    kinds = {"propensity 0": zero_nk, "never chosen": untried_nk, "hardly ever chosen": rare_nk}
    gaps = [gap for reason, is_gap_nk in kinds.items() for gap in _gaps(log, wanted_nk, is_gap_nk, reason)]
    barred = [Gap(model, group, share, "never eligible") for (group, model), share in target.barred.items()]
    return Support(
        unshown=float(wanted_nk[zero_nk | untried_nk].sum() / n),
        rare=float(wanted_nk[rare_nk].sum() / n),
        gaps=tuple(sorted(gaps, key=lambda gap: -gap.share)),
        displaced=float(target.displaced_n.mean()),
        acted=acted,
        barred=tuple(sorted(barred, key=lambda gap: -gap.share)),
    )


def describe_gaps(support: Support) -> str:
    """The models and buckets of which the log cannot show what the candidate does there, the largest share first."""
    named = [
        f"{gap.model}{f' in {gap.group}' if gap.group else ''} ({gap.share:.2%}: {gap.reason})"
        for gap in support.gaps[:_MOST_NAMED]
    ]
    left_out = len(support.gaps) - len(named)
    return ", ".join(named) + (f" and {left_out} more" if left_out else "")


def _untried(log: Log, wanted_nk: Array) -> Flags:
    """The choices (n, k) of models that the log never chose where the candidate would have.

    Anywhere, if the log says its distributions: a small bucket may have missed a model by chance. Else in the same bucket, for
    nothing says that it could have come there, and in the same kind of rounds (tenths of the log, quarters of features), if by
    its share of the bucket it would have come ``_SURELY`` times there.
    """
    is_chosen_nk = log.chosen_n[:, None] == np.arange(wanted_nk.shape[1])
    is_tried_nk = is_chosen_nk & (wanted_nk > 0.0)
    if log.logged_nk is not None:
        return np.asarray((wanted_nk > 0.0) & ~is_tried_nk.any(axis=0))
    tried_gk = _sums(is_tried_nk, log.group_n)
    share_nk = (tried_gk / np.maximum(_sums(np.ones((len(log), 1)), log.group_n), 1.0))[log.group_n]
    is_untried_nk = share_nk <= 0.0
    for _, kind_n in kinds_of_rounds(log):
        cell_n = np.unique(log.group_n * (int(kind_n.max()) + 1) + kind_n, return_inverse=True)[1]
        expected_ck, tried_ck = _sums(share_nk, cell_n), _sums(is_tried_nk, cell_n)
        is_untried_nk |= ((tried_ck == 0.0) & (expected_ck >= _SURELY))[cell_n]
    return np.asarray((wanted_nk > 0.0) & is_untried_nk)


def _sums(value_nk: Array | Flags, cell_n: Indices) -> Array:
    """Sums by cell, (c, k)."""
    sum_ck = np.zeros((int(cell_n.max()) + 1, value_nk.shape[1]))
    np.add.at(sum_ck, cell_n, value_nk)
    return sum_ck


def _gaps(log: Log, wanted_nk: Array, is_gap_nk: Flags, reason: str) -> Iterator[Gap]:
    """The gaps of one kind by bucket and model."""
    if not is_gap_nk.any():
        return
    share_gk = np.zeros((len(log.groups), wanted_nk.shape[1]))
    np.add.at(share_gk, log.group_n, np.where(is_gap_nk, wanted_nk, 0.0) / len(log))
    for group, model in np.argwhere(share_gk > 0.0).tolist():
        yield Gap(
            log.models[model], log.groups[group] if len(log.groups) > 1 else "", float(share_gk[group, model]), reason
        )
