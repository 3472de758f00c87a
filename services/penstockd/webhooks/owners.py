"""What the owner of an endpoint may see now: the policy decides at every step, nothing is kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import structlog

from penstockd.catalog import Catalog
from penstockd.errors import PermissionDenied
from penstockd.policy.lens import Lens
from penstockd.policy.model import Action, Permission, Principal
from penstockd.policy.scopes import leaves
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.query import QueryError
from penstockd.webhooks.model import Selection, Webhook

_KEPT = 4096

_log = structlog.get_logger(__name__)


class Owners:
    """Makes the lenses of endpoints, and keeps them while the policy stands still."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._kept: OrderedDict[tuple[str, Selection], Lens | None] = OrderedDict()
        self._policy: PolicySnapshot | None = None

    def sights(self, policy: PolicySnapshot, webhook: Webhook) -> dict[str, Lens]:
        """The lenses of an endpoint by dataset; of what its owner may not read there is none."""
        principal = owner_of(policy, webhook)
        if principal is None:
            return {}
        if policy is not self._policy:
            self._kept.clear()
            self._policy = policy
        found = {}
        for selection in webhook.selections:
            name = (webhook.webhook_id, selection)
            if name not in self._kept:
                self._kept[name] = self._lens(policy, principal, selection, webhook.webhook_id)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            lens = self._kept[name]
            if lens is not None:
                found[selection.dataset] = lens
        return found

    def _lens(
        self, policy: PolicySnapshot, principal: Principal, selection: Selection, webhook_id: str
    ) -> Lens | None:
        try:
            return lens_of(policy, self._catalog, principal, selection)
        except PermissionDenied:
            return None
        except QueryError as exc:
            # A field that the filter or the list of fields names is hidden by now.
            _log.warning("webhook_selection_unfit", webhook=webhook_id, error=str(exc))
            return None


def brought_claims(policy: PolicySnapshot, principal: Principal) -> dict[str, tuple[str, ...]]:
    """The claims that a caller's token has brought, which are not its consumer's own."""
    own = policy.consumers[principal.consumer_id].claims
    return {name: values for name, values in principal.claims.items() if own.get(name) != values}


def owner_of(policy: PolicySnapshot, webhook: Webhook) -> Principal | None:
    """The owner as the policy has it now; None if it may have no webhooks any more."""
    consumer = policy.consumers.get(webhook.consumer_id)
    if consumer is None or not consumer.active:
        return None
    claims = {**consumer.claims, **webhook.claims}
    principal = Principal(consumer.consumer_id, "", consumer.roles, claims)
    if not policy.permits(principal, Permission.WEBHOOKS_WRITE):
        return None
    return replace(principal, scopes=webhook.scopes)


def unread_by(policy: PolicySnapshot, catalog: Catalog, caller: Principal, webhook: Webhook) -> str:
    """The first dataset that a webhook shows and that the caller may not read as the webhook does;
    "" if there is none.

    A caller that changes a webhook can point it at somebody else. So the caller's token decides,
    not what the owner's roles allow at present, which may grow. Another consumer (an
    administrator: see ``commands.webhooks``) could give itself any role, but no scope.
    """
    for selection in webhook.selections:
        name = selection.dataset
        if not leaves(webhook.scopes, name, Action.READ):
            continue
        if not leaves(caller.scopes, name, Action.READ):
            return name
        if caller.consumer_id == webhook.consumer_id:
            consumer = policy.consumers[webhook.consumer_id]
            same = caller.claims == {**consumer.claims, **webhook.claims}
            if not same and not _sees_as_much(policy, catalog, caller, webhook, selection):
                return name
    return ""


def _sees_as_much(
    policy: PolicySnapshot,
    catalog: Catalog,
    caller: Principal,
    webhook: Webhook,
    selection: Selection,
) -> bool:
    """Whether a caller with other claims sees what the webhook tells."""
    owner = owner_of(policy, webhook)
    try:
        seen = lens_of(policy, catalog, caller, selection)
        told = None if owner is None else lens_of(policy, catalog, owner, selection)
    except (PermissionDenied, QueryError):
        return False
    return told is not None and (seen.view.predicate is None or seen.view_id == told.view_id)


def lens_of(
    policy: PolicySnapshot, catalog: Catalog, principal: Principal, selection: Selection
) -> Lens:
    """What a principal sees of a selection. Raises PermissionDenied and QueryError."""
    view = policy.view(principal, selection.dataset, Action.READ)
    return Lens(view, catalog, fields=selection.fields, filter=selection.filter)


def find_problems(policy: PolicySnapshot, catalog: Catalog, webhook: Webhook) -> Mapping[str, str]:
    """Why selections bring no events, by dataset."""
    principal = owner_of(policy, webhook)
    found = {}
    for selection in webhook.selections:
        if principal is None:
            found[selection.dataset] = f"you need the permission {Permission.WEBHOOKS_WRITE.value}"
            continue
        try:
            lens_of(policy, catalog, principal, selection)
        except (PermissionDenied, QueryError) as exc:
            found[selection.dataset] = exc.message
    return found
