"""Policies and settings are parsed once, at the edge; what was parsed says what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pointsman.simulator.cli.settings import SimulateSettings, read_recorded_settings
from pointsman.simulator.cli.simulate import simulate
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.policies.registry import ONLINE, POLICIES, is_online, parse_policy, policy_names


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("uniform", "uniform", ()),
        ("cascade", "cascade", ()),
        ("cascade:0.7", "cascade", (("quality", 0.7),)),
        ("length-rule:200", "length-rule", (("tokens", 200.0),)),
        ("fixed:vendor/large", "fixed", (("model", "vendor/large"),)),
        ("fixed:odd:name", "fixed", (("model", "odd:name"),)),
        (
            "thompson:exploration_floor=5e-2:half_life=500",
            "thompson",
            (("exploration_floor", 0.05), ("half_life", 500.0)),
        ),
    ],
)
def test_a_policy_is_a_name_and_settings_and_its_text(
    text: str, name: str, settings: tuple[tuple[str, float | str], ...]
) -> None:
    spec = parse_policy(text)
    assert (spec.name, spec.settings, str(spec)) == (name, settings, text)
    assert parse_policy(text) == spec and hash(parse_policy(text)) == hash(spec)
    assert dict(settings).keys() == {key for key, _ in spec.settings}


@pytest.mark.parametrize(
    "text", ["", "fixed", "uniform:", "task-lp:1", "Thompson", "thompson:", "cascade:", "cascade:nan"]
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(SettingError, match="expected"):
        parse_policy(text)


def test_the_registry_knows_what_decides_round_by_round() -> None:
    specs = {name: parse_policy("fixed:m" if name == "fixed" else name) for name in POLICIES}
    assert {name for name, spec in specs.items() if is_online(spec)} == set(ONLINE)
    assert policy_names("M")[policy_names("M").index("cascade") + 1] == "fixed:M"
    assert len(policy_names("M")) == len(set(policy_names("M"))) == len(POLICIES)


def test_every_option_of_the_command_is_a_setting_with_the_same_default() -> None:
    options = {option.name: option for option in simulate.params if option.expose_value}
    settings = SimulateSettings()
    assert set(options) == set(SimulateSettings.__dataclass_fields__)
    context = simulate.make_context("simulate", [])
    assert context.params == {name: getattr(settings, name) for name in options}


def test_a_recorded_run_has_its_settings(tmp_path: Path) -> None:
    world = tmp_path / "tiny.yaml"
    world.write_text("rounds: 30\nmodels: {a: {quality: 0.4, cost: 0.001}, b: {quality: 0.8, cost: 0.01}}\n")
    arguments = ["--world", str(world), "--policy", "uniform,cascade:0.5", "--seeds", "2", "--delay", "3"]
    done = CliRunner().invoke(simulate, [*arguments, "--jobs", "1", "--json", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    recorded = read_recorded_settings(tmp_path / "out" / "run.json")
    settings = SimulateSettings(world_files=str(world), policy="uniform,cascade:0.5", seeds=2, delay=3)
    assert recorded == settings.recorded()
    assert not recorded.keys() & {"out", "as_json", "jobs", "executor"}
    again = CliRunner().invoke(simulate, ["--config", str(tmp_path / "out" / "run.json"), "--jobs", "1", "--json"])
    assert json.loads(again.output) == json.loads(done.output)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"options": 3}'])
def test_a_file_that_is_no_record(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(SettingError, match=r"expected the run\.json of an earlier run"):
        read_recorded_settings(path)
