"""The Lens: a View over serialised records of the change log.

For the same records it returns what the View's SQL returns, byte for byte and row by row, without
the database, so that a feed and an export of the same View fit together.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from google.protobuf.message import Message

from penstockd.catalog import MOVING, Catalog, Field
from penstockd.catalog.record import Codec
from penstockd.policy.comparison import MessageComparison
from penstockd.policy.masks import TEXT_MASKS, make_mask
from penstockd.policy.model import Mask
from penstockd.policy.projection import Projection
from penstockd.policy.question import Find, Follow, Question
from penstockd.policy.view import View
from penstockd.query import Expression, make_canonical, parse_fields, parse_filter

__all__ = ["Find", "Follow", "Lens"]


class Lens:
    """A View over images (serialised records) of one dataset: the answers of SQL, in Python.

    ``fields`` and ``filter`` are a caller's, as for a list or an export. An image comes from the
    change log and contains all fields.
    """

    def __init__(
        self,
        view: View,
        catalog: Catalog,
        *,
        fields: str = "",
        filter: str = "",
        only: Sequence[Field] | None = None,
        form: str = "",
    ) -> None:
        """``only`` are visible fields in place of ``fields``. ``form`` is a text that also decides
        how records are shown, such as a shape; ``view_id`` covers it. Raise FieldUnknown,
        SelectionError and FilterError as lists and exports do."""
        self.view, self.dataset, self.revision = view, view.dataset, view.revision
        self._catalog, self._written, self._form = catalog, (fields, filter), form
        self.fields: tuple[Field, ...] = parse_fields(fields, view) if only is None else (*only,)
        asked = parse_filter(filter) if filter.strip() else None
        rule = view.row_rule
        self._rule = self._filter = None
        if rule is not None:
            self._rule = Question(rule, view.row_names, view.dataset, catalog, _as_it_is)
        if asked is not None:
            self._filter = Question(asked, view, view.dataset, catalog, self._make_getter)
        self._questions = [q for q in (self._rule, self._filter) if q is not None]
        shown = set(self.fields)
        masks = {f: view.mask(f) if f in shown else Mask.HIDE for f in view.dataset.fields}
        self._projection = Projection(view.dataset.message_type, view.dataset.fields, masks, view)
        self._cleans = view.dataset.name in catalog.with_former_fields
        self._codec = Codec(view.dataset, self.fields)
        # Fields that are NULL to the caller never differ.
        told = [f for f in self.fields if view.mask(f) is not Mask.NULL]
        self._comparison = MessageComparison(view.dataset, told)
        self._open = all(map(view.is_whole, view.dataset.fields))
        self._parse = view.dataset.message_class.FromString
        self.view_id = self._digest(rule, asked)

    def in_view(self, view: View) -> Lens:
        """The same lens for another View of the dataset. Raises what ``Lens`` raises."""
        fields, filter = self._written
        return Lens(view, self._catalog, fields=fields, filter=filter)

    # --- properties -----------------------------------------------------------------------

    @property
    def rule_fields(self) -> str:
        """What it shows of a record, as the text of a selection (see ``Call.rule``)."""
        return self._written[0]

    @property
    def sees_all(self) -> bool:
        """Whether it shows every record, having neither a row rule nor a filter."""
        return not self._questions

    @property
    def clear(self) -> bool:
        """Whether ``project`` returns images unchanged."""
        return self._projection.identity and not self._cleans

    @property
    def follows(self) -> tuple[Follow, ...]:
        """The references that the row rule follows, each before those that continue from it."""
        return () if self._rule is None else self._rule.follows

    # --- one record --------------------------------------------------------------------------

    def shows(self, image: bytes, find: Find) -> bool:
        """Whether the caller sees the record; ``find`` looks up the records it refers to."""
        return self.sees_all or self._passes(self._parse(image), find)

    def project(self, image: bytes) -> bytes:
        """The record as the caller sees it, serialised without hidden parts.

        Deterministic: equal to what ``of_row`` makes of the row that the View reads.
        """
        return image if self.clear else self._projected(self._parse(image))

    def see(self, image: bytes, find: Find) -> bytes | None:
        """``project`` if it ``shows`` the record, else None; quicker than two calls."""
        if self.sees_all:
            return self.project(image)
        record = self._parse(image)
        if not self._passes(record, find):
            return None
        return image if self.clear else self._projected(record)

    def of_row(self, row: Sequence[Any]) -> bytes:
        """The same for a row of ``fields`` that was read through the View (see ``View.select``)."""
        return self._codec.message(row).SerializeToString(deterministic=True)

    def changed(self, before: bytes, after: bytes) -> list[str]:
        """The paths of the shown fields in which two projected images of a record differ.

        Empty if nothing changed that the caller may see. ``update_time`` and ``etag`` also change
        with hidden fields and would reveal that; so unless the View shows everything in the clear,
        they alone do not count as a difference.
        """
        if before == after:
            return []
        paths = self._comparison.differing(self._parse(before), self._parse(after))
        return paths if self._open or not MOVING.issuperset(paths) else []

    # --- many --------------------------------------------------------------------------------

    def shows_all(self, images: Sequence[bytes], find: Find) -> list[bool]:
        """``shows`` for each image."""
        if self.sees_all:
            return [True] * len(images)
        parse, passes = self._parse, self._passes
        return [passes(parse(image), find) for image in images]

    def project_all(self, images: Sequence[bytes]) -> list[bytes]:
        """``project`` for each image."""
        if self.clear:
            return list(images)
        parse, projected = self._parse, self._projected
        return [projected(parse(image)) for image in images]

    def see_all(self, images: Sequence[bytes], find: Find) -> list[bytes | None]:
        """``see`` for each image."""
        if self.sees_all:
            return [*self.project_all(images)]
        see = self.see
        return [see(image, find) for image in images]

    # --- within ------------------------------------------------------------------------------

    def _passes(self, record: Message, find: Find) -> bool:
        return all([question.ask(record, find) for question in self._questions])

    def _projected(self, record: Message) -> bytes:
        # The policy cannot decide who may see a field that the model no longer has.
        record.DiscardUnknownFields()
        self._projection.apply(record)
        return record.SerializeToString(deterministic=True)

    def _make_getter(self, field: Field) -> Callable[[Any], Any] | None:
        """How the caller's filter sees a field's values; None for unchanged."""
        mask = self.view.mask(field)
        if mask in TEXT_MASKS:
            return make_mask(mask, self.view.hash_key(field))
        if (stripping := self.view.stripping(field)) is not None:
            return stripping.json
        return _show_nothing if mask is Mask.NULL else None

    def _digest(self, rule: Expression | None, asked: Expression | None) -> str:
        """Identifies what the Lens shows; stable across processes and revisions.

        Keyed, so that nobody who gets it can guess the row rule by trying rules.
        """
        filtered = () if self._filter is None else self._filter.fields
        seen = {
            "dataset": self.dataset.name,
            "fields": [(f.path, self.view.seen(f)) for f in self.fields],
            "rows": rule and make_canonical(rule),
            "filter": asked and make_canonical(asked),
            "filtered": [
                (f.path, self.view.seen(f)) for f in sorted(filtered, key=lambda f: f.path)
            ],
        }
        if self._form:
            seen["form"] = hashlib.sha256(self._form.encode()).hexdigest()
        text = b"view\n" + orjson.dumps(seen, option=orjson.OPT_SORT_KEYS)
        return hmac.digest(self.view.mask_key, text, hashlib.sha256)[:16].hex()


def _as_it_is(field: Field) -> None:
    """Row rules see values in the clear."""
    return None


def _show_nothing(value: Any) -> None:
    return None
