"""TLS and client certificates on the public port, and their renewal without a restart."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest

from certificates import Authority, Pair
from door import Door, opened
from fake_hub import ROWS
from harness import PATIENCE
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1 import customers_service_pb2_grpc as api_grpc
from penstockd.node.certificates import Certificates
from penstockd.node.errors import CertificateUnusable

PATH = "/v1/customers/c1"


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def door(authority: Authority, tmp_path: Path) -> AsyncIterator[Door]:
    authority.pair().move_into(tmp_path / "tls")
    async with opened(certificates=Certificates(folder=tmp_path / "tls")) as door:
        yield door


async def serial(door: Door, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that a new connection gets."""
    port = door.envoy.config.port
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return Pair(ssl.DER_cert_to_PEM_cert(shown).encode(), b"").serial


async def serves(door: Door, context: ssl.SSLContext, wanted: Pair) -> None:
    """Wait until new connections get the certificate."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await serial(door, context) == wanted.serial:
                return
            await asyncio.sleep(0.02)


async def test_rest_speaks_http2_and_http1_over_tls(door: Door, authority: Authority) -> None:
    for protocol, expected in (("h2", "h2"), ("http/1.1", "http/1.1")):
        context = authority.context()
        context.set_alpn_protocols([protocol])
        port = door.envoy.config.port
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == expected
        writer.close()
    status, headers, body = await door.call("GET", PATH, ssl=authority.context())
    assert (status, body["customerId"]) == (200, "c1")
    assert headers["strict-transport-security"] == "max-age=31536000"
    status, headers, _ = await door.call("GET", "/nowhere", ssl=authority.context())
    assert (status, headers["strict-transport-security"]) == (404, "max-age=31536000")


async def test_grpc_speaks_tls(door: Door, authority: Authority) -> None:
    trusted = grpc.ssl_channel_credentials(authority.chain)
    target = f"127.0.0.1:{door.envoy.config.port}"
    async with grpc.aio.secure_channel(target, trusted) as channel:
        reply = await api_grpc.CustomersStub(channel).GetCustomer(
            api.GetCustomerRequest(customer_id="g")
        )
    assert reply.customer_id == "g"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_what_is_not_tls_or_too_old_is_refused(door: Door, authority: Authority) -> None:
    old = authority.context()
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.raises(ssl.SSLError):
        await serial(door, old)
    stranger = Authority()
    with pytest.raises(ssl.SSLCertVerificationError):
        await serial(door, stranger.context())
    with pytest.raises(aiohttp.ClientConnectionError):
        url = door.envoy.config.url.replace("https", "http")
        async with door.http.get(url + PATH):
            pass


@pytest.mark.parametrize("way", ["mv", "mount"])
async def test_a_new_certificate_needs_no_restart(
    authority: Authority, tmp_path: Path, way: str
) -> None:
    folder = tmp_path / "tls"
    first, second, third = (authority.pair() for _ in range(3))
    context = authority.context()

    def put(pair: Pair, generation: str) -> None:
        if way == "mv":
            pair.move_into(folder)
        else:
            pair.mount_into(folder, generation)

    put(first, "1")
    async with opened(certificates=Certificates(folder=folder)) as door:
        assert await serial(door, context) == first.serial
        url = door.envoy.config.url + "/v1/customers:export"
        async with door.http.get(url, ssl=context) as export:
            rows = (await export.content.readany()).count(b"\n")
            for pair, generation in ((second, "2"), (third, "3")):
                put(pair, generation)
                await serves(door, context, pair)
            # An existing connection continues, whatever it carries.
            async for piece in export.content.iter_any():
                rows += piece.count(b"\n")
        assert rows == ROWS + 1
        status, _, _ = await door.call("GET", PATH, ssl=context)
        assert status == 200


async def test_what_does_not_fit_together_changes_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "tls"
    first, second = authority.pair(), authority.pair()
    first.move_into(folder)
    async with opened(certificates=Certificates(folder=folder)) as door:
        Pair(second.chain, first.key).move_into(folder)
        await refused(door)
        assert await serial(door, authority.context()) == first.serial
        second.move_into(folder)
        await serves(door, authority.context(), second)


async def refused(door: Door) -> None:
    """Wait until the sidecar has refused a certificate."""
    async with asyncio.timeout(PATIENCE):
        while True:
            stats = await door.envoy.admin("GET", "/stats?filter=sds.certificate")
            counts = dict(line.split(": ") for line in stats.splitlines() if "sds" in line)
            if any(int(v) for k, v in counts.items() if k.endswith("key_rotation_failed")):
                return
            await asyncio.sleep(0.02)


async def test_clients_must_show_a_certificate(authority: Authority, tmp_path: Path) -> None:
    authority.pair().move_into(tmp_path / "tls")
    clients, strangers = Authority("clients"), Authority("clients")
    known = clients.pair(client="crm").file(tmp_path / "known.pem")
    unknown = strangers.pair(client="crm").file(tmp_path / "unknown.pem")
    expired = clients.pair(client="crm", days=-1, begin=-2).file(tmp_path / "expired.pem")
    authorities = tmp_path / "authorities"
    authorities.mkdir()
    (authorities / "ca.pem").write_bytes(clients.chain)
    given = Certificates(folder=tmp_path / "tls", client_ca=authorities / "ca.pem")
    async with opened(certificates=given) as door:
        status, _, _ = await door.call("GET", PATH, ssl=authority.context(known))
        assert status == 200
        for shown in (None, unknown, expired):
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await door.call("GET", PATH, ssl=authority.context(shown))
        assert door.hub.calls == 1
        # Another list of authorities, moved into place, applies to new connections.
        (tmp_path / "new.pem").write_bytes(strangers.chain)
        (tmp_path / "new.pem").rename(authorities / "ca.pem")
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await door.call("GET", PATH, ssl=authority.context(unknown))
                    break
                except (aiohttp.ClientError, ConnectionError):
                    await asyncio.sleep(0.02)


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    good, other = authority.pair(), authority.pair()
    encrypted = (
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    cases = {
        "is not the key of": Pair(good.chain, other.key),
        "expired on": authority.pair(days=-1, begin=-2),
        "is not valid before": authority.pair(days=3, begin=2),
        "contains no PEM certificate": Pair(b"nothing", good.key),
        "holds no private key": Pair(good.chain, b"nothing"),
        "holds no private key without": Pair(good.chain, encrypted),
    }
    with pytest.raises(CertificateUnusable, match=r"tls.crt cannot be read: No such file"):
        Certificates(folder=folder).check()
    for said, pair in cases.items():
        pair.move_into(folder)
        with pytest.raises(CertificateUnusable, match=f"^[^\n]*{said}[^\n]*$"):
            Certificates(folder=folder).check()
    good.move_into(folder)
    Certificates(folder=folder).check()
    ca = tmp_path / "ca.pem"
    with pytest.raises(CertificateUnusable, match=r"ca.pem cannot be read"):
        Certificates(folder=folder, client_ca=ca).check()
    ca.write_bytes(authority.chain)
    Certificates(folder=folder, client_ca=ca).check()
