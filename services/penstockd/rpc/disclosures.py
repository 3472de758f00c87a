"""Stops records that no audit entry covers from leaving the hub.

The descriptors say which replies can show records. Such a reply leaves only after the call has
disclosed its content (``Call.disclose``); a frame of a stream leaves only with a permit. A handler
that forgets this has a defect: its call fails, and nothing leaves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from penstockd.catalog import Catalog

#: Texts and files, whose content no descriptor describes.
_OPAQUE = frozenset({"google.protobuf.Any", "google.api.HttpBody"})
#: The reply of a webhook's endpoint is the endpoint's own data.
_FOREIGN = frozenset({"penstock.hub.v1.Attempt.response_body"})


class Undisclosed(AssertionError):
    """A reply shows records that the audit does not cover."""


class _DisclosureStep(NamedTuple):
    """A field through which a message leads to records; ``inner`` is None if it holds some."""

    name: str
    is_repeated: bool
    inner: tuple[_DisclosureStep, ...] | None


class ReplyGuard:
    """Tells whether a method's replies show records; ``opaque`` ones always do."""

    def __init__(self, catalog: Catalog, output: Descriptor) -> None:
        self._records = frozenset(d.message_type.full_name for d in catalog) | _OPAQUE
        self._output = GetMessageClass(output)
        self.opaque = output.full_name in self._records
        self._steps = () if self.opaque else self._steps_of(output, ())

    @property
    def idle(self) -> bool:
        """Whether no reply can show records."""
        return not self.opaque and not self._steps

    def shows_records(self, reply: Message | bytes) -> bool:
        """Whether a reply, or a frame of one, shows records."""
        if self.opaque:
            return True
        if not self._steps:
            return False
        message = self._output.FromString(reply) if isinstance(reply, bytes) else reply
        return _has_value(message, self._steps)

    def _steps_of(self, kind: Descriptor, above: tuple[str, ...]) -> tuple[_DisclosureStep, ...]:
        found = []
        for field in kind.fields:
            inner: tuple[_DisclosureStep, ...] | None = ()
            if field.type == FieldDescriptor.TYPE_BYTES and field.full_name not in _FOREIGN:
                inner = None
            elif field.message_type is not None:
                name = field.message_type.full_name
                if name in self._records:
                    inner = None
                elif name not in above:
                    inner = self._steps_of(field.message_type, (*above, name))
            if inner is None or inner:
                found.append(_DisclosureStep(field.name, field.is_repeated, inner))
        return tuple(found)


def _has_value(message: Any, steps: tuple[_DisclosureStep, ...]) -> bool:
    for name, is_repeated, inner in steps:
        value = getattr(message, name)
        if is_repeated:
            if len(value) and (
                inner is None or any(_has_value(v, inner) for v in _repeated_values(value))
            ):
                return True
        elif isinstance(value, bytes):
            if value:
                return True
        elif message.HasField(name) and (inner is None or _has_value(value, inner)):
            return True
    return False


def _repeated_values(repeated: Any) -> Any:
    """The elements of a repeated field, or the values of a map."""
    return repeated.values() if hasattr(repeated, "values") else repeated
