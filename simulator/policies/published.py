"""Published bandits as policies of a replay, each the real package in this process, imported only when asked for.

They see what ours sees: the same features (unscaled, the task one-hot among them, an intercept last), the same warm start, the
same announcements. Settings are those that each package's authors recommend or ship; where they recommend none, the best of
a small grid on one half of ``paretobandit:val``, warm from the other: α of MABWiser in {.02, .1, .3, 1}, learning rate and γ
of SquareCB in {.02, .05, .1, .5} × {10, 100, 1000}; α and γ once more for cold starts.

- ``paretobandit``: ``BanditRouter`` with its own ``BudgetPacer`` (adaptive, its defaults), its tuned settings for warm and for
  cold starts (``pareto_bandit.config``), priors made by its own ``generate_warmup_priors``, realised costs fed back, and 20
  forced calls of a new model, as in its paper's experiments; the others get these too.
- ``mabwiser-lints``, ``mabwiser-linucb``: ``mabwiser.MAB``; the warm start is one ``fit``. A budget acts at the decision: the
  expectations less λ·c/B (``simulator.policies.base``).
- ``vw-squarecb``: Vowpal Wabbit ``cb_explore_adf --squarecb``; the warm start is learned as logged at probability 1. It gives
  probabilities, not the predictions they are made of, so within a budget its own regression (``cb_adf``) predicts, λ·c/B is
  added to the predicted costs, and SquareCB's inverse-gap weighting is applied to the sum: with penalties in what it learns
  instead, it overspent small budgets by 3 to 30 times.

>>> inverse_gap(np.array([0.2, 0.7, 0.2]), gamma=4.0).round(3).tolist()
[0.467, 0.2, 0.333]
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pointsman.bandit.catalog import Prices
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.policies.base import Choice, Rival, reward_of, scale_prices, warm_rewards
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.world.rounds import CallOutcome, NewModelNotice, Notice, PriceNotice
from pointsman.simulator.world.world import World

Array = npt.NDArray[np.float64]

PACKAGES = {
    "paretobandit": ("pareto_bandit", "paretobandit"),
    "mabwiser-lints": ("mabwiser", "mabwiser"),
    "mabwiser-linucb": ("mabwiser", "mabwiser"),
    "vw-squarecb": ("vowpalwabbit", "vowpalwabbit"),
}
"""Module and package (as pip calls it) of each."""
FORCED_CALLS = 20
"""Calls of a new model that the ParetoBandit paper's experiment makes before its router chooses freely. The others here get as
many: all of them start a new model at a reward of 0, and would otherwise never try it."""
TOKENS_PER_CALL = 1000.0
"""Makes dollars a call of a price per token, for a model without list prices."""
ALPHA = 0.1
"""Of MABWiser's policies."""
VW_OPTIONS = "--quiet -q SA -l 0.05"
GAMMA_WARM, GAMMA_COLD, GAMMA_EXPONENT = 100.0, 10.0, 0.5
"""SquareCB's γ = scale · t^exponent after t examples, with and without a warm start; the last two are its defaults."""


def check_installed(policy: str) -> None:
    """Raise ``SettingError`` that names the package if it is not there."""
    module, package = PACKAGES[policy]
    if importlib.util.find_spec(module) is None:
        raise SettingError(f"policy {policy} needs the package {package}: pip install {package}")


class _Published(Rival):
    """A published bandit: a new model is called ``FORCED_CALLS`` times before the package chooses freely."""

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        super().__init__(world, run, rng)
        if world.warm is not None and np.isnan(world.warm.outcome_snk[0]).all(axis=0).any():
            raise SettingError(f"policy {run.policy.text!r}: expected every model in the warm start's table")
        self._forced: list[int] = []

    def _force(self, model: str) -> None:
        self._forced += [self.number_by_model[model]] * FORCED_CALLS


