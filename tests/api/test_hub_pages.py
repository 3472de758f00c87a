"""Lists of the hub's own resources, in pages."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from harness import RunningHub
from penstock.client.pages import walk_pages
from penstock.hub.v1 import issuers_pb2, issuers_pb2_grpc, shapes_pb2, shapes_pb2_grpc
from penstock.hub.v1 import subscriptions_pb2 as sub_pb2
from penstock.hub.v1 import subscriptions_pb2_grpc as sub_grpc

#: The path of each list, its field, and the name of an id.
LISTS = {
    "/v1/shapes": ("shapes", "shapeId"),
    "/v1/subscriptions": ("subscriptions", "subscriptionId"),
    "/v1/access/issuers": ("issuers", "issuerId"),
    "/v1/access/signing-keys": ("keys", "keyId"),
}
#: The same over gRPC: stub, method, request, and the name of an id.
METHODS: dict[str, tuple[Any, str, Any, str]] = {
    "/v1/shapes": (
        shapes_pb2_grpc.ShapesStub, "ListShapes", shapes_pb2.ListShapesRequest, "shape_id"
    ),
    "/v1/subscriptions": (
        sub_grpc.SubscriptionsStub, "ListSubscriptions", sub_pb2.ListSubscriptionsRequest,
        "subscription_id",
    ),
    "/v1/access/issuers": (
        issuers_pb2_grpc.IssuersStub, "ListIssuers", issuers_pb2.ListIssuersRequest, "issuer_id"
    ),
    "/v1/access/signing-keys": (
        issuers_pb2_grpc.SigningKeysStub, "ListSigningKeys", issuers_pb2.ListSigningKeysRequest,
        "key_id",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def filled(spare: RunningHub) -> Iterator[RunningHub]:
    """A hub that has several of each."""
    names = [f"pages-{uuid.uuid4().hex[:6]}-{i}" for i in range(3)]
    made = []

    def post(path: str, body: Any) -> None:
        reply = spare.request("POST", path, consumer="admin", json_body=body)
        assert reply.status == 200, reply.text

    for name in names:
        columns = [{"name": "Name", "field": "name"}]
        post("/v1/shapes", {"shapeId": name, "dataset": "customers", "columns": columns})
        line = {"subscriptionId": name, "datasets": ["customers"]}
        post("/v1/subscriptions", {"subscription": line, "start": "now"})
        url = f"https://{name}.example"
        issuer = {"issuerId": name, "issuer": url, "jwksUri": f"{url}/keys", "audiences": ["hub"]}
        post("/v1/access/issuers", {**issuer, "consumerId": "crm", "active": False})
        made += [f"/v1/shapes/{name}", f"/v1/subscriptions/{name}", f"/v1/access/issuers/{name}"]
    post("/v1/access/signing-keys:rotate", {})
    yield spare
    for path in made:
        assert spare.request("DELETE", path, consumer="admin").status == 200


def ids_by_rest(hub: RunningHub, path: str, size: int) -> list[list[str]]:
    """The ids on each page."""
    (field, key), pages, token = LISTS[path], [], ""
    while True:
        page = hub.get(path, "admin", page_size=size, page_token=token).json()
        pages.append([item[key] for item in page[field]])
        if not (token := page.get("nextPageToken", "")):
            return pages


@pytest.mark.parametrize("path", LISTS)
def test_pages_make_up_the_list(filled: RunningHub, path: str) -> None:
    (whole,) = ids_by_rest(filled, path, 1000)
    assert len(whole) > 1 and len(set(whole)) == len(whole)
    if path != "/v1/access/signing-keys":  # those are newest first
        assert whole == sorted(whole)
    single = ids_by_rest(filled, path, 1)
    assert [key for page in single for key in page] == whole and max(map(len, single)) == 1
    stub, name, request, key = METHODS[path]
    metadata, field = filled.metadata("admin"), LISTS[path][0]
    with grpc.insecure_channel(f"127.0.0.1:{filled.port}") as channel:
        ask = functools.partial(getattr(stub(channel), name), metadata=metadata)
        walked = [*walk_pages(ask, request(page_size=1), field)]
    assert [getattr(item, key) for item in walked] == whole


@pytest.mark.parametrize("path", LISTS)
def test_a_token_is_for_its_list(filled: RunningHub, path: str) -> None:
    token = filled.get(path, "admin", page_size=1).json()["nextPageToken"]
    for other in LISTS:
        if other != path:
            reply = filled.get(other, "admin", page_token=token)
            assert (reply.status, reply.reason) == (400, "PAGE_TOKEN_INVALID"), reply.text
    assert filled.get(path, "admin", page_size=-1).status == 400


def test_commands_show_all_pages(filled: RunningHub) -> None:
    for command, path in (
        (("shapes", "list"), "/v1/shapes"),
        (("subscriptions", "list"), "/v1/subscriptions"),
        (("issuers", "list"), "/v1/access/issuers"),
        (("keys", "list"), "/v1/access/signing-keys"),
    ):
        said = json.loads(filled.command(*command, "--format", "json").stdout)
        (whole,), key = ids_by_rest(filled, path, 1000), METHODS[path][3]
        assert [item[key] for item in said] == whole, command
