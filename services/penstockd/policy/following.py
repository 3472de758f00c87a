"""The other datasets that a row filter reads: the rows that it shows reveal their records, too."""

from __future__ import annotations

from penstockd.catalog import Catalog
from penstockd.policy.model import Grant
from penstockd.policy.row_filters import RowNames
from penstockd.query import FilterError, named_fields, parse_rule
from penstockd.store.tables import Tables


def followed_datasets(grant: Grant, catalog: Catalog, tables: Tables) -> tuple[str, ...]:
    """The datasets that the grant's row filter reaches through references, in order of name.

    Empty for a filter that no longer fits the model: it shows no row.
    """
    if not grant.row_filter or grant.dataset not in catalog:
        return ()
    dataset = catalog[grant.dataset]
    names = RowNames(dataset, catalog, tables, tables[dataset.name])
    found = set()
    try:
        prefixes = {
            prefix for prefix, _ in named_fields(parse_rule(grant.row_filter).expression, names)
        }
    except FilterError:
        return ()
    for prefix in prefixes:
        here = dataset
        for alias in prefix.split(".")[:-1]:
            reference = here.references[alias].reference
            assert reference is not None, "references are found by their aliases"
            here = catalog[reference.dataset]
            found.add(here.name)
    return tuple(sorted(found))
