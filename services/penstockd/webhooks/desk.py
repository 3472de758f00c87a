"""Shared by calls about webhooks: the webhooks that a caller may see, and the messages that it may
cause."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from penstockd.calls import Call
from penstockd.catalog import Catalog
from penstockd.egress import EgressGuard
from penstockd.errors import PermissionDenied
from penstockd.keyring import Seal
from penstockd.policy.model import Permission
from penstockd.store.announcements import Announcements
from penstockd.store.database import Connection, Database
from penstockd.store.places import Places
from penstockd.webhooks.endpoints import (
    Endpoint,
    Stored,
    announce_due,
    check_enabled,
    read_stored,
    read_webhook,
    read_webhooks,
)
from penstockd.webhooks.errors import WebhookNotFound
from penstockd.webhooks.messages import Composed, make_composer, make_entries
from penstockd.webhooks.model import Delivery, Webhook, read_clock
from penstockd.webhooks.owners import Owners, find_problems, owner_of, unread_by
from penstockd.webhooks.queue import SendResult
from penstockd.webhooks.search import Listed

T = TypeVar("T")

#: Permissions to see webhooks, and to own them: either one is enough. The second one covers
#: everybody's webhooks.
TO_READ = (Permission.WEBHOOKS_READ, Permission.ACCESS_WRITE)
TO_WRITE = (Permission.WEBHOOKS_WRITE, Permission.ACCESS_WRITE)
#: More webhooks than a consumer can have.
_ALL = 10_000


@dataclass(frozen=True, slots=True)
class WebhookDesk:
    """Webhooks as calls see them.

    ``seal`` opens their secrets, ``guard`` decides where they may post, ``url`` is the hub's own
    URL, ``places`` seals the cursors in messages, ``owners`` keeps what webhooks' owners see.
    """

    database: Database
    catalog: Catalog
    announcements: Announcements
    seal: Seal
    guard: EgressGuard
    url: str
    places: Places
    owners: Owners = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "owners", Owners(self.catalog))

    async def find(
        self, call: Call, connection: Connection, webhook_id: str, *, lock: bool = False
    ) -> Webhook:
        """The webhook with an id. Raises WebhookNotFound, also if it is hidden from the caller."""
        call.entry.record_key = f"webhooks/{webhook_id}"
        webhook = await read_webhook(connection, webhook_id, self.seal, lock=lock)
        own = webhook is not None and webhook.consumer_id == call.principal.consumer_id
        if webhook is None or not (own or call.permits(Permission.ACCESS_WRITE)):
            raise WebhookNotFound(f"there is no webhook '{webhook_id}'")
        return webhook

    async def touch(
        self, call: Call, connection: Connection, webhook_id: str, *, lock: bool = False
    ) -> Webhook:
        """``find``, for a call that makes the webhook send something, or prevents it.

        Raises PermissionDenied unless the caller may itself read all that the webhook sends.
        """
        webhook = await self.find(call, connection, webhook_id, lock=lock)
        self.check_reach(call, webhook)
        return webhook

    async def touch_enabled(self, call: Call, connection: Connection, webhook_id: str) -> None:
        """Lock a webhook before something is sent to it. Also raises WebhookDisabled."""
        check_enabled(await self.touch(call, connection, webhook_id, lock=True))

    async def show(self, call: Call, connection: Connection, webhook_id: str) -> Stored:
        """A changed webhook, in the form that its owner sees. Raises as ``touch``."""
        webhook = await self.touch(call, connection, webhook_id)
        return await self.describe(call, connection, webhook)

    async def describe(self, call: Call, connection: Connection, webhook: Webhook) -> Stored:
        """A webhook that the caller may see, in the form that its owner sees."""
        problems = find_problems(call.policy, self.catalog, webhook)
        readable = any(map(call.permits, TO_READ))
        return await read_stored(connection, self.seal, webhook, problems, readable=readable)

    def reads(self, call: Call, webhook: Webhook) -> bool:
        """Whether the caller may itself read all that a webhook sends."""
        return not unread_by(call.policy, self.catalog, call.principal, webhook)

    def check_reach(self, call: Call, webhook: Webhook) -> None:
        """Raise PermissionDenied unless ``reads``."""
        if dataset := unread_by(call.policy, self.catalog, call.principal, webhook):
            raise PermissionDenied(f"the webhook shows {dataset}, which your token may not read")

    async def check_shape(self, call: Call, connection: Connection, shape_id: str) -> None:
        """Check a call that saves a version of the caller's shape: webhooks that name it without a
        version send other columns from now on.

        Raises PermissionDenied unless the caller may change all of them.
        """
        owner = call.principal.consumer_id
        for webhook in await read_webhooks(connection, owner, "", _ALL, self.seal):
            named = any(selection.shape == shape_id for selection in webhook.selections)
            if named and owner_of(call.policy, webhook) is not None:  # others send nothing
                call.require(*TO_WRITE)
                self.check_reach(call, webhook)

    def withhold(
        self, call: Call, webhooks: Sequence[Webhook], found: Sequence[Listed]
    ) -> list[Listed]:
        """Deliveries, without keys if the caller itself cannot read what their webhook sends."""
        readable = {w.webhook_id for w in webhooks if self.reads(call, w)}
        return [d if d.values["webhook_id"] in readable else d.withheld() for d in found]

    async def change(self, call: Call, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run ``work`` to its end, in one transaction with the audit entry; returns its result.

        Raises PermissionDenied unless the caller may own webhooks, and what ``work`` raises.
        """
        call.require(*TO_WRITE)
        transaction = self.database.transaction()
        return await call.write(transaction, work)

    async def announce(self, connection: Connection) -> None:
        """Notify the keeper, when the transaction commits, that something is due."""
        await announce_due(self.announcements, connection)

    async def compose(
        self, call: Call, connection: Connection, endpoint: Endpoint, found: Sequence[Delivery]
    ) -> tuple[list[Composed], list[SendResult]]:
        """The messages of deliveries, recorded as disclosed.

        Also returns results for the deliveries of which the owner can now see nothing.
        """
        composer = await make_composer(
            self.database, self.catalog, self.url, self.places, self.owners, connection
        )
        composed: list[Composed] = []
        dead: list[SendResult] = []
        for delivery in found:
            made = await composer.compose(call.policy, endpoint, delivery, read_clock())
            if isinstance(made, Composed):
                composed.append(made)
            else:
                dead.append(made)
        if composed:
            sights = self.owners.sights(call.policy, endpoint.webhook)
            told, shown = make_entries(endpoint, sights, composed, pulled=True)
            await call.disclose_within(connection, told, shown)
        return composed, dead