class ParetoBandit(_Published):
    """ParetoBandit 0.1.1's ``BanditRouter``, with its own budget pacer."""

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        super().__init__(world, run, rng)
        package = importlib.import_module("pareto_bandit")
        config = importlib.import_module("pareto_bandit.config")
        pacing = importlib.import_module("pareto_bandit.budget_pacer")
        logging.getLogger("pareto_bandit").setLevel(logging.ERROR)  # it warns of every ceiling that its pacer relaxes
        dim = world.z_np.shape[1]
        settings = config.BEST_K3_TABULA_RASA_HPARAMS if world.warm is None else config.BEST_K3_HPARAMS
        weighs = bool(run.objective.cost_weight or run.objective.latency_weight)
        self._router = _with_priors(
            world,
            run,
            lambda priors: package.BanditRouter.create(
                model_registry={model: _registry_entry(list_prices(world, model)) for model in world.present},
                feature_service=package.FeatureService.for_precomputed(dim),
                context_store=package.EphemeralContextStore(),
                priors=priors,
                prior_n_effective=settings["prior_n_effective"],
                alpha=settings["alpha"],
                forgetting_factor=settings["forgetting_factor"],
                bandit_seed=run.seed,
                cost_penalty=0.0,
                config=package.RouterConfig(reward_min=-1.0 if weighs else 0.0),
                budget_pacer=None
                if run.budget is None
                else pacing.BudgetPacer(target_avg_spend_usd=run.budget, mode=pacing.PacingMode.ADAPTIVE),
            ),
        )
        self._logs: dict[int, Any] = {}

    def notice(self, t: int, notice: Notice) -> None:
        """Tell its registry of a new model or new list prices."""
        prices = list_prices(self.world, notice.model)
        if isinstance(notice, PriceNotice):
            self._router.update_model_pricing(notice.model, **_registry_entry(scale_prices(prices, notice.factor)))
        else:
            self._router.register_model(notice.model, **_registry_entry(prices))
            self._force(notice.model)

    def choose(self, t: int, row: int) -> int:
        """Route, or make a forced call."""
        if self._forced:
            return self._forced.pop()
        model, self._logs[t] = self._router.route(self.world.z_np[row])
        return self.number_by_model[model]

    def learn(self, now: int, choice: Choice, outcome: CallOutcome) -> None:
        """Feed back the realised cost with the reward; it takes no cost without a reward."""
        reward = reward_of(self.world, self.run.objective, outcome)
        log = self._logs.pop(choice.t, None)
        if reward is None:
            return
        if log is not None:
            if not np.isnan(outcome.cost):
                log.cost_usd = outcome.cost
            self._router.process_feedback(log.request_id, reward=reward)
            return
        self.learn_reward(choice, reward)
        if self._router.budget_pacer is not None and not np.isnan(outcome.cost):
            self._router.budget_pacer.observe(outcome.cost)

    def learn_reward(self, choice: Choice, reward: float) -> None:
        """Learn what came of a forced call, of which its router knows nothing."""
        self._router.update(self.world.table.models[choice.model], self.world.z_np[choice.row], reward)


class MabWiser(_Published):
    """MABWiser's linear Thompson sampling or linear UCB."""

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        super().__init__(world, run, rng)
        module = importlib.import_module("mabwiser.mab")
        policies = module.LearningPolicy
        policy = policies.LinTS(ALPHA) if run.policy.name == "mabwiser-lints" else policies.LinUCB(ALPHA)
        self._arms = list(world.present)
        self._mab = module.MAB(list(world.present), policy, seed=run.seed)
        self._fitted = world.warm is not None
        if world.warm is not None:
            reward_nk = warm_rewards(world, run.objective)
            n, k = reward_nk.shape
            decisions = np.tile(np.array(self._arms, dtype=object), n)
            self._mab.fit(decisions, reward_nk.ravel(), np.repeat(world.warm.z_np, k, axis=0))

    def notice(self, t: int, notice: Notice) -> None:
        """Add an arm; prices it learns from the costs."""
        if isinstance(notice, NewModelNotice):
            self._arms.append(notice.model)
            self._mab.add_arm(notice.model)
            self._force(notice.model)

    def choose(self, t: int, row: int) -> int:
        """The largest expectation less its penalty; any arm before the first outcome, as it cannot say."""
        if self._forced:
            return self._forced.pop()
        if not self._fitted:
            return self.number_by_model[self._arms[self.rng.integers(len(self._arms))]]
        expected = self._mab.predict_expectations(self.world.z_np[row : row + 1])
        penalty_k = self.budget.penalties_k()
        numbers = [self.number_by_model[arm] for arm in self._arms]
        return max(
            (expected[arm] - penalty_k[number], number) for arm, number in zip(self._arms, numbers, strict=True)
        )[1]

    def learn_reward(self, choice: Choice, reward: float) -> None:
        """One partial fit."""
        fit = self._mab.partial_fit if self._fitted else self._mab.fit
        fit([self.world.table.models[choice.model]], [reward], self.world.z_np[choice.row : choice.row + 1])
        self._fitted = True


