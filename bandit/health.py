"""Availability: whether calls to a model succeed, learned across buckets, and the circuit breaker on top of it.

The success rate is Beta-Bernoulli with exponential forgetting in event time. The breaker opens after a run of failures that is
unlikely at the model's own rate of failures, or when more than half of the recent calls failed. An open breaker holds the model
off for a time that it learns: a relapse is held off for .9 of what the last one took, and twice as long if few calls were served
in between, as behind a rate limit. Then one probe at a time may try it, at intervals that double with every failure, up to a
minute or a quarter of the outage; where requests are many, one in ``PROBE_EVERY`` may also come earlier. ``CLOSE`` successes in a
row close the breaker. All of it is in event time, so that it is part of the fold. `docs/decisions/circuit-breaker.md` has the
alternatives, `benchmarks/trials/breakers.py` the figures.

>>> health = Health()
>>> health.success_rate(0), health.may_run(0)
(0.95, True)
>>> for second in range(TRIP):
...     record_call(health, success=False, time_ns=second * SECOND_NS)
>>> round(health.success_rate(2 * SECOND_NS), 2), health.open, health.may_run(5 * SECOND_NS), health.may_run(12 * SECOND_NS)
(0.83, True, False, True)
"""

from __future__ import annotations

from dataclasses import dataclass

SECOND_NS = 10**9
"""Nanoseconds of a second."""
HALF_LIFE_NS = 600 * SECOND_NS
"""Event time after which a success or failure counts half."""
PRIOR_SUCCESSES, PRIOR_FAILURES = 19.0, 1.0
"""What is believed of a model of which nothing was reported: 95 % of calls succeed."""
TRIP = 3
"""Least number of failures in a row that opens the breaker."""
UNLIKELY = 0.005
"""Probability, at the model's rate of failures before, under which such a run opens it."""
TRIP_AGAIN = 2
"""Least number of failures in a row that opens it again soon after it was closed."""
UNLIKELY_AGAIN = 0.002
"""Probability under which such a run does."""
TRIP_ANYWAY = 8
"""Failures in a row that open it however unreliable the model is."""
SOON_NS = 600 * SECOND_NS
"""Time after it was closed within which opening is a relapse."""
RECENT = 20.0
"""Recent calls (with forgetting) from which on a majority of failures opens the breaker."""
HOLD_NS = 10 * SECOND_NS
"""Shortest time for which an open breaker holds a model off."""
LONGEST_HOLD_NS = 60 * SECOND_NS
"""Longest time for which it does before the first probe, and between probes while an outage is young."""
OUTAGE_SHARE = 4
"""Probes are at most this share of an outage's duration apart (a quarter)."""
LONGEST_INTERVAL_NS = 600 * SECOND_NS
"""Longest time between probes, however long an outage lasts."""
FEW_CALLS = 20
"""Successes between two openings below which the model is held off twice as long."""
PROBE_EVERY = 100
"""Requests after which a probe may be made before its time: 1 % of traffic."""
CLOSE = 3
"""Successes in a row that close the breaker."""
KEPT = 0.5
"""Share of what was counted before an outage that is kept after it; what was counted during it says nothing of the model now."""


@dataclass(slots=True)
class Health:
    """One model's availability and recent failures; changed in place by the fold.

    ``good`` and ``bad`` are decayed counts as of ``time_ns``; ``streak`` is the length of the present run of successes
    (positive) or failures (negative); ``served`` the successes since the breaker was closed, at ``closed_ns`` (0: never opened).
    While it is open: ``opened_ns`` when that was, ``until_ns`` from when on a probe may be made, ``probed_ns`` when the last one
    was, ``waited`` how many requests passed since, ``interval_ns`` the time from the next probe to the one after. ``hold_ns`` is
    for how long the next relapse is held off; ``before_good`` and ``before_bad`` are the counts from before the outage.
    """

    good: float = 0.0
    bad: float = 0.0
    time_ns: int = 0
    streak: int = 0
    open: bool = False
    waited: int = 0
    served: int = 0
    closed_ns: int = 0
    opened_ns: int = 0
    until_ns: int = 0
    probed_ns: int = 0
    interval_ns: int = HOLD_NS
    hold_ns: int = HOLD_NS
    before_good: float = 0.0
    before_bad: float = 0.0

    def success_rate(self, now_ns: int) -> float:
        """Posterior mean, at ``now_ns``, of the chance that a call succeeds, in (0, 1)."""
        weight = _weight(now_ns - self.time_ns)
        good, bad = self.good * weight + PRIOR_SUCCESSES, self.bad * weight + PRIOR_FAILURES
        return good / (good + bad)

    def discount(self, now_ns: int) -> float:
        """Factor of quality, in (0, 1]: the success rate relative to the prior's.

        So a model of which nothing is reported and one whose calls succeed are judged alike, and one that is not called because
        its calls failed is tried again in time.
        """
        return min(1.0, self.success_rate(now_ns) * (PRIOR_SUCCESSES + PRIOR_FAILURES) / PRIOR_SUCCESSES)

    def may_run(self, now_ns: int) -> bool:
        """Whether the next request, at ``now_ns``, may have the model: the breaker is closed, or a probe is due."""
        if not self.open or now_ns >= self.until_ns:
            return True
        return self.waited >= PROBE_EVERY and now_ns >= self.probed_ns + HOLD_NS


