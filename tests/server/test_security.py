"""Encryption, API keys and what a key may do, on real channels."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from click.testing import CliRunner
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pointsman import Client, Tls
from pointsman.server.cli.keys import keys as keys_command
from pointsman.server.guards.api_keys import SCOPES, KeysError, new_key, read_keys, write_keys
from pointsman.server.guards.auth import AuthInterceptor, scope_of
from pointsman.server.guards.keyring import Keyring
from pointsman.server.guards.tls import Certificates, TlsError
from pointsman.server.journal.sqlite import SqliteJournal
from pointsman.server.process.config import ConfigError, load
from pointsman.server.state.replica import open_replica
from pointsman.v1 import catalog_service_pb2 as cat
from pointsman.v1 import (
    catalog_service_pb2_grpc,
    insight_service_pb2,
    insight_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)
from tests.processes import WAIT, Serve, refused_start, run_python
from tests.server.conftest import serving

SERVICES = (
    (router_service_pb2, router_service_pb2_grpc, "RouterService"),
    (cat, catalog_service_pb2_grpc, "CatalogService"),
    (insight_service_pb2, insight_service_pb2_grpc, "InsightService"),
)
METHODS = [
    (f"/pointsman.v1.{name}/{method.name}", method)
    for module, _, name in SERVICES
    for method in module.DESCRIPTOR.services_by_name[name].methods
]
DENIED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED}
Scenario = Callable[[grpc.aio.Channel, list[int]], Any]
LIST = "/pointsman.v1.CatalogService/ListModels"
KEYS = "from pointsman.server.cli.keys import keys; keys()"


def guarded(tmp_path: Path, scenario: Scenario) -> None:
    """Run a scenario against a service that asks for the keys of `keys.yaml`, with a clock to set."""

    async def go() -> None:
        clock = [10**18]
        replica = await open_replica(SqliteJournal(tmp_path / "data"), np.random.default_rng(0), lambda: clock[0], None)
        auth = AuthInterceptor(Keyring(tmp_path / "keys.yaml", lambda: clock[0]), lambda: clock[0])
        async with serving(replica, auth=auth) as address, grpc.aio.insecure_channel(address) as channel:
            await scenario(channel, clock)

    asyncio.run(go())


def make(path: Path, *entries: tuple[str, tuple[str, ...], float | None]) -> list[str]:
    """A file of keys; the keys themselves."""
    keys = [new_key(*entry) for entry in entries]
    write_keys(path, [key for key, _ in keys])
    return [token for _, token in keys]


async def code_of(
    channel: grpc.aio.Channel, method: str, *authorization: str, streaming: bool = False
) -> tuple[grpc.StatusCode, str]:
    """What an empty message to a method gets: the code and the reason."""
    metadata = [("authorization", value) for value in authorization]
    try:
        if streaming:
            call = channel.unary_stream(method)(b"", metadata=metadata, timeout=WAIT)
            await call.initial_metadata()  # comes at once where the stream is let in, else with the refusal
            await channel.unary_unary("/grpc.health.v1.Health/Check")(
                b"", timeout=WAIT
            ).code()  # a refusal is known by now
            if call.done():
                await call.read()
            call.cancel()  # it may go on for ever
        else:
            await channel.unary_unary(method)(b"", metadata=metadata, timeout=WAIT)
    except grpc.aio.AioRpcError as error:
        return error.code(), _reason(error)
    return grpc.StatusCode.OK, ""


def _reason(error: grpc.aio.AioRpcError) -> str:
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    return ""


def test_every_method_asks_for_its_scope_and_no_other_will_do(tmp_path: Path) -> None:
    tokens = dict(zip(SCOPES, make(tmp_path / "keys.yaml", *((s, (s,), None) for s in SCOPES)), strict=True))

    async def scenario(channel: grpc.aio.Channel, clock: list[int]) -> None:
        for method, descriptor in METHODS:
            needed = scope_of(method)
            assert needed in SCOPES, method
            for scope, token in tokens.items():
                code, reason = await code_of(channel, method, f"Bearer {token}", streaming=descriptor.server_streaming)
                if scope == needed:
                    assert code not in DENIED, (method, scope, code)
                else:
                    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"), (method, scope)

    guarded(tmp_path, scenario)


def test_health_is_open_and_reflection_wants_a_key(tmp_path: Path) -> None:
    (token,) = make(tmp_path / "keys.yaml", ("a", ("report",), None))

    async def scenario(channel: grpc.aio.Channel, clock: list[int]) -> None:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="x.y"), timeout=WAIT)

    async def look(channel: grpc.aio.Channel, *metadata: tuple[str, str]) -> int:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), metadata=metadata, timeout=WAIT
        )
        return len([answer async for answer in call])

    async def both(channel: grpc.aio.Channel, clock: list[int]) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await scenario(channel, clock)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # an unknown service, not an unknown caller
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await look(channel)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await look(channel, ("authorization", f"Bearer {token}")) == 1

    guarded(tmp_path, both)


def test_unknown_keys_are_refused_and_secrets_not_echoed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (token,) = make(tmp_path / "keys.yaml", ("a", SCOPES, None))
    method = "/pointsman.v1.CatalogService/ListModels"
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    unknown = "pk_0123456789abcdef_" + "x" * 43

    async def scenario(channel: grpc.aio.Channel, clock: list[int]) -> None:
        assert (await code_of(channel, method, f"Bearer {token}"))[0] is grpc.StatusCode.OK
        assert (await code_of(channel, method, f"bearer {token}"))[0] is grpc.StatusCode.OK
        for header in (
            (),
            ("",),
            ("Bearer",),
            ("Bearer ",),
            (token,),
            (f"Basic {token}",),
            (f"Bearer {wrong}",),
            (f"Bearer {unknown}",),
            ("Bearer " + "x" * 4000,),
            (f"Bearer {token}", f"Bearer {token}"),
            (f"Bearer {token} ",),
        ):
            assert await code_of(channel, method, *header) in (
                (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
                (grpc.StatusCode.OK, "") if header == (f"Bearer {token} ",) else None,  # HTTP/2 may trim the end
            ), header
        code, _ = await code_of(channel, method, "Bearer " + "x" * 100_000)
        assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED)

    with caplog.at_level(logging.DEBUG):
        guarded(tmp_path, scenario)
    secret = token.split("_", 2)[2]
    assert secret not in caplog.text and secret not in (tmp_path / "keys.yaml").read_text()


def test_a_key_is_held_to_its_rate(tmp_path: Path) -> None:
    slow, fast = make(tmp_path / "keys.yaml", ("slow", SCOPES, 2.0), ("fast", SCOPES, None))
    method = "/pointsman.v1.CatalogService/ListModels"

    async def scenario(channel: grpc.aio.Channel, clock: list[int]) -> None:
        async def calls(token: str, count: int) -> list[str]:
            return [(await code_of(channel, method, f"Bearer {token}"))[1] for _ in range(count)]

        assert await calls(slow, 3) == ["", "", "RATE_LIMITED"]
        assert await calls(fast, 10) == [""] * 10
        clock[0] += 500_000_000
        assert await calls(slow, 2) == ["", "RATE_LIMITED"]
        clock[0] += 3600 * 10**9  # no more than a second's worth is saved up
        assert await calls(slow, 3) == ["", "", "RATE_LIMITED"]
        clock[0] -= 10**9  # a clock that goes back gives nothing and takes nothing
        assert await calls(slow, 1) == ["RATE_LIMITED"]

    guarded(tmp_path, scenario)


def test_refusals_do_not_reveal_keys(tmp_path: Path) -> None:
    token, narrow = make(tmp_path / "keys.yaml", ("known", SCOPES, None), ("narrow", ("report",), None))
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")

    async def scenario(channel: grpc.aio.Channel, clock: list[int]) -> None:
        for token_sent in (wrong, "pk_0123456789abcdef_" + "x" * 43, narrow):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(LIST)(b"", metadata=[("authorization", f"Bearer {token_sent}")], timeout=WAIT)
            refusal = f"{caught.value.details()} {caught.value.trailing_metadata()}"
            assert not [part for part in token_sent.split("_", 2)[1:] if part in refusal]

    guarded(tmp_path, scenario)


def test_a_rate_refusal_has_a_retry_delay(tmp_path: Path) -> None:
    (token,) = make(tmp_path / "keys.yaml", ("slow", SCOPES, 0.5))

    async def scenario(channel: grpc.aio.Channel, clock: list[int]) -> None:
        assert (await code_of(channel, LIST, f"Bearer {token}"))[0] is grpc.StatusCode.OK
        clock[0] += 500_000_000  # a quarter of a token
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(LIST)(b"", metadata=[("authorization", f"Bearer {token}")], timeout=WAIT)
        metadata: dict[str, Any] = dict(caught.value.trailing_metadata() or ())
        retry = error_details_pb2.RetryInfo()
        details = status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details
        assert [detail.Unpack(retry) for detail in details].count(True) == 1
        assert retry.retry_delay.ToMilliseconds() == 1500
        assert metadata["grpc-retry-pushback-ms"] == "1500"

    guarded(tmp_path, scenario)


def test_a_burst_bounds_simultaneous_calls(tmp_path: Path) -> None:
    key, token = new_key("bursts", SCOPES, 1.0, 3)
    write_keys(tmp_path / "keys.yaml", [key])
    assert read_keys(tmp_path / "keys.yaml") == [key]

    async def scenario(channel: grpc.aio.Channel, clock: list[int]) -> None:
        async def calls(count: int) -> list[str]:
            return [(await code_of(channel, LIST, f"Bearer {token}"))[1] for _ in range(count)]

        assert await calls(4) == ["", "", "", "RATE_LIMITED"]
        clock[0] += 10**9
        assert await calls(2) == ["", "RATE_LIMITED"]
        clock[0] += 3600 * 10**9
        assert await calls(4) == ["", "", "", "RATE_LIMITED"]

    guarded(tmp_path, scenario)
    with pytest.raises(KeysError, match="the key: burst: expected requests_per_second"):
        new_key("x", SCOPES, None, 3)


def test_a_stream_sends_nothing_more_once_its_key_is_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman.server.rpc.insight.ROWS_PER_MESSAGE", 1)
    path = tmp_path / "keys.yaml"
    writer, reader = make(path, ("writer", ("catalogue",), None), ("reader", ("insight",), None))

    async def scenario(channel: grpc.aio.Channel, clock: list[int]) -> None:
        create = channel.unary_unary(
            "/pointsman.v1.CatalogService/CreateModel", cat.CreateModelRequest.SerializeToString
        )
        for i in range(3):
            request = cat.CreateModelRequest(model={"name": f"models/m{i}"})
            await create(request, metadata=[("authorization", f"Bearer {writer}")], timeout=WAIT)

        async def exported(revoke: Callable[[], None]) -> tuple[int, grpc.StatusCode]:
            """Revoke when the interceptor is at the second of the journal's three events."""
            holds_then, checks = auth_holds, 0

            def holds(keyring: Keyring, key: Any, scope: str) -> bool:
                nonlocal checks
                checks += 1
                if checks == 2:
                    revoke()
                    clock[0] += 2 * 10**9
                return holds_then(keyring, key, scope)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Keyring, "holds", holds)
                export: Any = channel.unary_stream("/pointsman.v1.InsightService/ExportJournal")
                call = export(b"", metadata=[("authorization", f"Bearer {reader}")], timeout=WAIT)
                count = 0
                try:
                    async for _ in call:
                        count += 1
                except grpc.aio.AioRpcError as error:
                    return count, error.code()
                return count, grpc.StatusCode.OK

        auth_holds = Keyring.holds
        assert await exported(lambda: None) == (3, grpc.StatusCode.OK)
        others = [key for key in read_keys(path) if key.name != "reader"]
        assert await exported(lambda: write_keys(path, others)) == (1, grpc.StatusCode.UNAUTHENTICATED)

    guarded(tmp_path, scenario)


