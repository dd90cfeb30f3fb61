"""``thompson``, the policy that serves: the same buckets, decisions (``bandit.decide``) and fold of the same events
(``bandit.state.apply``), one event each for a decision and for its outcome.

>>> from pointsman.bandit.catalog import Schema
>>> spec = PolicySpec("thompson:half_life=500", "thompson", (("half_life", 500.0),))
>>> configure_bucket(Bucket("summarize", schema=Schema()), spec).half_life
500.0
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pointsman.bandit.catalog import Bucket, Budget, Model
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Encoded
from pointsman.bandit.errors import FieldError
from pointsman.bandit.event import BucketPut, DecisionMade, Event, ModelPut, Record
from pointsman.bandit.join import join
from pointsman.bandit.state import active_budgets, bucket_to_decide, fold
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.policies.base import Choice, scale_prices
from pointsman.simulator.policies.spec import PolicySpec, Run
from pointsman.simulator.world.changes import has_outage
from pointsman.simulator.world.rounds import CallOutcome, Notice, PriceNotice, report_of
from pointsman.simulator.world.world import World

ROUND_NS = 10**9
"""Time between two rounds: a second."""
THOMPSON_SETTINGS = ("exploration_floor", "half_life", "prior_quality", "prior_cost", "prior_latency")
"""What can be set of the policy that serves: fields of a bucket, and of its priors (quality in the bucket's units, dollars,
seconds)."""
_PRIORS = {"prior_quality": "quality", "prior_cost": "cost", "prior_latency": "latency"}
"""Which settings are fields of a bucket's priors."""


class Thompson:
    """The policy that serves. ``watch`` is called with every decision, as it is journalled, propensity included."""

    def __init__(
        self, world: World, run: Run, rng: np.random.Generator, watch: Callable[[DecisionMade], None] | None = None
    ) -> None:
        self._world, self._rng, self._watch = world, rng, watch
        self._state = copy.deepcopy(world.start)
        self._number_by_model = {model: i for i, model in enumerate(world.table.models)}
        self._reports_success = has_outage(run.schedule)
        self._pending: dict[int, DecisionMade] = {}
        budget = None if run.budget is None else Budget(run.budget)
        for bucket in list(self._state.buckets.values()):
            config = configure_bucket(bucket.config, run.policy)
            self._apply(0, BucketPut(replace(config, objective=run.objective, budget=budget)))

    def notice(self, t: int, notice: Notice) -> None:
        """Put the model into the catalogue, with its list prices if models have any."""
        prices = self._world.prices.get(notice.model) if self._world.priced else None
        if isinstance(notice, PriceNotice):
            if prices is None:
                return  # without list prices there is nothing to announce
            prices = scale_prices(prices, notice.factor)
        self._apply(t * ROUND_NS, ModelPut(Model(notice.model, prices=prices)))

    def move_to(self, world: World) -> None:
        """Go on with other rows."""
        self._world = world

    def choose(self, t: int, row: int) -> int:
        """Decide, and fold the decision."""
        return self.commit(t, self.propose(t, row))

    def propose(self, t: int, row: int) -> DecisionMade:
        """The decision that would be made; nothing is folded."""
        world, state, now_ns = self._world, self._state, (t + 1) * ROUND_NS
        bucket = state.buckets[world.bucket_n[row]]
        return decide(
            bucket_to_decide(state, bucket),
            [Encoded(world.x_nd[row], int(world.tokens_n[row]), -1)],
            [t.to_bytes(16, "big")],
            self._rng,
            health=state.health,
            now_ns=now_ns,
            state_position=state.position,
            active_budgets=active_budgets(state, bucket),
            with_propensity=self._watch is not None,  # for whoever logs; nothing else reads it
        )[0]

    def commit(self, t: int, decision: DecisionMade) -> int:
        """Fold a decision; its model's number."""
        self._apply((t + 1) * ROUND_NS, decision)
        self._pending[t] = decision
        if self._watch is not None:
            self._watch(decision)
        return self.number(decision)

    def number(self, decision: DecisionMade) -> int:
        """The number, in the table, of the model that was chosen."""
        return self._number_by_model[decision.models[decision.chosen]]

    def learn(self, now: int, choice: Choice, outcome: CallOutcome) -> None:
        """Fold the outcome."""
        decision = self._pending.pop(choice.t)
        report = report_of(outcome, success=self._reports_success)
        if report:
            bucket = self._state.buckets[decision.bucket]
            self._apply((now + 1) * ROUND_NS, join(bucket, decision, (choice.t + 1) * ROUND_NS, report))

    def _apply(self, now_ns: int, event: Event) -> None:
        fold((Record(self._state.position + 1, now_ns, event),), self._state)


def configure_bucket(bucket: Bucket, spec: PolicySpec) -> Bucket:
    """``bucket`` with the settings of a ``thompson`` policy. Raises ``SettingError`` for a value out of range."""
    priors = {_PRIORS[name]: value for name, value in spec.settings if name in _PRIORS}
    fields = {name: value for name, value in spec.settings if name not in _PRIORS}
    try:
        return replace(bucket, priors=replace(bucket.priors, **priors), **fields)  # type: ignore[arg-type]
    except FieldError as error:
        raise SettingError(f"policy {spec.text!r}: {error}") from None
