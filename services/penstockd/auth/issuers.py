"""External issuers: who else may authenticate callers, and which claims they may make.

A token of an external issuer stands for a consumer of the hub. It grants no rights itself: the
consumer's roles decide, and on every call the consumer must exist and be active. It may carry
claims for row filters, if the issuer's entry maps them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jwt

from penstockd.auth.compact import Malformed, open_token, whole_times
from penstockd.auth.jwks import KeySource, Origins
from penstockd.policy.model import Principal
from penstockd.policy.snapshot import PolicySnapshot

#: How many verified tokens are cached.
CACHE_SIZE = 10_000
#: Seconds that the clock of another issuer may be ahead.
LEEWAY = 30

_HEADERS = {"alg", "kid", "typ", "x5t", "x5t#S256"}
_REQUIRED = ["exp", "iat", "iss", "aud"]


@dataclass(frozen=True, slots=True)
class ClaimMapping:
    """A token claim that becomes a claim of the principal.

    If the consumer itself has a claim of that name, the consumer's wins, unless ``override``.
    """

    token_claim: str
    claim: str
    override: bool = False


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer, as entered by an administrator.

    The consumer of its tokens is ``consumer_id``, or the value of ``consumer_claim`` determines it:
    a key of ``consumers`` or, with ``consumers_by_claim``, the consumer's id itself. An issuer with
    neither authenticates nobody.
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
        """The credential id that the audit records."""
        return f"issuer:{self.issuer_id}"


@dataclass(frozen=True, slots=True)
class Identity:
    """The contents of a verified token of an external issuer."""

    issuer: Issuer
    source: KeySource
    consumer_id: str
    expires: float
    claims: Mapping[str, tuple[str, ...]]
    overriding: Mapping[str, tuple[str, ...]]
    scopes: frozenset[str] | None

    def principal(self, policy: PolicySnapshot) -> Principal | None:
        """The consumer under the policy; None if it is missing or inactive.

        Also None for a consumer that may change access, if only the token names it: otherwise the
        issuer could administer everything.
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
            self.expires,
        )


class Issuers:
    """Verifies tokens of external issuers, with a bounded cache of verified ones."""

    def __init__(
        self, origins: Origins | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """``origins`` says where key sets may come from; by default the public internet."""
        self.origins, self._clock = origins or Origins(), clock
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="jwks")
        self._issuers: Mapping[str, Issuer] = {}
        self._sources: dict[tuple[str, tuple[str, ...]], KeySource] = {}
        self._verified: OrderedDict[str, Identity] = OrderedDict()

    def replace(self, issuers: Iterable[Issuer]) -> None:
        """Replace the issuers and forget all verified tokens."""
        self._issuers = {i.issuer: i for i in issuers if i.active}
        # Keep key sets whose URL and algorithms are unchanged.
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
        """The identity of a token that is cached and still valid."""
        identity = self._verified.get(token)
        if identity is None or identity.expires <= self._clock() or not identity.source.good:
            return None
        return identity

    async def verify(self, token: str) -> Identity | None:
        """The identity of a token; None, whatever the fault, if it is not to be trusted.

        Waits for the issuer's key set if it must be fetched, which takes seconds at most.
        """
        try:
            header, claims = open_token(token)
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
        # The issuer may have been removed while this waited for the key.
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
        # Cap a token's lifetime, whatever it says.
        expires = min(claims["exp"], claims["iat"] + issuer.max_age_seconds)
        consumer_id = _consumer_of(issuer, claims)
        if consumer_id is None or expires <= self._clock():
            return None
        mapped: dict[str, tuple[str, ...]] = {}
        overriding: dict[str, tuple[str, ...]] = {}
        for mapping in issuer.claims:
            values = _claim_values(claims.get(mapping.token_claim))
            if values:
                (overriding if mapping.override else mapped)[mapping.claim] = values
        scopes = None
        if issuer.scope_claim:
            given = claims.get(issuer.scope_claim)
            scopes = frozenset(given.split() if isinstance(given, str) else _claim_values(given))
        return Identity(issuer, source, consumer_id, float(expires), mapped, overriding, scopes)


def _header_fits(header: Mapping[str, Any], issuer: Issuer) -> bool:
    """A closed set of headers: jku, jwk, x5u and crit are refused."""
    kind = header.get("typ")
    return (
        header.keys() <= _HEADERS
        and header.get("alg") in issuer.algorithms
        and isinstance(kind, str)
        # Media types ignore case and may omit "application/" (RFC 7515 4.1.9).
        and kind.lower().removeprefix("application/") in map(str.lower, issuer.token_types)
    )


def _consumer_of(issuer: Issuer, claims: Mapping[str, Any]) -> str | None:
    if issuer.consumer_id:
        return issuer.consumer_id
    said = claims.get(issuer.consumer_claim)
    if not isinstance(said, str) or not said:
        return None
    return said if issuer.consumers_by_claim else issuer.consumers.get(said)


def _claim_values(given: Any) -> tuple[str, ...]:
    """The values of a token's claim as texts; empty if any is not a string, integer or boolean."""
    listed = given if isinstance(given, list) else [given]
    texts = [
        ("true" if v else "false") if isinstance(v, bool) else str(v)
        for v in listed
        if isinstance(v, str | int)
    ]
    return tuple(texts) if len(texts) == len(listed) else ()