def test_commands_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    make(path, ("old", SCOPES, None))
    commands = (*(("new", f"n{i}", "--scope", "decide") for i in range(5)), ("revoke", "old"))
    with ThreadPoolExecutor(len(commands)) as at_once:
        ended = list(at_once.map(lambda command: run_python("-c", KEYS, *command, "--file", str(path)), commands))
    assert [process.returncode for process in ended] == [0] * 6, [process.stderr for process in ended]
    assert {key.name for key in read_keys(path)} == {f"n{i}" for i in range(5)}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_keys_is_changed_where_it_is(tmp_path: Path) -> None:
    path, link = tmp_path / "keys.yaml", tmp_path / "link.yaml"
    make(path, ("a", SCOPES, None))
    link.symlink_to(path)
    assert CliRunner().invoke(keys_command, ["revoke", "a", "--file", str(link)]).exit_code == 0
    assert link.is_symlink() and read_keys(path) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_file_of_keys_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    make(path, ("a", SCOPES, None))
    os.chown(path, 12345, 23456)
    write_keys(path, [])
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (12345, 23456, 0o600)


def test_a_revoked_key_stops_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    first, second = make(path, ("first", SCOPES, None), ("second", SCOPES, None))
    method = "/pointsman.v1.CatalogService/ListModels"

    async def scenario(channel: grpc.aio.Channel, clock: list[int]) -> None:
        async def known(token: str) -> bool:
            clock[0] += 2 * 10**9
            return (await code_of(channel, method, f"Bearer {token}"))[0] is grpc.StatusCode.OK

        assert await known(first) and await known(second)
        write_keys(path, [key for key in read_keys(path) if key.name == "second"])
        assert not await known(first)
        assert await known(second)
        path.write_text("keys: [}")
        assert await known(second)
        path.unlink()
        assert await known(second)

    guarded(tmp_path, scenario)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "expected a list `keys`"),
        ("keys: 3", "expected a list `keys`"),
        ("keys: [\n", "keys.yaml, line 2: is not acceptable YAML"),
        ("keys: []\nkeys: [secret]", "keys.yaml, line 2: is not acceptable YAML"),
        ("keys:\n- {name: a}", "keys.yaml, line 2: keys[0]: id"),
        ("keys: [{name: a}]", "keys[0]: id"),
        ("keys: [{name: a, id: 0123456789abcdef, hash: zz, scopes: [decide]}]", "hash"),
        (f"keys: [{{name: a, id: 0123456789abcdef, hash: '{'0' * 64}', scopes: [all]}}]", "expected some of decide"),
        (f"keys: [{{name: a, id: 0123456789abcdef, hash: '{'0' * 64}', scopes: []}}]", "scopes"),
    ],
)
def test_a_bad_file_of_keys_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(KeysError) as caught:
        read_keys(path)
    assert problem in str(caught.value) and "secret" not in str(caught.value)


