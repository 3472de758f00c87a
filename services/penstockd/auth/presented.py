"""What a caller presents to show who it is: the headers of a call, before anything is verified.

A credential comes as a bearer token or as an API key (``Authorization: Bearer``, ``x-api-key``).
Programs that support only Basic (RFC 7617), such as spreadsheets and BI tools, send a client's id
and secret, or an API key as the password.
"""

from __future__ import annotations

import base64
import binascii
import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from penstockd.auth.credentials import API_KEY, Credentials

#: Challenges of a 401 (RFC 9110, 11.6.1); BAD_TOKEN says that the token is bad (RFC 6750, 3.1).
BEARER = 'Bearer realm="penstock"'
BAD_TOKEN = f'{BEARER}, error="invalid_token"'
BASIC = 'Basic realm="penstock", charset="UTF-8"'


class SignInWay(enum.Enum):
    """The way in which the hub verifies a credential."""

    TOKEN = "token"
    API_KEY = "api_key"
    CLIENT = "client"


@dataclass(frozen=True, slots=True, repr=False)
class Presented:
    """One credential, unverified. Only a client's secret comes with a ``client_id``."""

    way: SignInWay
    secret: str
    client_id: str = ""


def read_presented(metadata: Mapping[str, str]) -> Presented | None:
    """The one credential in the headers of a call; None if there is none, or more than one."""
    authorization, api_key = metadata.get("authorization"), metadata.get("x-api-key")
    if authorization is not None and api_key is not None:
        return None
    if api_key is not None:
        return Presented(SignInWay.API_KEY, api_key)
    scheme, text = split_authorization(authorization or "")
    if scheme == "bearer" and text:
        is_key = Credentials.claimed(API_KEY, text) is not None
        return Presented(SignInWay.API_KEY if is_key else SignInWay.TOKEN, text)
    if scheme == "basic" and accepts_basic(metadata):
        return _read_basic(text)
    return None


def split_authorization(header: str) -> tuple[str, str]:
    """The scheme of an Authorization header, in lower case, and what follows it after any number of
    spaces (RFC 9110, 11.4)."""
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), rest.strip(" ")


def accepts_basic(metadata: Mapping[str, str]) -> bool:
    """Whether a call may use Basic: it must come over TLS, or from this machine.

    A browser adds Basic credentials to the requests that any page sends to the hub, so calls from
    pages of other sites cannot use them.
    """
    if metadata.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    if metadata.get("x-forwarded-proto") == "https":
        return True
    try:
        return ipaddress.ip_address(metadata.get("x-envoy-external-address", "")).is_loopback
    except ValueError:
        return False


def list_challenges(metadata: Mapping[str, str]) -> list[str]:
    """The challenges for a caller without valid credentials, each the value of one
    ``WWW-Authenticate`` header.

    Basic makes a browser ask its user for a password, so only documents that the user opens get
    it, not requests that a page makes.
    """
    presented = read_presented(metadata)
    bad = presented is not None and presented.way is SignInWay.TOKEN
    fetched = metadata.get("sec-fetch-mode", "navigate") != "navigate"
    basic = [BASIC] if accepts_basic(metadata) and not fetched else []
    # A program that keeps only one header of a name keeps the last one.
    return [*basic, BAD_TOKEN if bad else BEARER]


def _read_basic(text: str) -> Presented | None:
    try:
        name, colon, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        return None
    if not colon or not secret:
        return None
    if Credentials.claimed(API_KEY, secret) is not None:
        return Presented(SignInWay.API_KEY, secret)
    return Presented(SignInWay.CLIENT, secret, name)
