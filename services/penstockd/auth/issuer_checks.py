"""Checks an external issuer before it is stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from penstockd.auth.issuers import Issuer
from penstockd.auth.jwks import KNOWN_ALGORITHMS, Origins
from penstockd.egress import UrlRefused
from penstockd.errors import ValueInvalid, Violation
from penstockd.query.rules import CLAIM_NAME

MAX_AGE_SECONDS = range(60, 3601)
#: Limits lists such as audiences and claims: every worker loads each issuer whole.
MAX_LIST = 100
MAX_CONSUMERS = 1000

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TOKEN_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,100}")


def check_issuer(
    issuer: Issuer, *, consumers: Collection[str], own_issuers: Collection[str], origins: Origins
) -> None:
    """Raise ValueInvalid if an issuer is invalid.

    ``consumers`` are those that the policy knows, ``own_issuers`` names the hub itself, and
    ``origins`` says where key sets may come from.
    """
    violations = [
        Violation(f"issuer.{field}", text)
        for field, text in _find_problems(issuer, consumers, own_issuers, origins)
    ]
    if violations:
        first = violations[0]
        raise ValueInvalid(f"{first.field}: {first.description}", violations=violations)


def _find_problems(
    issuer: Issuer, consumers: Collection[str], own_issuers: Collection[str], origins: Origins
) -> Iterator[tuple[str, str]]:
    """The faults of an issuer, by field."""
    if not _ID.fullmatch(issuer.issuer_id):
        yield "issuer_id", "must be lower-case letters, digits, '-', '_' and '.', 63 at most"
    if not _is_printable(issuer.issuer, 2048):
        yield "issuer", "is required, and may have at most 2048 characters"
    if issuer.issuer in own_issuers:
        yield "issuer", "is the hub's own"
    try:
        origins.check_url(issuer.jwks_uri)
    except UrlRefused as exc:
        yield "jwks_uri", str(exc)
    if not 0 < len(issuer.audiences) <= MAX_LIST or not all(
        _is_printable(a) for a in issuer.audiences
    ):
        yield "audiences", f"must be 1 to {MAX_LIST} texts"
    if unknown := sorted(set(issuer.algorithms) - KNOWN_ALGORITHMS):
        yield "algorithms", f"'{unknown[0]}' is not one of {', '.join(sorted(KNOWN_ALGORITHMS))}"
    if not all(_TOKEN_TYPE.fullmatch(t) for t in issuer.token_types[:MAX_LIST]):
        yield "token_types", "must be media types without 'application/', such as at+jwt"
    if issuer.max_age_seconds not in MAX_AGE_SECONDS:
        yield "max_age_seconds", "must be 60 to 3600"
    if len(issuer.scope_claim) > 200 or len(issuer.title) > 200:
        yield "scope_claim", "title and scope_claim may have at most 200 characters"
    yield from _mapping_problems(issuer, consumers)


def _mapping_problems(issuer: Issuer, consumers: Collection[str]) -> Iterator[tuple[str, str]]:
    if bool(issuer.consumer_id) == bool(issuer.consumer_claim):
        yield "consumer_id", "either consumer_id or consumer_claim must be given"
    if issuer.consumers and not issuer.consumer_claim:
        yield "consumers", "goes with consumer_claim"
    if issuer.consumers_by_claim and (issuer.consumers or not issuer.consumer_claim):
        yield "consumers_by_claim", "goes with consumer_claim and without consumers"
    if len(issuer.consumers) > MAX_CONSUMERS:
        yield "consumers", f"may have {MAX_CONSUMERS} entries"
    named = {issuer.consumer_id, *issuer.consumers.values()} - {""}
    for consumer in sorted(named.difference(consumers)):
        yield ("consumers" if issuer.consumers else "consumer_id"), f"no consumer '{consumer}'"
    if len(issuer.claims) > MAX_LIST:
        yield "claims", f"may have {MAX_LIST} entries"
    names = [c.claim for c in issuer.claims]
    for i, mapping in enumerate(issuer.claims):
        if not _is_printable(mapping.token_claim):
            yield f"claims[{i}].token_claim", "is required"
        if not CLAIM_NAME.fullmatch(mapping.claim):
            yield f"claims[{i}].claim", "must be lower-case letters, digits and '_', 63 at most"
        elif names.count(mapping.claim) > 1:
            yield f"claims[{i}].claim", "is mapped twice"


def _is_printable(text: str, length: int = 200) -> bool:
    return 0 < len(text) <= length and text.isprintable()
