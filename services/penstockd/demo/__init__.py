"""A made-up company to try the hub with: the same bytes for the same size and seed, anywhere.

Records come as CSV in the form that imports accept. The company of N customers is the beginning of
every larger one, except for products, of which there are N / 10, at least 50 and at most 2,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from penstockd.demo import customers, orders
from penstockd.demo.draw import SEED

#: The datasets, ordered so that each refers only to earlier ones.
DATASETS = ("customers", "contacts", "products", "orders", "interactions")

_ROWS: dict[str, tuple[str, Callable[[int, str], Iterator[str]]]] = {
    "customers": (customers.HEADER, customers.generate_customers),
    "contacts": (customers.CONTACTS_HEADER, customers.generate_contacts),
    "products": (orders.PRODUCTS_HEADER, orders.generate_products),
    "orders": (orders.HEADER, orders.generate_orders),
    "interactions": (customers.INTERACTIONS_HEADER, customers.generate_interactions),
}
_ROWS_PER_CHUNK = 1000


def generate_records(dataset: str, customers: int, seed: str = SEED) -> Iterator[bytes]:
    """The records of a dataset in a company with so many customers, as chunks of one CSV file.

    The header names field paths; NULL is empty and unquoted, the empty string ``""``; lists and
    maps are JSON. Raises ValueError for an unknown dataset or a negative number.
    """
    if dataset not in _ROWS:
        raise ValueError(f"the demo has no dataset '{dataset}'; it has {', '.join(DATASETS)}")
    if customers < 0:
        raise ValueError("the number of customers must not be negative")
    header, rows = _ROWS[dataset]
    return _chunk_rows(header, rows(customers, seed))


def _chunk_rows(header: str, rows: Iterator[str]) -> Iterator[bytes]:
    yield (header + "\n").encode()
    while chunk := "".join(islice(rows, _ROWS_PER_CHUNK)):
        yield chunk.encode()
