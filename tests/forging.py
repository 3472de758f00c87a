"""Tokens with one fault each: the attacks of S1, on tokens of the hub and of other issuers."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from foreign import b64, part

OWN_TYPES = ("JWT", "", None, "at+JWT", "jwt", 7)
FOREIGN_TYPES = ("JWT", "", None, "id+jwt", "jwt", 7, ["at+jwt"])


@dataclass
class Forger:
    """Makes tokens like valid ones (ES256), each with one fault.

    ``subjects`` are claims that name the token's owner, with values that nobody has.
    """

    header: dict[str, Any]
    claims: dict[str, Any]
    private: Any
    jwks: bytes
    subjects: dict[str, list[Any]]
    types: tuple[Any, ...] = OWN_TYPES
    audiences: list[Any] = field(default_factory=list)

    def signed(
        self,
        key: Any = None,
        *,
        header: dict[str, Any] | None = None,
        without: str = "",
        **claims: Any,
    ) -> str:
        """A token signed with the right key unless another is given."""
        body = {k: v for k, v in {**self.claims, **claims}.items() if k != without}
        head = {k: v for k, v in {**self.header, **(header or {})}.items() if v is not None}
        return self.sign(key or self.private, part(head), part(body))

    def sign(self, key: Any, head: str, body: str) -> str:
        content = f"{head}.{body}"
        made = jwt.get_algorithm_by_name("ES256").sign(content.encode(), key)
        return f"{content}.{b64(made)}"

    def unsigned(self, algorithm: str, signature: str = "") -> str:
        return f"{part({**self.header, 'alg': algorithm})}.{part(self.claims)}.{signature}"

    def symmetric(self, secret: bytes, bits: int = 256) -> str:
        content = f"{part({**self.header, 'alg': f'HS{bits}'})}.{part(self.claims)}"
        made = hmac.digest(secret, content.encode(), getattr(hashlib, f"sha{bits}"))
        return f"{content}.{b64(made)}"


def wrong_algorithms(forger: Forger) -> Iterator[tuple[str, str]]:
    """Tokens that request another signature check than the hub's."""
    public = forger.private.public_key()
    encoding, format_ = serialization.Encoding, serialization.PublicFormat
    signature = forger.signed().rpartition(".")[2]
    for algorithm in ("none", "None", "NONE", "nOnE", "", "HS256", "ES384", "RS256", "EdDSA"):
        yield f"alg {algorithm}", forger.unsigned(algorithm)
        yield f"alg {algorithm}, signed", forger.unsigned(algorithm, signature)
    for name, secret in {
        "PEM": public.public_bytes(encoding.PEM, format_.SubjectPublicKeyInfo),
        "DER": public.public_bytes(encoding.DER, format_.SubjectPublicKeyInfo),
        "point": public.public_bytes(encoding.X962, format_.UncompressedPoint),
        "JWKS": forger.jwks,
        "empty": b"",
    }.items():
        for bits in (256, 384, 512):
            yield f"HS{bits} with the public key as {name}", forger.symmetric(secret, bits)
    key = rsa.generate_private_key(65537, 2048)
    content = f"{part({**forger.header, 'alg': 'RS256'})}.{part(forger.claims)}"
    made = jwt.get_algorithm_by_name("RS256").sign(content.encode(), key)
    yield "RS256", f"{content}.{b64(made)}"


