"""Which models' calls wait to be judged in vain, and how far such models still take part in draws.

A call that is never judged teaches nothing, so trying a model is worth only as much as its calls are judged. Feedback that is
rare or late for all models alike is no reason to try one of them less; what counts is whether a model's calls are judged as
often as those of the *others*. A judgement stands for as many calls as there are to one of the others, and relieves so many of
waiting. For each model a one-sided CUSUM runs (Page 1954): every call that still waits when it should have been judged, by the
delays so far, adds the rate at which the others' calls are judged of late; every judgement takes ``RELIEF`` away; it stays
between 0 and ``MOST``.

>>> feedback = no_feedback(2)
>>> for second in range(40):  # both are called in turn, only the first is judged
...     note_call(feedback, second % 2, second * 10**9)
...     if second % 2 == 0:
...         note_judgement(feedback, 0, delay_ns=10**6)
>>> participation(feedback).round(3).tolist()
[1.0, 0.177]
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from pointsman.bandit.packed import Array

RELIEF = 2.0
"""Calls of the others' rate that one judgement makes up for: a model that is judged half as often stays where it is."""
MOST = 40.0
"""Largest value of the sum, so that a model whose judge is mended takes full part again after 20 judgements."""
FREE = 4.0
"""Sum up to which a model takes full part."""
SCALE = 10.0
"""A model whose sum is s takes part with probability (SCALE / (s - FREE + SCALE))²."""
LEAST_RATE = 0.02
"""Least rate at which one judgement is taken to stand for calls: for 50."""
MEMORY = 1.0 - 1.0 / 128.0
"""What is left, after a decision of the bucket, of the calls and judgements that make up the present rates."""
DELAYS = 2.0
"""Mean delays that each of the two stages of waiting takes on average (Erlang): at the mean delay 9 % of calls count as due."""

FRESH, WAITING, CALLS, JUDGED, UNJUDGED, RATE = range(6)
"""Rows of ``Feedback.sums_6k``."""
DELAY_BITS, DELAY_COUNT, LAST_NS = 0, 1, 2
"""Places in ``Feedback.counts_3``."""


@dataclass(slots=True)
class Feedback:
    """Recent calls and judgements of one bucket's models (k), changed in place by the fold.

    ``sums_6k``: calls that wait to be judged, in a first and a second stage, calls and judgements of late (fading with the
    bucket's decisions), the CUSUM, and the rate of the others at the last call. ``counts_3``: sum of the bit lengths of delays in
    nanoseconds and their number (a mean of logarithms, exact in any order), and the time of the last call.
    """

    sums_6k: Array
    counts_3: npt.NDArray[np.int64]


def no_feedback(models: int) -> Feedback:
    """Nothing was called yet."""
    return Feedback(np.zeros((6, models)), np.zeros(3, dtype=np.int64))


def note_call(feedback: Feedback, model: int, time_ns: int) -> None:
    """A decision of the bucket chose ``model``. Calls that have become due since the last one are added to the sums, in place."""
    fresh_k, waiting_k, calls_k, _, unjudged_k, rate_k = feedback.sums_6k
    feedback.sums_6k[CALLS : JUDGED + 1] *= MEMORY
    count = int(feedback.counts_3[DELAY_COUNT])
    passed_ns = time_ns - int(feedback.counts_3[LAST_NS])
    if count and passed_ns > 0:
        stages = passed_ns / (DELAYS * 2.0 ** (int(feedback.counts_3[DELAY_BITS]) / count))
        left = math.exp(-stages)
        due_k = fresh_k + waiting_k
        waiting_k *= left
        waiting_k += stages * left * fresh_k
        fresh_k *= left
        due_k -= fresh_k
        due_k -= waiting_k
        rate_k[:] = _rates_of_others(feedback.sums_6k)
        due_k *= rate_k
        unjudged_k += due_k
        np.minimum(unjudged_k, MOST, out=unjudged_k)
    feedback.counts_3[LAST_NS] = max(time_ns, int(feedback.counts_3[LAST_NS]))
    fresh_k[model] += 1.0
    calls_k[model] += 1.0


def note_judgement(feedback: Feedback, model: int, delay_ns: int) -> None:
    """The quality of a call of ``model`` became known, ``delay_ns`` after its decision; in place."""
    sums_6k = feedback.sums_6k
    waiting = float(sums_6k[FRESH, model] + sums_6k[WAITING, model])
    if waiting > 0.0:  # of as many calls as one judgement stands for
        sums_6k[: WAITING + 1, model] *= max(1.0 - 1.0 / (waiting * max(sums_6k[RATE, model], LEAST_RATE)), 0.0)
    sums_6k[JUDGED, model] += 1.0
    sums_6k[UNJUDGED, model] = max(sums_6k[UNJUDGED, model] - RELIEF, 0.0)
    feedback.counts_3[DELAY_BITS] += max(delay_ns, 0).bit_length()
    feedback.counts_3[DELAY_COUNT] += 1


def _rates_of_others(sums_6k: Array) -> Array:
    """For each model (k) the share of the other models' recent calls that is judged, in [0, 1]; 0 if none is."""
    calls_k, judged_k = sums_6k[CALLS], sums_6k[JUDGED]
    return np.asarray(np.minimum((judged_k.sum() - judged_k) / (calls_k.sum() - calls_k + 1.0), 1.0))


def participation(feedback: Feedback) -> Array:
    """The probability with which each model (k) takes full part in a draw: 1, or less where its calls are not judged.

    In half octaves, so that models of about the same probability have the same.
    """
    unjudged_k = feedback.sums_6k[UNJUDGED]
    if (unjudged_k <= FREE).all():
        return np.ones(len(unjudged_k))
    return half_octaves((SCALE / (np.maximum(unjudged_k - FREE, 0.0) + SCALE)) ** 2)


def half_octaves(probability_k: Array) -> Array:
    """The largest powers of √2 that are at most ``probability_k`` > 0."""
    return np.asarray(2.0 ** (np.floor(2.0 * np.log2(probability_k) + 1e-9) / 2.0))


def grown(feedback: Feedback, count: int) -> Feedback:
    """The same and, last, ``count`` more models."""
    return Feedback(np.pad(feedback.sums_6k, ((0, 0), (0, count))), feedback.counts_3)


def without(feedback: Feedback, model: int) -> Feedback:
    """The same without one model."""
    return Feedback(np.delete(feedback.sums_6k, model, axis=1), feedback.counts_3)


def to_arrays(feedback: Feedback) -> dict[str, npt.NDArray[np.generic]]:
    """All arrays by name."""
    return {f.name: getattr(feedback, f.name) for f in fields(feedback)}
