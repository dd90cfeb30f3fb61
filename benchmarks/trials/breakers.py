"""What circuit breakers are worth: a good model that fails, a worse one that does not, and four rules when to try the good one.

    python benchmarks/trials/breakers.py [--seeds N] [--only NAME|NAME] [--worse QUALITY]

Two hours of Poisson traffic. An answer of the good model is worth 0.9, one of the other 0.6, a failed call nothing. Failures are
known after 0.2 s, answers after 1 s. Each cell is what a request earned on average, the worst seed's in brackets, then failed
calls and openings. `pointsman` is the breaker that serves, with its discount of unreliable models; `minute` skips the model for a
minute after three failures in a row, as gateways do; `former` opened after five and let one request in a hundred through; `never`
has none.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from pointsman.bandit.health import Health, count_request, record_call

SECOND = 10**9
HOURS = 2
GOOD, FAILED_AFTER, ANSWERED_AFTER = 0.9, 0.2, 1.0
Fails = Callable[[float], bool]


class Rule(Protocol):
    """When the good model is tried."""

    openings: int

    def tries(self, now_ns: int, worse: float) -> bool:
        """Whether the next request gets the good model."""

    def chose(self, now_ns: int, good: bool) -> None:
        """A request was decided."""

    def heard(self, now_ns: int, decided_ns: int, success: bool) -> None:
        """An outcome of the good model came."""


class Pointsman:
    """The breaker that serves."""

    def __init__(self) -> None:
        self._health, self.openings = Health(), 0

    def tries(self, now_ns: int, worse: float) -> bool:
        return self._health.may_run(now_ns) and GOOD * self._health.discount(now_ns) >= worse

    def chose(self, now_ns: int, good: bool) -> None:
        count_request(self._health, good, now_ns)

    def heard(self, now_ns: int, decided_ns: int, success: bool) -> None:
        before = self._health.open
        record_call(self._health, success, now_ns, decided_ns)
        self.openings += self._health.open and not before


class Minute:
    """Skip it for a minute after three failures in a row."""

    def __init__(self) -> None:
        self._run, self._until_ns, self.openings = 0, 0, 0

    def tries(self, now_ns: int, worse: float) -> bool:
        return now_ns >= self._until_ns

    def chose(self, now_ns: int, good: bool) -> None:
        pass

    def heard(self, now_ns: int, decided_ns: int, success: bool) -> None:
        self._run = 0 if success else self._run + 1
        if self._run >= 3 and now_ns >= self._until_ns:
            self._until_ns, self._run, self.openings = now_ns + 60 * SECOND, 0, self.openings + 1


class Former(Pointsman):
    """Five failures in a row, or a majority of recent calls; one request in a hundred; three successes."""

    def __init__(self) -> None:
        super().__init__()
        self._open, self._waited = False, 0

    def tries(self, now_ns: int, worse: float) -> bool:
        return (not self._open or self._waited >= 100) and GOOD * self._health.discount(self._health.time_ns) >= worse

    def chose(self, now_ns: int, good: bool) -> None:
        self._waited = 0 if good else self._waited + 1

    def heard(self, now_ns: int, decided_ns: int, success: bool) -> None:
        health = self._health
        weight = 0.5 ** ((now_ns - health.time_ns) / (600 * SECOND))
        health.good, health.bad, health.time_ns = (
            health.good * weight + success,
            health.bad * weight + (not success),
            now_ns,
        )
        health.streak = max(health.streak, 0) + 1 if success else min(health.streak, 0) - 1
        if not self._open:
            many = health.good + health.bad >= 20 and health.bad > health.good
            if not success and (health.streak <= -5 or many):
                self._open, self._waited, self.openings = True, 0, self.openings + 1
        elif not success:
            self._waited = 0
        elif health.streak >= 3:
            self._open, health.good, health.bad = False, float(health.streak), 0.0
        else:
            self._waited = 100


class Never:
    """No breaker."""

    openings = 0

    def tries(self, now_ns: int, worse: float) -> bool:
        return True

    def chose(self, now_ns: int, good: bool) -> None:
        pass

    def heard(self, now_ns: int, decided_ns: int, success: bool) -> None:
        pass


RULES: dict[str, Callable[[], Rule]] = {"pointsman": Pointsman, "minute": Minute, "former": Former, "never": Never}


@dataclass(frozen=True, slots=True)
class Case:
    """``make`` gives, for a seed's random numbers, whether a call at a time (seconds) fails; requests come ``gap`` s apart."""

    name: str
    make: Callable[[np.random.Generator], Fails]
    gap: float = 1.0