def test_keys_are_created_listed_and_revoked(tmp_path: Path) -> None:
    path = str(tmp_path / "k.yaml")
    run = CliRunner()
    result = run.invoke(
        keys_command, ["new", "web", "--scope", "decide", "--scope", "report", "--rate", "5", "--file", path]
    )
    assert result.exit_code == 0 and result.output.startswith("pk_")
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert Keyring(Path(path), lambda: 0).find(result.output.strip()) is not None
    again = run.invoke(keys_command, ["new", "web", "--scope", "decide", "--file", path])
    assert again.exit_code == 1 and "already" in again.output
    assert run.invoke(keys_command, ["list", "--file", path]).output == "web  decide,report  at most 5/s\n"
    assert run.invoke(keys_command, ["revoke", "nobody", "--file", path]).exit_code == 1
    assert run.invoke(keys_command, ["revoke", "web", "--file", path]).exit_code == 0
    assert run.invoke(keys_command, ["list", "--file", path]).output == ""
    assert run.invoke(keys_command, ["new", "x", "--scope", "all", "--file", path]).exit_code == 2


def certificate(authority: trustme.CA, directory: Path, name: str) -> tuple[Path, Path]:
    """Files of a certificate for this machine and its key."""
    issued = authority.issue_cert("127.0.0.1", "localhost")
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


