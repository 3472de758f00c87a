"""Full access to a dataset, for tests below the policy's tables."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.catalog import Catalog
from penstockd.policy.model import Action, Grant, Mask
from penstockd.policy.view import View
from penstockd.store.tables import Tables


def unrestricted(
    catalog: Catalog, name: str, row_filter: str = "", hidden: Sequence[str] = ()
) -> View:
    """A View of a dataset that hides only the ``hidden`` fields and the rows that ``row_filter``
    excludes."""
    dataset = catalog[name]
    grant = Grant(
        role="everything",
        dataset=name,
        actions=frozenset(Action),
        class_masks=dict.fromkeys({f.field_class for f in dataset.fields}, Mask.CLEAR),
        field_masks=dict.fromkeys(hidden, Mask.HIDE),
        row_filter=row_filter,
    )
    return View(dataset, catalog, Tables(catalog), [grant], revision=1, mask_key=b"")