class SquareCb(_Published):
    """Vowpal Wabbit's SquareCB on action-dependent features: the model's name, crossed with the context's."""

    def __init__(self, world: World, run: Run, rng: np.random.Generator) -> None:
        super().__init__(world, run, rng)
        module = importlib.import_module("vowpalwabbit")
        self._gamma = GAMMA_COLD if world.warm is None else GAMMA_WARM
        squarecb = f"--cb_explore_adf --squarecb --gamma_scale {self._gamma} --gamma_exponent {GAMMA_EXPONENT}"
        reduction = squarecb if run.budget is None else "--cb_adf"
        self._vw = module.Workspace(f"{reduction} {VW_OPTIONS} --random_seed {run.seed}")
        self._examples = 0
        self._models = [self.number_by_model[model] for model in world.present]
        self._drawn: dict[int, tuple[list[int], float]] = {}  # by round: what could be drawn, and with what probability
        if world.warm is not None:
            reward_nk = warm_rewards(world, run.objective)
            for row in np.random.default_rng([run.seed, 3]).permutation(len(reward_nk)).tolist():
                shared = _shared(world.warm.z_np[row])
                for i, model in enumerate(self._models):
                    self._learn_example(self._lines(shared, self._models, model, -float(reward_nk[row, i]), 1.0))

    def notice(self, t: int, notice: Notice) -> None:
        """Offer a new model too; prices it learns from the costs."""
        if isinstance(notice, NewModelNotice):
            self._models = [*self._models, self.number_by_model[notice.model]]
            self._force(notice.model)

    def choose(self, t: int, row: int) -> int:
        """Draw from the probabilities it gives, or, within a budget, from those that its predictions give."""
        if self._forced:
            self._drawn[t] = (self._models, 1.0)
            return self._forced.pop()
        predicted_m = np.array(self._vw.predict(self._lines(_shared(self.world.z_np[row]), self._models)))
        if self.run.budget is None:
            share_m = np.maximum(predicted_m, 0.0) / np.maximum(predicted_m, 0.0).sum()
        else:
            cost_m = predicted_m + self.budget.penalties_k()[self._models]
            share_m = inverse_gap(cost_m, self._gamma * max(self._examples, 1) ** GAMMA_EXPONENT)
        drawn = int(self.rng.choice(len(self._models), p=share_m))
        self._drawn[t] = (self._models, float(share_m[drawn]))
        return self._models[drawn]

    def learn(self, now: int, choice: Choice, outcome: CallOutcome) -> None:
        """Learn as all do, and forget the draw."""
        super().learn(now, choice, outcome)
        del self._drawn[choice.t]

    def learn_reward(self, choice: Choice, reward: float) -> None:
        """Learn the reward with the probability at which it was drawn."""
        models, probability = self._drawn[choice.t]
        shared = _shared(self.world.z_np[choice.row])
        self._learn_example(self._lines(shared, models, choice.model, -reward, probability))

    def _learn_example(self, lines: list[str]) -> None:
        self._vw.learn(lines)
        self._examples += 1

    def _lines(
        self, shared: str, models: list[int], chosen: int = -1, cost: float = 0.0, probability: float = 1.0
    ) -> list[str]:
        labels = [f"0:{cost:.6g}:{probability:.6g} " if model == chosen else "" for model in models]
        return [shared, *(f"{label}|A m{model}" for label, model in zip(labels, models, strict=True))]


def inverse_gap(cost_m: Array, gamma: float) -> Array:
    """SquareCB's probabilities of actions of these predicted costs, (m): 1 / (m + γ·gap), the rest to the best.

    Foster and Rakhlin 2020, "Beyond UCB", algorithm 1.
    """
    best = int(np.argmin(cost_m))
    share_m: Array = 1.0 / (len(cost_m) + gamma * (cost_m - cost_m[best]))
    share_m[best] = 0.0
    share_m[best] = 1.0 - share_m.sum()
    return share_m


def list_prices(world: World, model: str) -> Prices:
    """List prices of a model: the world's; without any, its mean cost in the table as if a call had ``TOKENS_PER_CALL``."""
    if model in world.prices:
        return world.prices[model]
    cost_n = world.table.cost_nk[:, world.table.models.index(model)]
    mean = 1e-4 if np.isnan(cost_n).all() else float(np.nanmean(cost_n))
    return Prices(mean * 1e6 / TOKENS_PER_CALL, mean * 1e6 / TOKENS_PER_CALL)


class _Identity:
    """A stand-in for a fitted projection where features are ready-made: what ``generate_warmup_priors`` asks of one."""

    whiten = True

    def __init__(self, dim: int) -> None:
        self.n_components_ = dim

    def transform(self, x_nd: Array) -> Array:
        """The same features."""
        return x_nd


def _with_priors(world: World, run: Run, create: Any) -> Any:
    """What ``create`` makes of the path of priors from the warm start, made by the package's own function, or of "none"."""
    if world.warm is None:
        return create("none")
    package = importlib.import_module("pareto_bandit")
    content_np = world.warm.z_np[:, :-1]  # it adds the intercept itself
    rewards = warm_rewards(world, run.objective)
    names = [f"prompt {i}" for i in range(len(rewards))]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "priors.joblib")
        package.generate_warmup_priors(
            [
                {"prompt": name, "rewards": dict(zip(world.present, reward_k.tolist(), strict=True))}
                for name, reward_k in zip(names, rewards, strict=True)
            ],
            encoder_model="precomputed",
            pca=_Identity(content_np.shape[1]),
            precomputed_raw_embeddings={
                hashlib.sha256(name.encode()).hexdigest(): x_d for name, x_d in zip(names, content_np, strict=True)
            },
            output_path=path,
        )
        return create(str(path))


def _registry_entry(prices: Prices) -> dict[str, float]:
    return {"input_cost_per_m": prices.input_per_million, "output_cost_per_m": prices.output_per_million}


def _shared(z_p: Array) -> str:
    """The features as Vowpal Wabbit reads them; it adds the intercept itself."""
    nonzero = np.flatnonzero(z_p[:-1])
    return "shared |S " + " ".join(f"{i}:{z_p[i]:.5g}" for i in nonzero.tolist())
