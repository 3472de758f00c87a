"""The sidecar's configuration, in a real Envoy with a miniature worker behind it."""

from __future__ import annotations

import asyncio
import gzip
import io
import shutil
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.api import httpbody_pb2

from door import Door, config, health, logged, opened, raw, rich_status
from fake_hub import ROWS, Keys, serve
from harness import PATIENCE, folder, free_port
from penstock.api.v1 import customers_service_pb2 as api
from penstockd import resources
from penstockd.node.envoy import Envoy, render_config, validate_config, write_config
from penstockd.node.errors import ConfigRefused, PortInUse

TEMPLATES = sorted(resources.envoy_templates().glob("*.j2"))


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
async def test_envoy_takes_every_file(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "envoy.yaml"
    write_config(config(tmp_path, template), path)
    await validate_config(path)


async def test_envoy_refuses_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "envoy.yaml"
    text = render_config(config(tmp_path))
    path.write_text(text.replace("convert_grpc_status", "convert_grpc_state"))
    with pytest.raises(ConfigRefused, match="convert_grpc_state"):
        await validate_config(path)


async def test_a_start_with_a_broken_file_tells_the_reason() -> None:
    """A start does not read the file twice, but still reports the reason."""
    with folder() as here:
        shutil.copytree(resources.envoy_templates(), here / "envoy")
        template = here / "envoy" / "sidecar.yaml.j2"
        template.write_text(
            template.read_text().replace("convert_grpc_status", "convert_no_status")
        )
        envoy = Envoy(config(here, template), here / "envoy.yaml")
        await envoy.start()
        try:
            with pytest.raises(ConfigRefused, match="convert_no_status"):
                await envoy.ready(PATIENCE)
            with pytest.raises(ConfigRefused, match="convert_no_status"):
                await envoy.start()
        finally:
            await envoy.stop()


async def test_a_template_names_only_what_there_is(tmp_path: Path) -> None:
    template = tmp_path / "broken.j2"
    template.write_text("port: {{ prot }}")
    with pytest.raises(ConfigRefused, match="prot"):
        render_config(config(tmp_path, template))


async def test_a_value_cannot_leave_its_place(tmp_path: Path) -> None:
    issuer = 'a"\n  b: {{ c }} # \\'
    path = tmp_path / "envoy.yaml"
    write_config(replace(config(tmp_path), issuer=issuer), path)
    await validate_config(path)


async def test_a_port_in_use_is_said_before_envoy_starts(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.port))
        taken.listen()
        with pytest.raises(PortInUse, match=f"127.0.0.1:{settings.port}.*PENSTOCK_PORT"):
            await Envoy(settings, tmp_path / "envoy.yaml").start()


async def test_rest_is_transcoded_without_grpc_headers(door: Door) -> None:
    status, headers, body = await door.call("GET", "/v1/customers/c1", token=door.keys.token())
    assert status == 200
    assert (body["customerId"], len(body["name"])) == ("c1", 2000)
    leaked = [name for name in headers if name.lower().startswith(("grpc-", "x-envoy-"))]
    assert leaked == []
    assert headers["x-request-id"] == door.hub.metadata["x-request-id"]


async def test_an_error_of_the_hub_keeps_its_details(door: Door) -> None:
    status, headers, body = await door.call("GET", "/v1/customers/missing")
    assert status == 404
    assert body["details"][0]["reason"] == "RECORD_NOT_FOUND"
    assert headers["x-request-id"]
    assert "grpc-status" not in headers


@pytest.mark.parametrize("query", ["customer_id=evil", "customerId=evil"])
async def test_a_query_parameter_does_not_override_the_path(door: Door, query: str) -> None:
    status, _, _ = await door.call("GET", f"/v1/customers/c1?{query}")
    assert status == 400
    path = f"/v1/customers/c1?customer.{query}"
    status, _, _ = await door.call("PATCH", path, json={"name": "n"})
    assert status == 400


