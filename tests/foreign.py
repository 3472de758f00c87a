"""An issuer other than the hub: its keys, its tokens, and the server of its key set."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

NAME = "https://login.example.com/tenant"
AUDIENCE = "https://hub.example.com"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(value: Any) -> str:
    return b64(json.dumps(value).encode())


@dataclass
class ForeignIssuer:
    """Makes keys and tokens. ``url`` is the address of its key set."""

    url: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)

    def add(self, key_id: str, algorithm: str = "ES256", *, listed: bool = True) -> Any:
        """Make a new key, which is in the key set unless ``listed`` is false."""
        made: Any
        if algorithm.startswith(("RS", "PS")):
            made = rsa.generate_private_key(65537, 2048)
        elif algorithm == "EdDSA":
            made = ed25519.Ed25519PrivateKey.generate()
        else:
            curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
            made = ec.generate_private_key(curves[algorithm])
        self.keys[key_id] = made
        if listed:
            self.listed.append(self.jwk(key_id, algorithm))
        return made

    def jwk(self, key_id: str, algorithm: str) -> dict[str, Any]:
        public = self.keys[key_id].public_key()
        made = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
        made.pop("key_ops", None)
        return {**made, "kid": key_id, "use": "sig", "alg": algorithm}

    def claims(self, **changed: Any) -> dict[str, Any]:
        """The claims of a valid token for the consumer crm; None removes one."""
        now = int(time.time())
        made = {"iss": NAME, "aud": AUDIENCE, "azp": "crm", "iat": now, "exp": now + 600}
        return {k: v for k, v in {**made, **changed}.items() if v is not None}

    def token(
        self,
        key_id: str = "k1",
        algorithm: str = "ES256",
        *,
        key: Any = None,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A signed token; the arguments say how it differs from a valid one."""
        head = {"alg": algorithm, "kid": key_id, "typ": "at+jwt", **(header or {})}
        head = {k: v for k, v in head.items() if v is not None}
        return self.sign(head, self.claims(**claims), algorithm, key or self.keys[key_id])

    def sign(self, head: Any, claims: Any, algorithm: str, key: Any) -> str:
        parts = [x if isinstance(x, str) else part(x) for x in (head, claims)]
        content = ".".join(parts)
        made = jwt.get_algorithm_by_name(algorithm).sign(content.encode(), key)
        return f"{content}.{b64(made)}"

    def document(self) -> bytes:
        return json.dumps({"keys": self.listed}).encode()


@dataclass
class KeyServer:
    """Serves the key set by HTTP and counts requests; ``answer`` may replace the usual reply."""

    issuer: ForeignIssuer
    requests: int = 0
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[KeyServer]:
        """Serve on a loopback port while the block runs."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                with contextlib.suppress(ConnectionError):
                    if outer.answer is not None:
                        outer.answer(self)
                        return
                    body = outer.issuer.document()
                    self.send_response(200)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.issuer.url = f"http://127.0.0.1:{server.server_port}/jwks.json"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
