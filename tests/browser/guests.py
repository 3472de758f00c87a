"""Consumers of one test that sign in to the console."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from harness import RunningHub


@dataclass(frozen=True)
class Guest:
    """A consumer with one role, both of the same name, and its client secret."""

    hub: RunningHub
    name: str
    secret: str

    def token(self) -> str:
        """A token for calls outside the browser."""
        form = {"grant_type": "client_credentials"}
        form |= {"client_id": self.name, "client_secret": self.secret}
        reply = self.hub.request(
            "POST",
            "/oauth2/token",
            body=urlencode(form).encode(),
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        assert reply.status == 200, reply.text
        return str(reply.json()["access_token"])

    def permit(self, *permissions: str) -> None:
        """Give its role these permissions and no others, on every worker."""
        path = f"roles/{self.name}?update_mask=permissions"
        administer(self.hub, "PATCH", path, {"permissions": permissions})
        _settle(self.hub)


@contextlib.contextmanager
def inviting(hub: RunningHub, permissions: Sequence[str] = (), **values: Any) -> Iterator[Guest]:
    """A consumer with these permissions on the hub, and no grants; known to every worker."""
    name = f"g-{uuid.uuid4().hex[:8]}"
    administer(hub, "POST", "roles", {"roleId": name, "permissions": permissions})
    administer(hub, "POST", "consumers", {"consumerId": name, "roles": [name], **values})
    issued = administer(hub, "POST", f"consumers/{name}/credentials", {"kind": "CLIENT_SECRET"})
    _settle(hub)
    try:
        yield Guest(hub, name, issued["secret"])
    finally:
        administer(hub, "DELETE", f"consumers/{name}")
        administer(hub, "DELETE", f"roles/{name}")


def _settle(hub: RunningHub) -> None:
    # In another thread, because the browser's loop runs in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(hub.settle).result()


def administer(hub: RunningHub, method: str, path: str, document: Any = None) -> Any:
    """What a call of the administrator about access answers."""
    address = f"/v1/access/{path}"
    reply = hub.request(method, address, consumer="admin", json_body=document)
    assert reply.status == 200, reply.text
    return reply.json()
