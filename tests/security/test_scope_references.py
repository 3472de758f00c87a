"""A row filter that follows references answers questions about other datasets, too: a token that is
narrowed to one dataset makes no such filter, gives it to nobody, and gets no answer from it.

Otherwise a token that may change access, and read only orders, could find out the value of any
field of any customer: by guesses, each in a row filter of orders.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from feeds import put
from harness import Reply, RunningHub

from .test_write_replies import CLEAR, bearer

THROUGH = "customer.status = claims.state"
NARROW = "access.read access.write orders:*"
WIDE = f"{NARROW} customers:read"


@dataclass(frozen=True)
class Administrator:
    """May change access and read everything; has tokens with less access."""

    hub: RunningHub
    name: str
    secret: str
    #: A consumer whose only role has the filter, and that has made calls; and another without a
    #: role.
    held: str
    bare: str
    order: str
    credential: str
    #: A policy in which ``bare`` had the role.
    revision: int

    def __call__(self, method: str, path: str, body: Any, *, scope: str = "") -> Reply:
        headers = bearer(self.hub, self.name, self.secret, scope)
        return self.hub.request(method, f"/v1/access{path}", json_body=body, headers=headers)


def role(name: str, rows: str = THROUGH) -> dict[str, Any]:
    grant = {"dataset": "orders", "actions": ["read"], "classMasks": CLEAR, "rowFilter": rows}
    return {"roleId": name, "grants": [grant]}


#: Ways to an answer through a filter: a call, with names of its own.
Ask = Callable[[Administrator, str], tuple[str, str, Any]]
_CLAIMS = {"state": {"values": ["ACTIVE"]}}
WAYS: Mapping[str, Ask] = {
    "create a role": lambda a, n: ("POST", "/roles?validate_only=true", role(n)),
    "create it": lambda a, n: ("POST", "/roles", role(n)),
    "further references": lambda a, n: (
        *("POST", "/roles"),
        role(n, 'NOT (status = PLACED OR customer.tax_id = "1")'),
    ),
    "change a role": lambda a, n: (
        *("PATCH", f"/roles/{a.held}?update_mask=grants"),
        role(a.held, f"{THROUGH} AND customer.name:*"),
    ),
    "give the role": lambda a, n: (
        *("PATCH", f"/consumers/{a.bare}?update_mask=roles"),
        {"roles": [a.held]},
    ),
    "make a consumer": lambda a, n: ("POST", "/consumers", {"consumerId": n, "roles": [a.held]}),
    "claim something else": lambda a, n: (
        *("PATCH", f"/consumers/{a.held}?update_mask=claims"),
        {"claims": {"state": {"values": [n]}}},
    ),
    "issue a credential": lambda a, n: (
        *("POST", f"/consumers/{a.held}/credentials"),
        {"kind": "API_KEY"},
    ),
    "rotate a credential": lambda a, n: (
        *("POST", f"/consumers/{a.held}/credentials/{a.credential}:rotate?validate_only=true"),
        {},
    ),
    "roll back": lambda a, n: ("POST", f"/revisions/{a.revision}:rollback?validate_only=true", {}),
    "trust an issuer": lambda a, n: (
        *("POST", "/issuers"),
        {
            "issuerId": n,
            "issuer": f"https://{n}.example.com",
            "jwksUri": f"https://{n}.example.com/keys",
            "audiences": ["penstock"],
            "tokenTypes": ["JWT"],
            "consumerClaim": "azp",
            "consumers": {"app": a.held},
        },
    ),
    "preview": lambda a, n: (
        *("POST", ":preview"),
        {"dataset": "orders", "roles": [a.held], "claims": _CLAIMS},
    ),
    "preview a consumer": lambda a, n: (
        *("POST", ":preview"),
        {"dataset": "orders", "consumerId": a.held, "filter": f'order_id = "{a.order}"'},
    ),
    "explain a record": lambda a, n: (
        *("POST", ":explain"),
        {"dataset": "orders", "roles": [a.held], "claims": _CLAIMS, "key": a.order},
    ),
    "rehearse": lambda a, n: (
        *("POST", ":rehearse"),
        {"role": role(a.held, 'customer.tax_id = "1"'), "days": 1},
    ),
    "rehearse another filter": lambda a, n: (
        *("POST", ":rehearse"),
        {"role": role(a.held, "status = PLACED"), "days": 1},
    ),
}


@pytest.fixture(scope="module")
def administrator(hub: RunningHub) -> Iterator[Administrator]:
    name = f"sf-{uuid.uuid4().hex[:8]}"
    made: list[str] = []

    def admin(method: str, path: str, body: Any = None) -> Any:
        path = f"/v1/access{path}"
        reply = hub.request(method, path, consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
        if method == "POST" and path.endswith(("/roles", "/consumers")):
            found = reply.json()
            made.append(f"{path}/{found.get('consumerId') or found['roleId']}")
        return reply.json()

    grants = [
        {"dataset": d, "actions": ["read", "create", "update", "delete"], "classMasks": CLEAR}
        for d in ("orders", "customers")
    ]
    permissions = ["access.read", "access.write"]
    admin("POST", "/roles", {"roleId": name, "grants": grants, "permissions": permissions})
    admin("POST", "/consumers", {"consumerId": name, "roles": [name]})
    held, bare = f"{name}-held", f"{name}-bare"
    admin("POST", "/roles", role(held))
    admin("POST", "/consumers", {"consumerId": held, "roles": [held], "claims": _CLAIMS})
    revision = admin("POST", "/consumers", {"consumerId": bare, "roles": [held]})["policyRevision"]
    admin("PATCH", f"/consumers/{bare}?update_mask=roles", {"roles": []})
    issued = admin("POST", f"/consumers/{held}/credentials", {"kind": "API_KEY"})
    secret = admin("POST", f"/consumers/{name}/credentials", {"kind": "CLIENT_SECRET"})["secret"]
    hub.settle()
    order = f"{name}-order"
    put(hub, "orders", {"orderId": order, "customerId": "c"})
    key = {"x-api-key": issued["secret"]}
    assert hub.request("GET", "/v1/orders?page_size=1", headers=key).status == 200
    credential = issued["credential"]["credentialId"]
    try:
        yield Administrator(hub, name, secret, held, bare, order, credential, int(revision))
    finally:
        for path in sorted(made, key=lambda p: "/roles/" in p):
            hub.request("DELETE", path, consumer="admin")


@pytest.mark.parametrize("way", list(WAYS))
def test_no_filter_looks_beyond_the_scopes(administrator: Administrator, way: str) -> None:
    name = f"{administrator.name}-{uuid.uuid4().hex[:8]}"
    method, path, body = WAYS[way](administrator, name)
    denied = administrator(method, path, body, scope=NARROW)
    assert (denied.status, denied.reason) == (403, "PERMISSION_DENIED"), denied.text
    assert "customers" in denied.json()["message"], "it says which dataset is missing"
    for scope in (WIDE, ""):  # negative control
        if path in ("/roles", "/consumers", "/issuers") and scope == "":
            continue  # it exists already
        assert administrator(method, path, body, scope=scope).status == 200, way
    if path in ("/roles", "/consumers", "/issuers"):
        gone = administrator("DELETE", f"{path}/{name}", None)
        assert gone.status == 200, gone.text


def test_other_filters_stay_free(administrator: Administrator) -> None:
    """A narrowed token may write any filter on the dataset that its scopes name."""
    name = f"{administrator.name}-own"
    own = role(name, "status = PLACED AND customer_id:*")
    assert administrator("POST", "/roles", own, scope=NARROW).status == 200
    gone = administrator("DELETE", f"/roles/{name}", None, scope=NARROW)
    assert gone.status == 200, gone.text