def wrong_headers(forger: Forger) -> Iterator[tuple[str, str]]:
    """Tokens whose header points to another key, or has parameters that the hub does not know."""
    stranger = ec.generate_private_key(ec.SECP256R1())
    own = stranger.public_key().public_numbers()
    x, y = (b64(number.to_bytes(32, "big")) for number in (own.x, own.y))
    yield "a stranger's key", forger.signed(stranger)
    for name, value in {
        "jwk": {"kty": "EC", "crv": "P-256", "x": x, "y": y},
        "jku": "http://127.0.0.1:9/jwks.json",
        "x5u": "http://127.0.0.1:9/x.pem",
        "x5c": ["MIIB"],
    }.items():
        yield f"{name} of a stranger", forger.signed(stranger, header={name: value})
        yield name, forger.signed(header={name: value})
    for kid in ("", "../../../../dev/null", "' OR 1=1 --", "unknown", 7, ["x"], {"a": 1}):
        yield f"kid {kid} of a stranger", forger.signed(stranger, header={"kid": kid})
        yield f"kid {kid}", forger.signed(header={"kid": kid})
    yield "no kid", forger.signed(header={"kid": None})
    for typ in forger.types:
        yield f"typ {typ!r}", forger.signed(header={"typ": typ})
    yield "crit", forger.signed(header={"crit": ["exp"]})
    yield "b64", forger.signed(header={"b64": False, "crit": ["b64"]})
    yield "zip", forger.signed(header={"zip": "DEF"})
    yield "enc", forger.signed(header={"enc": "A256GCM"})
    body = part(forger.claims)
    twice = b64(json.dumps(forger.header)[:-1].encode() + b', "alg": "none"}')
    yield "alg twice", forger.sign(forger.private, twice, body)
    deep = b64(b'{"alg": ' + b"[" * 2500 + b"]" * 2500 + b"}")
    yield "deep header", forger.sign(forger.private, deep, body)
    yield "header is a list", forger.sign(forger.private, part([]), body)
    yield "header is no JSON", forger.sign(forger.private, b64(b"\xff"), body)


def wrong_claims(forger: Forger) -> Iterator[tuple[str, str]]:
    """Tokens with bad claims, signed with the right key."""
    now = int(time.time())
    audience = forger.claims["aud"]
    wrong: dict[str, list[Any]] = {
        "exp": [now - 1, 0, -1, str(now + 600), now + 600.5, math.nan, math.inf, None, True, [now]],
        "nbf": [now + 1000, "soon", str(now - 5), math.nan, None, [now], True],
        "iat": [now + 1000, str(now), now + 0.5, math.nan, None, [now], True],
        "iss": ["another", "", None, 7, [forger.claims["iss"]], forger.claims["iss"] + " "],
        "aud": ["another", "", None, 7, ["another"], [], {audience: 1}, *forger.audiences],
        **forger.subjects,
    }
    for claim, values in wrong.items():
        for value in values:
            yield f"{claim} {value!r}", forger.signed(**{claim: value})
    for claim in ("exp", "iat", "iss", "aud", *forger.subjects):
        yield f"no {claim}", forger.signed(without=claim)
    head = part(forger.header)
    yield "claims are a list", forger.sign(forger.private, head, part([1]))
    yield "claims are no JSON", forger.sign(forger.private, head, b64(b"{"))
    deep = "[" * 2500 + "]" * 2500
    yield "deep claims", forger.sign(forger.private, head, b64(f'{{"a": {deep}}}'.encode()))
    for claim, value in forger.claims.items():
        twice = f'{json.dumps(forger.claims)[:-1]}, "{claim}": {json.dumps(value)}}}'
        yield f"{claim} twice", forger.sign(forger.private, head, b64(twice.encode()))
    yield "long", forger.signed(padding="x" * 20_000)


def broken(forger: Forger) -> Iterator[tuple[str, str]]:
    """A valid token with altered parts, and texts that are not tokens."""
    good = forger.signed()
    head, body, signature = good.split(".")
    flipped = "B" if signature[9] != "B" else "C"
    yield "five parts", f"{good}.{signature}.{signature}"
    yield "four parts", f"{good}."
    yield "two parts", f"{head}.{body}"
    yield "no signature", f"{head}.{body}."
    yield "signature changed", f"{head}.{body}.{signature[:9]}{flipped}{signature[10:]}"
    yield "signature cut", good[:-4]
    yield "signature of zeros", f"{head}.{body}.{b64(bytes(64))}"
    yield "claims changed", f"{head}.{part({**forger.claims, 'jti': 'x'})}.{signature}"
    yield "padded", f"{good}="
    for text in ("", ".", "..", "...", "null", "abc", "a.b.c", "%00", "é", "Bearer " + good):
        yield f"text {text[:20]!r}", text


def bad_tokens(forger: Forger) -> Iterator[tuple[str, str]]:
    """The name of each fault, and the token."""
    for kind in (wrong_algorithms, wrong_headers, wrong_claims, broken):
        yield from kind(forger)
