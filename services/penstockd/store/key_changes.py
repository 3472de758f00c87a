"""Refuses a change of a key: paths, logs and copies elsewhere contain the present one."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.catalog.comparison import FieldMatches
from penstockd.catalog.manifest import StoredField
from penstockd.store.step import Consent, Step, do_nothing


def find_key_change(
    dataset: str,
    before: Sequence[StoredField],
    wanted: Sequence[StoredField],
    matches: FieldMatches,
) -> Step | None:
    """A step that nothing applies, if the key of a dataset with a table changes: its fields, their
    kinds or their order. ``before`` are its fields as stored, which may have other names now."""
    after = [f for f in wanted if f.key]
    earlier = {new.path: old for old, new in matches.kept}
    if [earlier.get(f.path) for f in after] == before and all(
        old.shape.kind == new.shape.kind for old, new in zip(before, after, strict=True)
    ):
        return None
    was, becomes = (", ".join(f"{f.path} ({f.shape.kind})" for f in key) for key in (before, after))
    return Step(
        f"the key of {dataset} changes from {was} to {becomes}: records cannot change their keys; "
        "make another dataset",
        Consent.NEVER,
        do_nothing,
    )