def test_encryption_with_certificates_of_both_sides(tmp_path: Path, serve: Serve) -> None:
    ours, theirs, ca = trustme.CA(), trustme.CA(), tmp_path / "ca.pem"
    ours.cert_pem.write_to_path(ca)
    other = tmp_path / "other.pem"
    theirs.cert_pem.write_to_path(other)
    cert, key = certificate(ours, tmp_path, "server")
    caller_cert, caller_key = certificate(ours, tmp_path, "caller")
    stranger_cert, stranger_key = certificate(theirs, tmp_path, "stranger")
    service = serve(tmp_path / "data", "--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(ca))

    def answer(tls: Tls | None) -> grpc.StatusCode:
        with Client(service.address, tls=tls, timeout=WAIT) as client, pytest.raises(grpc.RpcError) as caught:
            client.decide("nothing")
        code: grpc.StatusCode = caught.value.code()
        return code

    reached = grpc.StatusCode.NOT_FOUND  # the bucket, that is: the call came through
    assert answer(Tls(ca, caller_cert, caller_key)) is reached
    for refused in (None, Tls(ca), Tls(ca, stranger_cert, stranger_key), Tls(other, caller_cert, caller_key)):
        assert answer(refused) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    # a new authority: the files are replaced while the service runs
    new_cert, new_key = certificate(theirs, tmp_path, "new")
    cert.write_bytes(b"half written")
    assert answer(Tls(ca, caller_cert, caller_key)) is reached
    cert.write_bytes(new_cert.read_bytes())
    key.write_bytes(new_key.read_bytes())
    assert answer(Tls(other, caller_cert, caller_key)) is reached
    assert service.stop() == 0
    assert "keeping the former certificates" in service.said()


def test_encryption_alone_follows_its_files_too(tmp_path: Path, serve: Serve) -> None:
    authority, new_authority = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "one.pem")
    new_authority.cert_pem.write_to_path(tmp_path / "two.pem")
    cert, key = certificate(authority, tmp_path, "server")
    new_cert, new_key_file = certificate(new_authority, tmp_path, "new")
    service = serve(tmp_path / "data", "--tls-cert", str(cert), "--tls-key", str(key))

    def answer(ca: str) -> grpc.StatusCode:
        tls = Tls(tmp_path / ca)
        with Client(service.address, tls=tls, timeout=WAIT) as client, pytest.raises(grpc.RpcError) as caught:
            client.decide("nothing")
        code: grpc.StatusCode = caught.value.code()
        return code

    assert answer("one.pem") is grpc.StatusCode.NOT_FOUND
    cert.write_bytes(new_cert.read_bytes())
    key.write_bytes(new_key_file.read_bytes())
    assert answer("two.pem") is grpc.StatusCode.NOT_FOUND
    assert answer("one.pem") in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_files_that_are_written_while_they_are_read_are_not_taken_as_a_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    cert, key = certificate(authority, tmp_path, "server")
    new_cert, new_key_file = certificate(authority, tmp_path, "new")
    certificates = Certificates(cert, key)
    check = Certificates._check
    cert.write_bytes(new_cert.read_bytes())

    def late(self: Certificates, *contents: Any) -> None:
        key.write_bytes(new_key_file.read_bytes())  # after the files were read, before OpenSSL reads them
        check(self, *contents)

    monkeypatch.setattr(Certificates, "_check", late)
    assert certificates._changed() is None
    assert certificates._changed() is not None  # the next connection finds a whole pair
    assert certificates._changed() is None