async def test_a_key_may_hold_a_slash(door: Door) -> None:
    reply = await raw(door, "GET /v1/customers/a%2Fb HTTP/1.1")
    assert b'"customerId":"a/b"' in reply


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nowhere", None, 404, 5),
        ("PUT", "/v1/customers", None, 404, 5),
        ("GET", "/v1/customers?nofield=1", None, 400, 3),
        ("POST", "/v1/customers", "{bad", 400, 3),
        ("POST", "/v1/customers", '{"name":"' + "x" * (17 << 20) + '"}', 413, 3),
    ],
)
async def test_envoys_own_errors_look_like_the_hubs(
    door: Door, method: str, path: str, body: str | None, status: int, code: int
) -> None:
    data = None if body is None else io.BytesIO(body.encode())
    # The sidecar would buffer no body of a caller that the hub does not know.
    known = {"x-api-key": "known"}
    got, headers, reply = await door.call(method, path, data=data, headers=known)
    assert got == status
    assert reply["code"] == code
    assert reply["message"]
    details = {detail["@type"].rpartition(".")[2]: detail for detail in reply["details"]}
    assert details["RequestInfo"]["requestId"] == headers["x-request-id"]
    assert details["Help"]["links"][0]["url"].endswith(details["ErrorInfo"]["reason"])
    assert door.hub.calls == 0


async def test_a_bad_token_names_nobody_and_is_the_hubs_to_deny(door: Door) -> None:
    now = int(time.time())
    bad = [
        "abc",
        door.keys.token(exp=now - 100),
        door.keys.token(exp=None),
        door.keys.token(aud="another"),
        door.keys.token(iss="another"),
        door.keys.token(nbf=now + 1000),
        Keys().token(),
    ]
    for number, token in enumerate(bad, 1):
        _, headers, _ = await door.call("GET", "/v1/customers/c1", token=token)
        assert door.hub.calls == number, "the hub must see the call, to audit it"
        assert door.hub.metadata["authorization"] == f"Bearer {token}"
        assert (await logged(door, headers["x-request-id"]))["sub"] is None
    _, headers, _ = await door.call("GET", "/v1/customers/c1", token=door.keys.token())
    assert (await logged(door, headers["x-request-id"]))["sub"] == "crm"


async def test_a_call_without_a_token_is_the_hubs_to_decide(door: Door) -> None:
    headers = {"x-api-key": "key"}
    status, _, _ = await door.call("GET", "/v1/customers", headers=headers)
    assert (status, door.hub.metadata["x-api-key"]) == (200, "key")
    token = door.keys.token()
    await door.call("GET", "/v1/customers", token=token)
    assert door.hub.metadata["authorization"] == f"Bearer {token}"
    # A token in the query is not accepted, and is not a parameter of the method either.
    status, _, _ = await door.call("GET", f"/v1/customers?access_token={token}")
    assert status == 400


async def test_callers_cannot_speak_for_the_sidecar(door: Door) -> None:
    spoofed = {
        "x-envoy-original-path": "/evil",
        "x-envoy-original-method": "EVIL",
        "x-envoy-external-address": "6.6.6.6",
        "x-envoy-internal": "true",
        "x-envoy-retry-on": "5xx",
        "x-forwarded-for": "6.6.6.6",
        "x-request-id": "evil",
        "x-http-status": "299",
    }
    await door.stub().GetCustomer(
        api.GetCustomerRequest(customer_id="g"), metadata=list(spoofed.items())
    )
    got = {name: door.hub.metadata.get(name) for name in spoofed}
    assert got.pop("x-envoy-external-address") == "127.0.0.1"
    assert got.pop("x-forwarded-for") != "6.6.6.6"
    assert got.pop("x-request-id") not in (None, "evil")
    assert set(got.values()) == {None}
    _, headers, _ = await door.call("GET", "/v1/customers/c1?fields=name", headers=spoofed)
    assert door.hub.metadata["x-envoy-original-path"] == "/v1/customers/c1?fields=name"
    assert headers["x-request-id"] != "evil"


@pytest.mark.parametrize(
    ("form", "status", "answer"),
    [
        ("grant_type=client_credentials&secret=right", 200, None),
        ("grant_type=client_credentials&secret=wrong", 401, "invalid_client"),
        ("grant_type=client_credentials", 400, "invalid_request"),
    ],
)
async def test_the_token_endpoint_has_http_statuses(
    door: Door, form: str, status: int, answer: str | None
) -> None:
    # Even with an invalid token: the endpoint is public.
    got, headers, body = await door.call("POST", "/oauth2/token", data=form, token="abc")
    assert (got, body.get("error")) == (status, answer)
    assert headers["cache-control"] == "no-store"
    assert "x-http-status" not in headers
    if status == 200:
        assert body["form"] == form


async def test_public_paths_answer_anybody(door: Door) -> None:
    status, _, body = await door.call("GET", "/.well-known/jwks.json", token="abc")
    assert (status, len(body["keys"])) == (200, 1)


