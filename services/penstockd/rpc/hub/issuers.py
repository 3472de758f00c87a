"""Issuers outside the hub, and the hub's own signing keys."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from penstock.hub.v1 import issuers_pb2 as pb
from penstockd.access.masks import put_entries, split_path
from penstockd.auth.issuers import ClaimMapping, Issuer
from penstockd.auth.keys import ALGORITHM, SigningKey, SigningKeys
from penstockd.commands.access.create_issuer import create_issuer
from penstockd.commands.access.get_issuer import get_issuer
from penstockd.commands.access.list_issuers import list_issuers
from penstockd.commands.access.list_signing_keys import list_signing_keys
from penstockd.commands.access.remove_issuer import remove_issuer
from penstockd.commands.access.rotate_signing_keys import rotate_signing_keys
from penstockd.commands.access.update_issuer import update_issuer
from penstockd.errors import ValueInvalid, Violation
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.routes import routes_of


def list_routes() -> Iterator[Route]:
    """The methods of both services."""
    yield from routes_of(
        pb.DESCRIPTOR.services_by_name["Issuers"],
        {
            "ListIssuers": _list_issuers,
            "GetIssuer": _get_issuer,
            "CreateIssuer": _create_issuer,
            "UpdateIssuer": _update_issuer,
            "DeleteIssuer": _delete_issuer,
        },
    )
    yield from routes_of(
        pb.DESCRIPTOR.services_by_name["SigningKeys"],
        {"ListSigningKeys": _list_keys, "RotateSigningKeys": _rotate_keys},
    )


async def _list_issuers(request: pb.ListIssuersRequest, call: ServedCall) -> pb.ListIssuersResponse:
    found, token = await list_issuers(call.hub, call, request.page_size, request.page_token)
    return pb.ListIssuersResponse(issuers=map(_issuer_message, found), next_page_token=token)


async def _get_issuer(request: pb.GetIssuerRequest, call: ServedCall) -> pb.Issuer:
    return _issuer_message(await get_issuer(call.hub, call, request.issuer_id))


async def _create_issuer(request: pb.CreateIssuerRequest, call: ServedCall) -> pb.Issuer:
    return _issuer_message(await create_issuer(call.hub, call, _read_issuer(request.issuer)))


async def _update_issuer(request: pb.UpdateIssuerRequest, call: ServedCall) -> pb.Issuer:
    given, mask = request.issuer, request.update_mask
    paths = list(mask.paths) or [f.name for f, _ in given.ListFields()]
    known = {f.name for f in pb.Issuer.DESCRIPTOR.fields}
    for path in paths:
        top, *key = split_path(path)
        if top not in known or len(key) > (top == "consumers"):
            violation = Violation("update_mask", f"no field '{path}'")
            raise ValueInvalid(f"an issuer has no field '{path}'", violations=[violation])

    def change(stored: Issuer) -> Issuer:
        changed = _issuer_message(stored)
        plain = [path for path in paths if path.partition(".")[0] != "consumers"]
        for path in plain:
            changed.ClearField(path)
        FieldMask(paths=plain).MergeMessage(given, changed, replace_repeated_field=True)
        put_entries("consumers", given, changed, paths)
        changed.issuer_id = stored.issuer_id
        return _read_issuer(changed)

    return _issuer_message(await update_issuer(call.hub, call, given.issuer_id, change))


async def _delete_issuer(request: pb.DeleteIssuerRequest, call: ServedCall) -> Empty:
    await remove_issuer(call.hub, call, request.issuer_id)
    return Empty()


async def _list_keys(
    request: pb.ListSigningKeysRequest, call: ServedCall
) -> pb.ListSigningKeysResponse:
    size, token = request.page_size, request.page_token
    page, token = list_signing_keys(call.hub, call, size, token)
    keys = _key_messages(call.hub.tokens.keys, page)
    return pb.ListSigningKeysResponse(keys=keys, next_page_token=token)


async def _rotate_keys(
    request: pb.RotateSigningKeysRequest, call: ServedCall
) -> pb.RotateSigningKeysResponse:
    keys = await rotate_signing_keys(call.hub, call, now=request.now)
    return pb.RotateSigningKeysResponse(keys=_key_messages(keys, keys.newest()))


def _read_issuer(message: pb.Issuer) -> Issuer:
    """The issuer of a message, with defaults for what is unset."""
    return Issuer(
        issuer_id=message.issuer_id,
        title=message.title,
        issuer=message.issuer,
        jwks_uri=message.jwks_uri,
        audiences=tuple(message.audiences),
        algorithms=tuple(message.algorithms) or ("RS256", "ES256"),
        token_types=tuple(message.token_types) or ("at+jwt",),
        consumer_id=message.consumer_id,
        consumer_claim=message.consumer_claim,
        consumers=dict(message.consumers),
        consumers_by_claim=message.consumers_by_claim,
        claims=tuple(ClaimMapping(c.token_claim, c.claim, c.override) for c in message.claims),
        scope_claim=message.scope_claim,
        max_age_seconds=message.max_age_seconds or 3600,
        active=message.active if message.HasField("active") else True,
    )


def _issuer_message(issuer: Issuer) -> pb.Issuer:
    return pb.Issuer(
        issuer_id=issuer.issuer_id,
        title=issuer.title,
        issuer=issuer.issuer,
        jwks_uri=issuer.jwks_uri,
        audiences=issuer.audiences,
        algorithms=issuer.algorithms,
        token_types=issuer.token_types,
        consumer_id=issuer.consumer_id,
        consumer_claim=issuer.consumer_claim,
        consumers=issuer.consumers,
        consumers_by_claim=issuer.consumers_by_claim,
        claims=[
            pb.ClaimMapping(token_claim=c.token_claim, claim=c.claim, override=c.override)
            for c in issuer.claims
        ],
        scope_claim=issuer.scope_claim,
        max_age_seconds=issuer.max_age_seconds,
        active=issuer.active,
    )


def _key_messages(keys: SigningKeys, page: Sequence[SigningKey]) -> Iterator[pb.SigningKey]:
    """Some of the keys in force."""
    now = time.time()
    signer = keys.signer(now)
    state = pb.SigningKey.State
    for key in page:
        does = state.PUBLISHED if key.sign_time.timestamp() > now else state.VERIFYING
        yield pb.SigningKey(
            key_id=key.key_id,
            algorithm=ALGORITHM,
            state=state.SIGNING if key is signer else does,
            create_time=key.create_time,
            sign_time=key.sign_time,
            retire_time=key.retire_time,
        )
