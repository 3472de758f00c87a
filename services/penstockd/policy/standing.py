"""Checks that a caller keeps the access with which its stream began; a loss ends the stream."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import literal_column, select

from penstockd.catalog import Field
from penstockd.errors import AccessChanged, AccessRevoked, PermissionDenied
from penstockd.policy.model import Action, Principal
from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.policy.view import View
from penstockd.store.sql import compile_for_copy

#: How often an idle stream checks, in seconds.
INTERVAL = 1.0

_REVOKED = "your access was revoked"


class Standing:
    """Compares what a caller saw of a dataset when its stream began with what it sees now.

    ``check`` only reads the clock while the policy does not change. Call it before everything that
    is sent, and every INTERVAL while nothing is.
    """

    def __init__(self, policy: Policy, began: PolicySnapshot, caller: Principal, view: View):
        self._policy, self._caller, self._view = policy, caller, view
        # Not by revision: a restored database reuses revisions for other policies.
        self._began = self._judged = began
        self._current = view
        #: The time when the caller's credential expires, which is not a change of the policy.
        self.good_until = credential_end(caller, began)

    def check(self) -> None:
        """Raise AccessChanged if the caller would see less now.

        Raises PolicyStale if the policy could not be confirmed for too long. Access that has grown
        changes nothing for the stream.
        """
        now = self._policy.current
        if now is self._judged and time.time() < self.good_until:
            return
        caller = renew_caller(self._caller, self._began, now)
        name = self._view.dataset.name
        try:
            view = now.view(caller, name, Action.READ)
        except PermissionDenied as exc:
            raise AccessRevoked(f"your access to {name} was revoked") from exc
        if not self._shows_all(view, caller):
            raise AccessChanged(f"your access to {name} was narrowed")
        self._judged = now
        self._current = view
        self.good_until = credential_end(self._caller, now)

    @property
    def view(self) -> View:
        """The caller's View as of the last check: the same, or one that shows more."""
        return self._current

    def _shows_all(self, view: View, caller: Principal) -> bool:
        """Whether a View shows everything that the stream's View shows."""
        every = [f for top in self._view.fields() for f in top.walk()]
        if any(_mask_strictness(view, f) > _mask_strictness(self._view, f) for f in every):
            return False
        # Hashes of another domain are other values.
        if any(self._view.hash_domain(f) not in ("", view.hash_domain(f)) for f in every):
            return False
        if view.predicate is None or _row_rule(view) == _row_rule(self._view):
            return True
        # A row needs only one rule that shows it: further rules lose no row.
        return caller.claims == self._caller.claims and _row_filters(self._view) <= _row_filters(
            view
        )


def renew_caller(caller: Principal, began: PolicySnapshot, now: PolicySnapshot) -> Principal:
    """The caller of a call that began under one policy, updated to another.

    Roles and the consumer's claims come from the new policy. Scopes and claims of the token stay.
    Raises AccessRevoked if the consumer or the credential is no longer valid.
    """
    consumer = now.consumers.get(caller.consumer_id)
    if consumer is None or not consumer.active:
        raise AccessRevoked(_REVOKED)
    if caller.credential_id in began.credentials:
        credential = now.credentials.get(caller.credential_id)
        expired = credential_end(caller, now) <= time.time()
        if credential is None or credential.revoked or expired:
            raise AccessRevoked(_REVOKED)
    then = began.consumers.get(caller.consumer_id)
    own = {} if then is None else then.claims
    brought = {n: v for n, v in caller.claims.items() if own.get(n) != v}
    return replace(caller, roles=consumer.roles, claims={**consumer.claims, **brought})


def credential_end(caller: Principal, policy: PolicySnapshot) -> float:
    """When the caller's credential expires, in seconds since 1970; infinity if never."""
    credential = policy.credentials.get(caller.credential_id)
    if credential is None or credential.expire_time is None:
        return math.inf
    return credential.expire_time.timestamp()


def _mask_strictness(view: View, field: Field) -> int:
    return view.mask(field).strictness


def _row_filters(view: View) -> frozenset[str]:
    return frozenset(g.row_filter for g in view.grants if Action.READ in g.actions)


def _row_rule(view: View) -> tuple[str, Mapping[str, Any]]:
    """The row rule as SQL with its claims."""
    if view.predicate is None:
        return "", {}
    return compile_for_copy(select(literal_column("1")).where(view.predicate))
