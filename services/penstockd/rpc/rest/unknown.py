"""Calls of paths and verbs that no method has."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson
from google.api.httpbody_pb2 import HttpBody

from penstock.rest.v1 import rest_pb2
from penstockd.errors import MethodUnknown
from penstockd.policy.rendering import Render, render_message
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Exchange, Method, Refusal, ServedCall
from penstockd.rpc.frames import http_body
from penstockd.rpc.http_errors import MethodNotAllowed
from penstockd.rpc.rest.errors import finish_call, refuse_call
from penstockd.rpc.rest.media import JSON
from penstockd.rpc.rest.paths import HttpRule, Paths

#: The path that lists the others.
ROOT = "/v1"
_SHOWN = 120  # characters of a path in messages


@dataclass(frozen=True, slots=True)
class UnknownCall:
    """A call that no method serves: its verb, its path, and all paths, of which its own may be
    ``known`` with other verbs."""

    verb: str
    path: str
    paths: Paths[Any]
    known: bool


def unknown_route() -> Route:
    """The route of all such calls: they are authenticated and audited like others."""
    service = rest_pb2.DESCRIPTOR.services_by_name["Calls"]
    method = Method(service.full_name, service.methods[0].name)
    return Route(method, _answer_unknown, HttpBody, documents=True)


async def _answer_unknown(asked: UnknownCall, call: ServedCall) -> bytes:
    """OPTIONS gets the verbs of a path, and GET of the root what there is for the caller.

    Raises MethodNotAllowed and MethodUnknown.
    """
    if asked.path == ROOT and asked.verb in ("GET", "HEAD"):
        return http_body(orjson.dumps({"paths": _list_paths(asked.paths, call)}), JSON)
    verbs = (
        asked.paths.verbs(asked.path, lambda target: _sees_target(call, target))
        if asked.known
        else ()
    )
    if verbs:
        if asked.verb != "OPTIONS":
            raise MethodNotAllowed(asked.verb[:_SHOWN], verbs)
        call.exchange.headers["allow"] = ", ".join(verbs)
        return http_body(b"")
    raise MethodUnknown(f"no such method and path{_suggest_path(asked, call)}")


def _sees_target(call: ServedCall, target: Any) -> bool:
    """Whether a target is of the hub's own methods, or of a dataset with which the caller may do
    anything: any other dataset is like one that does not exist."""
    dataset = target.route.method.dataset
    return dataset is None or call.policy.visible(call.principal, dataset) is not None


def _visible_rules(paths: Paths[Any], call: ServedCall) -> Iterator[tuple[HttpRule, Any]]:
    """The rules that lead to what the caller sees."""
    for rule, target in paths.every_rule():
        if _sees_target(call, target):
            yield rule, target


def _list_paths(paths: Paths[Any], call: ServedCall) -> list[dict[str, Any]]:
    """The paths, each with its verbs and the method that each verb calls."""
    found: dict[str, dict[str, str]] = {}
    for rule, target in _visible_rules(paths, call):
        method = target.route.method
        found.setdefault(rule.template, {})[rule.verb] = f"{method.service}.{method.name}"
    return [{"path": path, "methods": found[path]} for path in sorted(found)]


def _suggest_path(asked: UnknownCall, call: ServedCall) -> str:
    """The path that resembles the one asked for, among those that the caller may see."""
    near = sorted({rule.template for rule, _ in _visible_rules(asked.paths, call)})
    path = asked.path[:_SHOWN]
    if path.rstrip("/") in near:
        return f"; did you mean {path.rstrip('/')}?"
    found = difflib.get_close_matches(path, near, 1, 0.75)
    return f"; did you mean {found[0]}?" if found else ""


@dataclass(slots=True)
class UnknownWire:
    """The wire of such a call."""

    asked: UnknownCall
    #: Whether it came to the service of the door for streams.
    streams: bool = False
    holds_headers: bool = True
    page_format: str = ""
    ticket: None = None

    @property
    def headers_only(self) -> bool:
        """Whether the caller wants no body."""
        return self.asked.verb == "HEAD"

    @property
    def render(self) -> Render[Any]:
        """Nothing is read."""
        return render_message

    async def read(self, exchange: Exchange) -> UnknownCall:
        """What was asked for; the body is not looked at."""
        return self.asked

    async def pack(self, exchange: Exchange, reply: Any) -> bytes:
        """The reply as it is."""
        return bytes(reply)

    async def frame(self, exchange: Exchange, data: bytes) -> bytes:
        """Nothing streams."""
        return data

    async def refuse(self, exchange: Exchange, refusal: Refusal) -> NoReturn:
        """Answer with the error as a body, then with its status."""
        await refuse_call(exchange, refusal, headers_only=self.headers_only, streams=self.streams)

    async def finish(self, exchange: Exchange, reply: bytes | None) -> None:
        """Send the reply."""
        await finish_call(exchange, reply, headers_only=self.headers_only)
