"""Applies a View's masks and a choice of fields to records that are serialised messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from penstockd.catalog import Field
from penstockd.catalog.record import holds_its_message
from penstockd.policy.masks import TEXT_MASKS, make_mask
from penstockd.policy.members import Stripping
from penstockd.policy.model import Mask
from penstockd.policy.view import View


class Projection:
    """Removes in place what is not shown of one message and the messages within it.

    ``fields`` are all leaves of the message, ``masks`` has the mask of each, and the View the keys
    of hashes. The result equals what ``record.Codec`` makes of the row that the View reads.
    """

    def __init__(
        self,
        message: Descriptor,
        fields: Sequence[Field],
        masks: Mapping[Field, Mask],
        view: View,
        depth: int = 0,
    ) -> None:
        within: dict[str, list[Field]] = {}
        for field in fields:
            within.setdefault(field.steps[depth], []).append(field)
        self._dropped: list[str] = []
        self._masked: list[tuple[str, bool, Callable[[str], str]]] = []
        self._stripped: list[tuple[str, Stripping]] = []
        self._nested: list[tuple[str, Projection, bool]] = []
        numbers = [message.fields_by_name[name].number for name in within]
        #: Whether a record of the log stays unchanged. The log has fields in the order of the
        #: schema, protobuf writes them in that of their numbers; the two may differ.
        self.identity = numbers == sorted(numbers)
        for name, leaves in within.items():
            shown = [f for f in leaves if masks[f] not in (Mask.NULL, Mask.HIDE)]
            if not shown:
                self._dropped.append(name)
            elif len(leaves[0].steps) > depth + 1:
                self._nest(message, name, leaves, masks, view, depth)
            elif masks[shown[0]] in TEXT_MASKS:
                mask = make_mask(masks[shown[0]], view.hash_key(shown[0]))
                self._masked.append((name, shown[0].presence, mask))
            elif (stripping := view.stripping(shown[0])) is not None:
                self._stripped.append((name, stripping))
        self.identity &= not (self._dropped or self._masked or self._stripped)

    def _nest(
        self,
        message: Descriptor,
        name: str,
        leaves: Sequence[Field],
        masks: Mapping[Field, Mask],
        view: View,
        depth: int,
    ) -> None:
        inner = message.fields_by_name[name].message_type
        assert inner is not None, "a path goes through messages only"
        projection = Projection(inner, leaves, masks, view, depth + 1)
        shown = [f for f in leaves if masks[f] not in (Mask.NULL, Mask.HIDE)]
        own = [f for f in shown if len(f.steps) == depth + 2]
        # A message is absent if none of its shown fields has a value.
        fragile = not any(map(holds_its_message, own))
        if not projection.identity:
            self._nested.append((name, projection, fragile))
            self.identity = False

    def apply(self, message: Message) -> None:
        """Strip a record's message in place to what is shown of it."""
        for name in self._dropped:
            message.ClearField(name)
        for name, optional, mask in self._masked:
            if not optional or message.HasField(name):
                setattr(message, name, mask(getattr(message, name)))
        for name, stripping in self._stripped:
            stripping.apply(getattr(message, name))
        for name, projection, fragile in self._nested:
            if message.HasField(name):
                held: Any = getattr(message, name)
                projection.apply(held)
                if fragile and not held.ByteSize():
                    message.ClearField(name)
