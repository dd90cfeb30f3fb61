"""The base alone, and extras that are missing or incomplete. Environments borrow what this one has: no index is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pointsman.commands import COMMANDS
from tests.packaging.conftest import ROOT
from tests.packaging.environment import Environment, closure, without

pytestmark = pytest.mark.xdist_group("packaging")  # one build, and one set of environments

IMPORTED = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names)))"
HELP = f"from pointsman.cli import main; main(['--help'], standalone_mode=False); {IMPORTED}"
CLIENT = f"""
from pointsman import SERVICE_CONFIG, Client, Decision, Refusal, Tls, aio
from pointsman.v1 import catalog_service_pb2_grpc, insight_service_pb2_grpc, journal_pb2, router_service_pb2_grpc
Client("127.0.0.1:1").close()
{IMPORTED}
"""

TABLE = """
import sys
from pathlib import Path
from pointsman.cli import main
from pointsman.server.journal.sqlite_store import SqliteStore
SqliteStore(Path(sys.argv[1]) / "data").close()
data = ["--data", sys.argv[1] + "/data"]
main(["export", *data, "--to", sys.argv[1] + "/events.jsonl"], standalone_mode=False)
main(["export", *data, "--to", sys.argv[1] + "/table.csv"])
"""


def last_line(output: str) -> set[str]:
    return set(json.loads(output.splitlines()[-1]))


def test_the_base_is_small() -> None:
    assert closure(["pointsman"]) == {"pointsman", "click", "grpcio", "protobuf", "typing-extensions"}


def test_help_lists_every_command_and_imports_none(base: Environment) -> None:
    done = base.run("-c", HELP)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert last_line(done.stdout) - {"__main__", "_virtualenv"} == {"click", "pointsman"}


def test_the_client_needs_the_base_only(base: Environment) -> None:
    done = base.run("-c", CLIENT)
    assert done.returncode == 0, done.stderr
    assert {"grpc", "google", "pointsman"} <= last_line(done.stdout)
    assert base.run("-c", "import google.rpc").returncode == 1


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if entry.extra])
def test_a_command_without_its_extra_names_it(base: Environment, name: str) -> None:
    done = base.pointsman(name, "--help")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {name}: ")
    assert done.stderr.endswith(f" not installed: pip install 'pointsman[{COMMANDS[name].extra}]'\n")


def test_a_wrong_command_and_the_version_need_no_extra(base: Environment) -> None:
    assert base.pointsman("swerve").returncode == 2
    assert "No such command" in base.pointsman("swerve").stderr
    assert base.run("-m", "pointsman", "--version").stdout.startswith("pointsman, version ")


def test_the_base_writes_the_contract(base: Environment, tmp_path: Path) -> None:
    done = base.pointsman("contract", "--to", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    written = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    protos = {
        f"protos/{path.relative_to(ROOT / 'protos')}": path.read_bytes() for path in (ROOT / "protos").rglob("*.proto")
    }
    assert len(protos) > 5
    others = {
        name: (ROOT / "pointsman" / name).read_bytes() for name in ("service_config.json", "catalog.example.yaml")
    }
    assert written == protos | others
    (tmp_path / "file").touch()
    failed = base.pointsman("contract", "--to", str(tmp_path / "file" / "below"))
    assert (failed.returncode, "Traceback" in failed.stderr) == (1, False)


@pytest.mark.parametrize("leave_folders", [False, True])
@pytest.mark.parametrize(
    ("command", "absent"), [("serve", "pydantic"), ("catalog", "rich"), ("serve", "googleapis-common-protos")]
)
def test_an_incomplete_extra_is_named(service: Environment, command: str, absent: str, leave_folders: bool) -> None:
    with without(service, absent, leave_folders):
        done = service.pointsman(command, "--help")
    assert done.returncode == 2
    assert done.stderr.endswith("is not installed: pip install 'pointsman[server]'\n")
    assert done.stderr.count("\n") == 1
    assert service.pointsman(command, "--help").returncode == 0


def test_what_a_package_of_an_extra_needs_is_named_too(service: Environment) -> None:
    with without(service, "annotated-types"):  # pydantic's
        done = service.pointsman("keys", "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: keys: annotated-types is not installed: pip install 'pointsman[server]'\n"


def test_the_service_without_the_simulator_exports_events_and_says_what_tables_need(
    service: Environment, tmp_path: Path
) -> None:
    done = service.run("-c", TABLE, str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert done.stderr == "Error: export: pandas is not installed: pip install 'pointsman[simulator]'\n"
    assert (tmp_path / "events.jsonl").exists()