def window(limit: int) -> Callable[[np.random.Generator], Fails]:
    """A rate limit: so many calls in each minute of the clock."""

    def make(rng: np.random.Generator) -> Fails:
        minute, used = -1, 0

        def fails(t: float) -> bool:
            nonlocal minute, used
            if int(t // 60) != minute:
                minute, used = int(t // 60), 0
            used += 1
            return used > limit

        return fails

    return make


def rolling(limit: int) -> Callable[[np.random.Generator], Fails]:
    """A rate limit: so many calls in any sixty seconds."""

    def make(rng: np.random.Generator) -> Fails:
        served: list[float] = []

        def fails(t: float) -> bool:
            served[:] = [s for s in served if s > t - 60.0]
            if len(served) >= limit:
                return True
            served.append(t)
            return False

        return fails

    return make


def token_bucket(per_minute: float, burst: float) -> Callable[[np.random.Generator], Fails]:
    """A rate limit: tokens that come at an even pace, of which some are saved up."""

    def make(rng: np.random.Generator) -> Fails:
        tokens, last = burst, 0.0

        def fails(t: float) -> bool:
            nonlocal tokens, last
            tokens, last = min(burst, tokens + (t - last) * per_minute / 60.0), t
            if tokens < 1.0:
                return True
            tokens -= 1.0
            return False

        return fails

    return make


def share(p: float, start: float = 0.0, end: float = float("inf")) -> Callable[[np.random.Generator], Fails]:
    """A share of the calls fails from ``start`` to ``end``."""
    return lambda rng: lambda t: start <= t < end and bool(rng.random() < p)


def flapping(up: float, down: float) -> Callable[[np.random.Generator], Fails]:
    """Up and down in turn, from a random point of the cycle on."""

    def make(rng: np.random.Generator) -> Fails:
        shift = rng.uniform(0.0, up + down)
        return lambda t: (t + shift) % (up + down) >= up

    return make


def cases() -> Iterator[Case]:
    """Rate limits, outages, partial and short ones, at several loads, and a sound model."""
    yield Case("20 a minute, by the clock", window(20))
    yield Case("20 a minute, rolling", rolling(20))
    yield Case("20 a minute, tokens, 20 saved", token_bucket(20, 20))
    yield Case("20 a minute, tokens, 5 saved", token_bucket(20, 5))
    yield Case("20 a minute, 600 asked", rolling(20), 0.1)
    yield Case("300 a minute, 600 asked", window(300), 0.1)
    yield Case("5 a minute", window(5))
    yield Case("outage of 30 minutes", share(1.0, 1800, 3600))
    yield Case("the same, 600 a minute", share(1.0, 1800, 3600), 0.1)
    yield Case("the same, one a minute", share(1.0, 1800, 3600), 60.0)
    yield Case("half fail for 30 minutes", share(0.5, 1800, 3600))
    yield Case("half fail always", share(0.5))
    yield Case("a fifth fail always", share(0.2))
    yield Case("one in 20 fails always", share(0.05))
    yield Case("18 minutes up, 2 down", flapping(1080, 120))
    yield Case("a minute up, a minute down", flapping(60, 60))
    yield Case("20 s up, 10 s down", flapping(20, 10))
    yield Case("sound: 2 in 1,000 fail", share(0.002))


def run(case: Case, rule: Rule, seed: int, worse: float) -> tuple[float, int, int]:
    """What a request earned, failed calls, openings."""
    rng = np.random.default_rng(seed)
    fails = case.make(np.random.default_rng([seed, 1]))
    pending: list[tuple[float, float, bool]] = []
    earned, requests, failed, t = 0.0, 0, 0, 0.0
    while (t := t + rng.exponential(case.gap)) < 3600.0 * HOURS:
        while pending and pending[0][0] <= t:
            heard, decided, success = heapq.heappop(pending)
            rule.heard(int(heard * SECOND), int(decided * SECOND), success)
        now_ns = int(t * SECOND)
        good = rule.tries(now_ns, worse)
        rule.chose(now_ns, good)
        requests += 1
        if good:
            bad = fails(t)
            failed += bad
            heapq.heappush(pending, (t + (FAILED_AFTER if bad else ANSWERED_AFTER), t, not bad))
            earned += 0.0 if bad else GOOD
        else:
            earned += worse
    return earned / requests, failed, rule.openings


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--only", default="")
    parser.add_argument("--worse", type=float, default=0.6)
    options = parser.parse_args()
    table = Table(
        title=f"earned per request, mean ± 95 % interval (worst of {options.seeds} seeds); failed calls; openings"
    )
    table.add_column("case")
    for name in RULES:
        table.add_column(name, justify="right")
    for case in cases():
        if not any(part in case.name for part in options.only.split("|")):
            continue
        cells = []
        for make in RULES.values():
            result = np.array([run(case, make(), seed, options.worse) for seed in range(options.seeds)])
            mean, half = result[:, 0].mean(), 1.96 * result[:, 0].std(ddof=1) / options.seeds**0.5
            counts = f"{result[:, 1].mean():.0f}; {result[:, 2].mean():.0f}"
            cells.append(f"{mean:.3f} ± {half:.3f} ({result[:, 0].min():.3f}); {counts}")
        table.add_row(case.name, *cells)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
