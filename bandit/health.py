"""Availability: whether calls to a model succeed, learned across buckets, and the circuit breaker on top of it.

The success rate is Beta-Bernoulli with exponential forgetting in event time. The breaker opens after ``TRIP`` failures in a
row, or when more than half of the recent calls failed. While it is open the model is not eligible, except that one request
in ``PROBE_EVERY`` of those it would have been a candidate of may try it; after a success the next ones may at once, and
``CLOSE`` successes in a row close it. All of it counts events, so that it is part of the fold.

>>> health = Health()
>>> health.success_rate, health.may_run
(0.95, True)
>>> for time_ns in range(TRIP):
...     record_call(health, success=False, time_ns=time_ns)
>>> round(health.success_rate, 2), health.may_run
(0.76, False)
"""

from __future__ import annotations

from dataclasses import dataclass

HALF_LIFE_NS = 600 * 10**9
"""Event time after which a success or failure counts half."""
PRIOR_SUCCESSES, PRIOR_FAILURES = 19.0, 1.0
"""What is believed of a model of which nothing was reported: 95 % of calls succeed."""
TRIP = 5
"""Failures in a row that open the breaker."""
RECENT = 20.0
"""Recent calls (with forgetting) from which on a majority of failures opens the breaker."""
PROBE_EVERY = 100
"""Requests between two probes of a model whose breaker is open: 1 % of its traffic."""
CLOSE = 3
"""Successes in a row that close the breaker."""


@dataclass(slots=True)
class Health:
    """One model's availability and recent failures; changed in place by the fold.

    ``good`` and ``bad`` are decayed counts as of ``time_ns``; ``streak`` is the length of the present run of successes
    (positive) or failures (negative); ``waited`` how many requests passed since the last probe.
    """

    good: float = 0.0
    bad: float = 0.0
    time_ns: int = 0
    streak: int = 0
    open: bool = False
    waited: int = 0

    @property
    def success_rate(self) -> float:
        """Posterior mean of the chance that a call succeeds, in (0, 1)."""
        return (self.good + PRIOR_SUCCESSES) / (self.good + self.bad + PRIOR_SUCCESSES + PRIOR_FAILURES)

    @property
    def discount(self) -> float:
        """Factor of quality, in (0, 1]: the success rate relative to the prior's.

        So a model of which nothing is reported and one whose calls succeed are judged alike.
        """
        return min(1.0, self.success_rate * (PRIOR_SUCCESSES + PRIOR_FAILURES) / PRIOR_SUCCESSES)

    @property
    def may_run(self) -> bool:
        """Whether the next request may have the model: the breaker is closed, or a probe is due."""
        return not self.open or self.waited >= PROBE_EVERY


def record_call(health: Health, success: bool, time_ns: int) -> None:
    """Learn, in place, how one call went."""
    weight = 0.5 ** (max(0, time_ns - health.time_ns) / HALF_LIFE_NS)
    health.good, health.bad = health.good * weight + success, health.bad * weight + (not success)
    health.time_ns = max(time_ns, health.time_ns)
    health.streak = max(health.streak, 0) + 1 if success else min(health.streak, 0) - 1
    if not health.open:
        recent = health.good + health.bad
        if health.streak <= -TRIP or (not success and recent >= RECENT and health.bad > health.good):
            health.open, health.waited = True, 0
    elif not success:
        health.waited = 0
    elif health.streak >= CLOSE:
        # what was counted during the outage says nothing of the model as it is now
        health.open, health.good, health.bad = False, float(health.streak), 0.0
    else:
        health.waited = PROBE_EVERY


def count_request(health: Health, chosen: bool) -> None:
    """Count, in place, a request that had the model among its candidates while the breaker was open."""
    if health.open:
        health.waited = 0 if chosen else health.waited + 1