async def test_an_export_streams_and_compresses_text(door: Door) -> None:
    status, headers, body = await door.call("GET", "/v1/customers:export")
    assert (status, headers["content-type"]) == (200, "text/csv")
    assert body.count(b"\n") == ROWS + 1
    for codec in ("gzip", "br", "zstd"):
        line = "GET /v1/customers:export HTTP/1.1"
        reply = await raw(door, line, f"Accept-Encoding: {codec}")
        assert f"content-encoding: {codec}\r\n".encode() in reply
        assert len(reply) < len(body) // 10
    async with door.http.get(
        door.envoy.config.url + "/v1/customers:export",
        headers={"accept-encoding": "gzip"},
        auto_decompress=False,
    ) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(await packed.read()) == body


async def test_grpc_is_left_alone(door: Door) -> None:
    stub = door.stub()
    call = stub.StreamExportCustomers(api.StreamExportCustomersRequest())
    frames = [frame async for frame in call]
    assert frames[0] == httpbody_pb2.HttpBody(content_type="text/csv", data=b"customer_id,name\n")
    assert sum(frame.data.count(b"\n") for frame in frames) == ROWS + 1
    assert "content-encoding" not in dict(await call.initial_metadata())


async def test_grpc_web_is_served(door: Door) -> None:
    message = api.GetCustomerRequest(customer_id="w").SerializeToString()
    status, headers, body = await door.call(
        "POST",
        "/penstock.api.v1.Customers/GetCustomer",
        data=b"\0" + len(message).to_bytes(4, "big") + message,
        headers={"content-type": "application/grpc-web+proto"},
    )
    assert (status, headers["content-type"]) == (200, "application/grpc-web+proto")
    assert b"w" in body
    assert b"grpc-status:0" in body.replace(b" ", b"")


async def test_an_error_in_mid_stream_is_in_the_trailers(door: Door) -> None:
    reply = await raw(door, "GET /v1/customers:export?format=fail HTTP/1.1")
    assert reply.startswith(b"HTTP/1.1 200")
    assert reply.rstrip().endswith(b"grpc-message: the database went away")
    assert b"grpc-status: 14" in reply


async def test_an_upload_is_streamed(door: Door) -> None:
    size = 40 << 20  # more than one message, or the transcoder's buffer, may hold

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size >> 16):
            yield b"x" * (1 << 16)

    status, _, body = await door.call(
        "POST",
        "/v1/customers:import?format=CSV",
        data=chunks(),
        headers={"content-type": "text/csv"},
    )
    assert (status, body["rowCount"]) == (200, str(size))


async def test_the_access_log_names_the_caller_and_no_query(door: Door) -> None:
    path = "/v1/customers?filter=private"
    _, headers, _ = await door.call("GET", path, token=door.keys.token())
    entry = await logged(door, headers["x-request-id"])
    assert (entry["sub"], entry["path"], entry["method"]) == ("crm", "/v1/customers", "GET")
    assert (entry["status"], entry["grpc_status"], entry["client"]) == (200, "OK", "127.0.0.1")
    assert "private" not in door.envoy.config.access_log.read_text()


async def test_healthz_follows_the_workers() -> None:
    async with opened() as door:
        second = door.envoy.config.worker_sockets[1]
        async with serve(door.hub, second):
            await health(door, 200)
        await health(door, 200)  # one of two is enough
        status, _, _ = await door.call("GET", "/healthz", token="abc")
        assert status == 200


async def test_no_worker_is_said_in_json(door: Door) -> None:
    # A door without a hub behind it.
    config_ = replace(door.envoy.config, port=free_port(), worker_sockets=[door.folder / "no"])
    sockets = door.folder / "other"
    sockets.mkdir()
    alone = Envoy(replace(config_, sockets=sockets, logs=sockets), sockets / "envoy.yaml")
    await alone.start()
    try:
        other = replace(door, envoy=alone)
        await health(other, 503)
        status, headers, body = await other.call("GET", "/v1/customers")
        assert (status, body["code"]) == (503, 14)
        assert body["details"][0]["reason"] == "HUB_UNAVAILABLE"
        assert headers["x-request-id"] in str(body["details"])
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await other.stub().ListCustomers(api.ListCustomersRequest())
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "{" not in str(error.value.details())
        status_ = rich_status(error.value)
        assert "HUB_UNAVAILABLE" in str(status_) and status_.code == 14
    finally:
        await alone.stop(0)


async def test_stopping_lets_calls_under_way_finish() -> None:
    async with opened() as door:
        slow = asyncio.create_task(door.call("GET", "/v1/customers/slow"))
        await door.hub.slow.wait()
        await door.envoy.stop(PATIENCE)
        status, _, body = await slow
    assert (status, body["customerId"]) == (200, "slow")