def record_call(health: Health, success: bool, time_ns: int, decided_ns: int | None = None) -> None:
    """Learn, in place, how one call went, of which it was decided at ``decided_ns`` (``None``: just now).

    A call that was under way when the breaker opened is no probe: slow successes would close it again.
    """
    time_ns = max(time_ns, health.time_ns)
    weight = _weight(time_ns - health.time_ns)
    health.good, health.bad = health.good * weight + success, health.bad * weight + (not success)
    health.time_ns = time_ns
    if health.open and decided_ns is not None and decided_ns <= health.opened_ns:
        return
    health.streak = max(health.streak, 0) + 1 if success else min(health.streak, 0) - 1
    if health.open:
        _learn_from_probe(health, success)
    elif success:
        health.served += 1
    elif _opens(health):
        _open(health)


def count_request(health: Health, chosen: bool, time_ns: int) -> None:
    """Count, in place, a request at ``time_ns`` that had the model among its candidates while the breaker was open."""
    if not health.open:
        return
    health.waited = 0 if chosen else health.waited + 1
    if chosen:
        health.probed_ns, health.until_ns = time_ns, time_ns + health.interval_ns


def _weight(age_ns: int) -> float:
    """What is left of an observation after so long."""
    return float(0.5 ** (max(age_ns, 0) / HALF_LIFE_NS))


def _relapses(health: Health) -> bool:
    return health.closed_ns > 0 and health.time_ns < health.closed_ns + SOON_NS


def _opens(health: Health) -> bool:
    """Whether the breaker opens after the failure that was just counted."""
    run = -health.streak
    recent = health.good + health.bad
    if run >= TRIP_ANYWAY or (recent >= RECENT and health.bad > health.good):
        return True
    failure_rate = max(health.bad - run + PRIOR_FAILURES, PRIOR_FAILURES) / (
        max(recent - run, 0.0) + PRIOR_SUCCESSES + PRIOR_FAILURES
    )
    chance = failure_rate**run
    return (run >= TRIP and chance < UNLIKELY) or (run >= TRIP_AGAIN and chance < UNLIKELY_AGAIN and _relapses(health))


def _open(health: Health) -> None:
    health.before_good, health.before_bad = health.good, max(health.bad + health.streak, 0.0)
    if not _relapses(health):
        health.hold_ns = HOLD_NS
    elif health.served < FEW_CALLS:
        health.hold_ns = min(2 * health.hold_ns, LONGEST_HOLD_NS)
    health.open, health.waited, health.interval_ns = True, 0, HOLD_NS
    health.opened_ns = health.probed_ns = health.time_ns
    health.until_ns = health.time_ns + health.hold_ns


def _learn_from_probe(health: Health, success: bool) -> None:
    now_ns = health.time_ns
    lasted_ns = now_ns - health.opened_ns
    if not success:
        health.until_ns = max(health.until_ns, now_ns + health.interval_ns)
        longest_ns = min(max(LONGEST_HOLD_NS, lasted_ns // OUTAGE_SHARE), LONGEST_INTERVAL_NS)
        health.interval_ns = min(2 * health.interval_ns, longest_ns)
        return
    if health.streak == 1:
        health.hold_ns = min(max(lasted_ns * 9 // 10, HOLD_NS), LONGEST_HOLD_NS)
    if health.streak < CLOSE:
        health.until_ns = now_ns
        return
    health.open, health.closed_ns, health.served = False, now_ns, 0
    health.good = KEPT * health.before_good + health.streak
    health.bad = KEPT * health.before_bad