def test_files_that_stay_broken_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cert, key = certificate(trustme.CA(), tmp_path, "server")
    certificates, whole = Certificates(cert, key), cert.read_bytes()
    for broken in (cert.unlink, lambda: cert.write_bytes(b"no certificate")):
        broken()
        assert [certificates._changed() for _ in range(20)] == [None] * 20
        cert.write_bytes(whole)
        assert certificates._changed() is None
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_certificates_that_do_not_fit_are_refused_at_the_start(tmp_path: Path, serve: Serve) -> None:
    authority = trustme.CA()
    cert, key = certificate(authority, tmp_path, "one")
    _, other = certificate(authority, tmp_path, "two")
    for bad in ((cert, other), (tmp_path / "none", key), (key, key)):
        with pytest.raises(TlsError):
            Certificates(*bad)
    with pytest.raises(TlsError):
        Certificates(cert, key, key)
    refused = refused_start(tmp_path / "data", "--tls-cert", str(cert), "--tls-key", str(other))
    assert refused.returncode == 1
    assert "are not a certificate and its key" in refused.stderr


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"listen": "0.0.0.0:0"}, "can be reached from other machines"),
        ({"listen": "[::]:7420"}, "can be reached"),
        ({"listen": "example.org:7420"}, "can be reached"),
        ({"tls_cert": Path("a")}, "both or neither"),
        ({"tls_client_ca": Path("a")}, "expected tls_cert"),
        ({"listen": "0.0.0.0:0", "insecure": True}, ""),
        ({"listen": "0.0.0.0:0", "tls_cert": Path("a"), "tls_key": Path("b")}, ""),
        ({"listen": "localhost:0"}, ""),
        ({"listen": "[::1]:0"}, ""),
        ({"listen": "127.8.9.10:0"}, ""),
    ],
)
def test_nothing_is_open_to_other_machines_by_default(flags: dict[str, Any], problem: str) -> None:
    if problem:
        with pytest.raises(ConfigError, match=problem):
            load(None, {}, flags)
    else:
        load(None, {}, flags)


def test_an_open_address_ends_the_command_with_2(tmp_path: Path) -> None:
    refused = refused_start(tmp_path / "data", listen="0.0.0.0:0")
    assert refused.returncode == 2 and "expected tls_cert and tls_key, or insecure" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_a_service_with_keys_starts_and_one_without_its_file_does_not(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "keys.yaml"
    (token,) = make(path, ("all", SCOPES, None))
    os.chmod(path, 0o644)
    service = serve(tmp_path / "data", "--api-keys", str(path))
    with Client(service.address, api_key=token, timeout=WAIT) as client, pytest.raises(grpc.RpcError) as caught:
        client.decide("nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with Client(service.address, api_key="pk_x_y", timeout=WAIT) as client, pytest.raises(grpc.RpcError) as caught:
        client.decide("nothing")
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert service.stop() == 0
    assert "can be read by users other than its owner" in service.said() and token not in service.said()
    missing = refused_start(tmp_path / "more", "--api-keys", str(tmp_path / "none.yaml"))
    assert missing.returncode == 1 and "cannot read" in missing.stderr
