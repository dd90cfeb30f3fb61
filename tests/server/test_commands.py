"""Commands and their configuration."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pointsman.cli import main
from pointsman.server.cli.setting_options import setting_options
from pointsman.server.process.config import PREFIX, Config, ConfigError, load
from tests.server.conftest import Service


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def data(run: object, tmp_path: Path) -> Path:
    """A data directory with ten decisions, nine of which have an outcome."""

    async def scenario(service: Service) -> None:
        for i in range(10):
            decision = await service.decide()
            if i:
                await service.report(decision.name, quality=i / 10, cost_usd=0.001)

    run(scenario)  # type: ignore[operator]
    return tmp_path


def test_help_lists_the_commands() -> None:
    for name in ("serve", "simulate", "export", "verify"):
        assert name in call("--help").output
        assert call(name, "--help").exit_code == 0


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_exporting_decisions(data: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    done = call("export", "--data", str(data), "--to", str(path), "--what", "decisions", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["rows"] == 10
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda p: pd.read_json(p, lines=True)}[
        suffix
    ]
    table = readers(path)
    assert table["quality"].notna().sum() == 9
    assert table["quality"].sum() == pytest.approx(4.5)
    assert ((table["propensity"] > 0) & (table["propensity"] <= 1)).all()
    assert {"decision", "bucket", "model", "x/0", "x/1", "quality_mean/a", "cost/c/d", "p/c/d"} <= set(table.columns)
    whole = table[[column for column in table.columns if column.startswith("p/")]]
    assert (whole.sum(axis=1) - 1.0).abs().max() < 1e-6
    for _, row in table.iterrows():
        assert row[f"p/{row['model'].removeprefix('models/')}"] == pytest.approx(row["propensity"], abs=1e-7)


def test_exporting_the_journal(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert call("export", "--data", str(data), "--to", str(path)).exit_code == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [int(line["position"]) for line in lines] == list(range(1, 4 + 1 + 19))
    kinds = {next(k for k in line["event"] if k != "time_ns") for line in lines}
    assert kinds == {"model_put", "bucket_put", "decision_made", "outcome_applied"}


def test_export_usage_errors(tmp_path: Path) -> None:
    assert call("export", "--data", str(tmp_path), "--to", "x.xls").exit_code == 2
    assert call("export", "--data", str(tmp_path), "--to", "x.csv", "--what", "journal").exit_code == 2
    assert call("export", "--data", str(tmp_path)).exit_code == 2
    missing = call("export", "--data", str(tmp_path / "none"), "--to", str(tmp_path / "x.csv"))
    assert missing.exit_code == 1
    assert "no journal" in missing.output


def test_verify(data: Path) -> None:
    done = call("verify", "--data", str(data), "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["equal"]


def test_where_settings_come_from(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("# settings\ndata: here\nlisten: 127.0.0.1:1\nseed: 5\n")
    environment = {"POINTSMAN_LISTEN": "127.0.0.1:2", "POINTSMAN_SEED": "6", "POINTSMAN_UNRELATED": "x"}
    config = load(file, environment, {"seed": 7, "data": None})
    assert config == Config(data=Path("here"), listen="127.0.0.1:2", seed=7)
    assert load(None, {}, {}) == Config()
    (tmp_path / "empty.yaml").write_text("")
    assert load(tmp_path / "empty.yaml", {}, {}) == Config()


def test_every_setting_is_a_line_of_the_file_a_variable_and_an_option(tmp_path: Path) -> None:
    """The same comes out whichever way a setting is given; a variable wins over the file, an option over both."""
    pairs = {
        "data": ("here", "there"),
        "listen": ("127.0.0.1:1", "127.0.0.1:2"),
        "workers": ("3", "4"),
        "seed": ("7", "8"),
        "http": ("localhost:3", "localhost:4"),
        "traces": ("true", "false"),
        "log_format": ("json", "text"),
        "log_level": ("error", "debug"),
        "insecure": ("true", "false"),
        "tls_cert": ("c", "d"),
        "tls_key": ("k", "l"),
        "tls_client_ca": ("r", "s"),
        "api_keys": ("a", "b"),
        "drain_seconds": ("1.5", "2.5"),
        "snapshot_every": ("9", "10"),
        "retention_days": ("4", "5"),
    }
    assert set(pairs) == set(Config.model_fields)
    file = tmp_path / "settings.yaml"
    for name in pairs:
        names = [key for key in pairs if key.startswith("tls")] if name.startswith("tls") else [name]
        values, others = ({key: pairs[key][i] for key in names} for i in (0, 1))
        expected, other = Config.model_validate(values), Config.model_validate(others)
        assert expected not in (other, Config())
        variables = {PREFIX + key.upper(): value for key, value in values.items()}
        other_variables = {PREFIX + key.upper(): value for key, value in others.items()}
        file.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
        assert load(file, {}, {}) == expected
        assert load(None, variables, {}) == load(None, {}, options(values)) == expected
        assert load(file, other_variables, {}) == other
        file.write_text("".join(f"{key}: {value}\n" for key, value in others.items()))
        assert load(file, other_variables, options(values)) == expected


def options(settings: dict[str, str]) -> dict[str, object]:
    """What a command gets that is called with ``settings`` as options."""
    parsed: dict[str, object] = {}

    @click.command()
    @setting_options(Config, PREFIX)
    def command(**values: object) -> None:
        parsed.update(values)

    words: list[str] = []
    for name, value in settings.items():
        words += ["--" + name.replace("_", "-"), *([] if value == "true" else [value])]
    command(words, standalone_mode=False)
    return parsed


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [name for name in Config.model_fields if f"`{name}`" not in text] == []


def test_help_names_every_option_with_its_variable_and_default() -> None:
    text = CliRunner().invoke(main, ["serve", "--help"], terminal_width=400, max_content_width=400).output
    for name, field in Config.model_fields.items():
        default = "" if field.default is None or field.default is False else f"; default: {field.default}"
        assert f"--{name.replace('_', '-')} " in text
        assert f"{field.description}  [env: POINTSMAN_{name.upper()}{default}]\n" in text
    assert "--listen HOST:PORT" in text and "--http HOST:PORT" in text


@pytest.mark.parametrize(
    ("text", "environment", "flags", "message"),
    [
        ("data: x\nlissen: y\n", {}, {}, "line 2: lissen"),
        ("listen: nowhere\n", {}, {}, "line 1: listen"),
        ("[1]\n", {}, {}, "line 1"),
        ("a: [\n", {}, {}, "line 2: is not YAML"),
        ("seed: 1\nlisten: 127.0.0.1:1\nseed: 2\n", {}, {}, "line 3: seed: is already given at line 1"),
        ("", {"POINTSMAN_SEED": "many"}, {}, "POINTSMAN_SEED"),
        ("", {}, {"drain_seconds": -1.0}, "--drain-seconds"),
    ],
)
def test_a_wrong_setting_is_named(
    tmp_path: Path, text: str, environment: dict[str, str], flags: dict[str, object], message: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(file, environment, flags)
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path / "none.yaml", {}, {})


def test_serve_usage_errors(tmp_path: Path) -> None:
    assert call("serve", "--listen", "nowhere").exit_code == 2
    assert call("serve", "--config", str(tmp_path / "none.yaml")).exit_code == 2
    (tmp_path / "file").write_text("x")
    refused = call("serve", "--data", str(tmp_path / "file"), "--listen", "127.0.0.1:0")
    assert refused.exit_code == 1
    assert "cannot use the data directory" in refused.output
