"""Issuers outside the hub: who else may say who calls, and what it may say.

A token of another issuer stands for a consumer of the hub. It brings no rights of its own: the
consumer's roles decide, and it must exist and be active on every call. It may bring claims, for
row filters, as far as the issuer's entry maps them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jwt

from penstockd.auth.compact import Malformed, opened, whole_times
from penstockd.auth.jwks import KeySource, Origins
from penstockd.policy.model import Principal
from penstockd.policy.snapshot import PolicySnapshot

#: How many verified tokens are remembered.
CACHE_SIZE = 10_000
#: Seconds that the clock of another issuer may be ahead.
LEEWAY = 30

_HEADERS = {"alg", "kid", "typ", "x5t", "x5t#S256"}
_REQUIRED = ["exp", "iat", "iss", "aud"]


@dataclass(frozen=True, slots=True)
class ClaimMapping:
    """A claim of tokens that becomes one of the principal's.

    Where the consumer has a claim of that name itself, its own counts, unless ``override``.
    """

    token_claim: str
    claim: str
    override: bool = False


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer, as an administrator has entered it.

    The consumer of its tokens is ``consumer_id``, or what ``consumer_claim`` says: a key of
    ``consumers`` or, with ``consumers_by_claim``, the consumer's id itself. An issuer that has
    neither speaks for nobody.
    """

    issuer_id: str
    issuer: str
    jwks_uri: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    token_types: tuple[str, ...]
    max_age_seconds: int
    consumer_id: str = ""
    consumer_claim: str = ""
    consumers: Mapping[str, str] = field(default_factory=dict)
    claims: tuple[ClaimMapping, ...] = ()
    scope_claim: str = ""
    active: bool = True
    title: str = ""
    consumers_by_claim: bool = False

    @property
    def credential_id(self) -> str:
        """What stands for a credential in the audit."""
        return f"issuer:{self.issuer_id}"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified token of another issuer says."""

    issuer: Issuer
    source: KeySource
    consumer_id: str
    expires: float
    claims: Mapping[str, tuple[str, ...]]
    overriding: Mapping[str, tuple[str, ...]]
    scopes: frozenset[str] | None

    def principal(self, policy: PolicySnapshot) -> Principal | None:
        """The consumer as the policy stands; None if it is not there or not active.

        None also for one that may change access, if the token alone names it: whoever issues the
        tokens would be everybody's administrator.
        """
        consumer = policy.consumers.get(self.consumer_id)
        if consumer is None or not consumer.active:
            return None
        if self.issuer.consumers_by_claim and policy.administers(consumer):
            return None
        return Principal(
            consumer.consumer_id,
            self.issuer.credential_id,
            consumer.roles,
            {**self.claims, **consumer.claims, **self.overriding},
            self.scopes,
        )


class Issuers:
    """Verifies tokens of other issuers, with a bounded memory of those verified before."""

    def __init__(
        self, origins: Origins | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """``origins`` says where key sets may come from: by default the public internet."""
        self.origins, self._clock = origins or Origins(), clock
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="jwks")
        self._issuers: Mapping[str, Issuer] = {}
        self._sources: dict[tuple[str, tuple[str, ...]], KeySource] = {}
        self._verified: OrderedDict[str, Identity] = OrderedDict()

    def replace(self, issuers: Iterable[Issuer]) -> None:
        """Go on with these issuers; tokens of those that are gone or changed are forgotten."""
        self._issuers = {i.issuer: i for i in issuers if i.active}
        # Key sets outlive a change of anything but where they come from.
        wanted = {(i.jwks_uri, i.algorithms) for i in self._issuers.values()}
        for place in self._sources.keys() - wanted:
            self._sources.pop(place).close()
        for place in wanted - self._sources.keys():
            url, algorithms = place
            self._sources[place] = KeySource(
                url, algorithms, self._pool, origins=self.origins, changed=self._verified.clear
            )
        self._verified.clear()

    def known(self, token: str) -> Identity | None:
        """What a token says that was verified before and is still good."""
        identity = self._verified.get(token)
        if identity is None or identity.expires <= self._clock() or not identity.source.good:
            return None
        return identity

    async def verify(self, token: str) -> Identity | None:
        """What a token says; None, whatever is wrong with it, if it is not to be trusted.

        Waits for the issuer's key set, where it has to be fetched, for seconds at most.
        """
        try:
            header, claims = opened(token)
        except Malformed:
            return None
        name, key_id = claims.get("iss"), header.get("kid")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None or not isinstance(key_id, str) or not _header_fits(header, issuer):
            return None
        source = self._sources[issuer.jwks_uri, issuer.algorithms]
        key = await source.key(key_id)
        if key is None or header["alg"] not in key.algorithms:
            return None
        try:
            claims = jwt.decode(
                token,
                key.material,
                algorithms=[header["alg"]],
                issuer=issuer.issuer,
                audience=issuer.audiences,
                leeway=LEEWAY,
                options={"require": _REQUIRED, "verify_exp": False, "verify_sub": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        identity = self._identity(issuer, source, claims)
        # While the key was waited for, the issuer may have gone.
        if identity is None or self._issuers.get(issuer.issuer) is not issuer:
            return None
        self._verified[token] = identity
        if len(self._verified) > CACHE_SIZE:
            self._verified.popitem(last=False)
        return identity

    def close(self) -> None:
        """Stop fetching key sets."""
        for source in self._sources.values():
            source.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _identity(
        self, issuer: Issuer, source: KeySource, claims: Mapping[str, Any]
    ) -> Identity | None:
        if not whole_times(claims):
            return None
        # However long a token is meant to live: here it does not live longer than this.
        expires = min(claims["exp"], claims["iat"] + issuer.max_age_seconds)
        consumer_id = _consumer_of(issuer, claims)
        if consumer_id is None or expires <= self._clock():
            return None
        mapped: dict[str, tuple[str, ...]] = {}
        overriding: dict[str, tuple[str, ...]] = {}
        for mapping in issuer.claims:
            values = _values(claims.get(mapping.token_claim))
            if values:
                (overriding if mapping.override else mapped)[mapping.claim] = values
        scopes = None
        if issuer.scope_claim:
            given = claims.get(issuer.scope_claim)
            scopes = frozenset(given.split() if isinstance(given, str) else _values(given))
        return Identity(issuer, source, consumer_id, float(expires), mapped, overriding, scopes)


def _header_fits(header: Mapping[str, Any], issuer: Issuer) -> bool:
    """A closed set of headers: no jku, jwk, x5u or crit can ask for anything."""
    kind = header.get("typ")
    return (
        header.keys() <= _HEADERS
        and header.get("alg") in issuer.algorithms
        and isinstance(kind, str)
        # Media types know no case and may leave their "application/" out (RFC 7515 4.1.9).
        and kind.lower().removeprefix("application/") in map(str.lower, issuer.token_types)
    )


def _consumer_of(issuer: Issuer, claims: Mapping[str, Any]) -> str | None:
    if issuer.consumer_id:
        return issuer.consumer_id
    said = claims.get(issuer.consumer_claim)
    if not isinstance(said, str) or not said:
        return None
    return said if issuer.consumers_by_claim else issuer.consumers.get(said)


def _values(given: Any) -> tuple[str, ...]:
    """The values of a token's claim as texts; none of what is neither a text nor some of them."""
    listed = given if isinstance(given, list) else [given]
    texts = [
        ("true" if v else "false") if isinstance(v, bool) else str(v)
        for v in listed
        if isinstance(v, str | int)
    ]
    return tuple(texts) if len(texts) == len(listed) else ()
