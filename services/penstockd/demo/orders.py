"""Products, and orders of them with exact sums."""

# Names in other scripts contain letters that look like Latin ones, on purpose.
# ruff: noqa: RUF001

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import islice

from penstockd.demo import customers as people
from penstockd.demo.draw import POOL, draw_first, draw_numbers, make_pool, quote_csv, weighted_pool
from penstockd.demo.people import make_pools

PRODUCTS_HEADER = (
    "product_id,name,description,category,supplier,package,unit_price,currency_code,"
    "units_in_stock,units_on_order,reorder_level,discontinued,tags,weight_kg,attributes,"
    "source,source_id"
)
HEADER = (
    "order_id,customer_id,status,order_date,required_date,shipped_date,currency_code,total,"
    "freight,shipping_address.recipient,shipping_address.line1,shipping_address.city,"
    "shipping_address.region,shipping_address.postal_code,shipping_address.country,lines,"
    "employee_id,carrier,source,source_id"
)

_FIRST = ["Alpine", "Café", "Classic", "Nordic", 'The "Big"', "Señorita", "Żubr", "Ünlü", "Matcha"]
_SECOND = ["Tea", "Coffee, whole bean", "Chair", "Notebook", "Lamp", "Smörgås Knife", "鉛筆", "Bag"]
_CATEGORIES = ["Beverages", "Office", "Furniture", "Kitchen", "Stationery", ""]
_SUPPLIERS = ["Müller & Söhne", "Exotic, Ltd.", "Ярмарок", "東京貿易", "Wholesale Inc."]
_PACKAGES = ["10 boxes x 20 bags", "12 - 550 ml", '1 x 24"', "each", "500 g pkg."]
_TAGS = ["[]", '["new"]', '["sale","last \\"chance\\""]', '["fair trade"]']
_ATTRIBUTES = [
    "{}", '{"colour":"red"}', '{"colour":"blue","size":"L"}', '{"größe":"40 × 60","note":"a, b"}',
]  # fmt: skip


def product_count(customers: int) -> int:
    """How many products a company with so many customers has."""
    return min(2000, max(50, customers // 10))


def generate_products(customers: int, seed: str) -> Iterator[str]:
    """The lines of all products, in the order of PRODUCTS_HEADER."""
    forms = [_SUPPLIERS, _PACKAGES, _TAGS, _ATTRIBUTES, _CATEGORIES]
    suppliers, packages, tags, attributes, categories = (
        make_pool([quote_csv(text) for text in texts], seed, texts[1]) for texts in forms
    )
    for p, drawn in enumerate(_product_draws(product_count(customers), seed)):
        a, b, c, d, e, f, g, stock, _ = drawn
        name = quote_csv(f"{_FIRST[a % len(_FIRST)]} {_SECOND[b % len(_SECOND)]} No. {p + 1}")
        about = quote_csv(f'Made with care.\nNumber {p + 1}, "the best".') if c > 128 else ""
        price = _price_of(drawn)
        yield (
            f"p{p + 1:04d},{name},{about},{categories[d] if c > 20 else ''},"
            f"{suppliers[d] if e > 30 else ''},{packages[e] if f > 15 else ''},"
            f"{price // 100}.{price % 100:02d},EUR,{stock},{f if f > 200 else 0},{g % 50},"
            f"{'true' if g > 235 else 'false'},{tags[a]},{_format_weight(b, stock)},"
            f"{attributes[b]},erp,{p + 1:x}\n"
        )


def _product_draws(count: int, seed: str) -> Iterator[tuple[int, ...]]:
    return draw_first(count, "7BHH", seed, "products")


def _price_of(drawn: tuple[int, ...]) -> int:
    """The price of the product with these random bytes."""
    return 45 + drawn[8] % 20000


def _format_weight(some: int, more: int) -> str:
    return repr((more % 5000 + 1) / 1000) if some > 50 else ""


_ORDERS = weighted_pool((32, 0), (80, 1), (64, 2), (48, 3), (16, 4), (16, 5))
_LINES = weighted_pool((76, 1), (68, 2), (48, 3), (32, 4), (20, 5), (12, 6))
_STATUS = weighted_pool((40, "PLACED"), (56, "SHIPPED"), (140, "DELIVERED"), (20, "CANCELLED"))
_QUANTITIES = (1, 1, 1, 2, 2, 3, 4, 5, 6, 10, 12, 15, 20, 24, 48, 120)
#: Discounts as written, and in hundredths; a NULL discount is not written.
_DISCOUNTS = (
    ("", 0), ("", 0), ("", 0), ("0", 0), ("0.05", 5), ("0.1", 10), ("0.15", 15), ("0.20", 20),
)  # fmt: skip
_CARRIERS = ["Speedy Parcel", "Post & Co.", "Trans, Inc.", "Кур'єр", ""]
_EMPLOYEES = ["e1", "e2", "e3", "e4", "e5", "e6", "e7"]
_DAYS = 4 * POOL
#: Coprime to every number of products, so that all lines of an order have different products.
_STRIDE = 7919


def generate_orders(customers: int, seed: str) -> Iterator[str]:
    """The lines of the orders of each customer, none to five, in the order of HEADER.

    An order holds only products that exist in a company that ends with its customer.
    """
    heads, cents = _make_lines(product_count(customers), seed)
    tails = [_format_tail(quantity, text) for text, _ in _DISCOUNTS for quantity in _QUANTITIES]
    factors = [quantity * (100 - off) for _, off in _DISCOUNTS for quantity in _QUANTITIES]
    countries = make_pools(seed)
    days = [str(date(2022, 1, 1) + timedelta(days=n)) for n in range(_DAYS + 60)]
    freights = make_pool(
        ["", "0", "3.25", "12.5", "4.90", "148.33", "0.0125", "9"], seed, "freights"
    )
    carriers = make_pool([quote_csv(name) if name else "" for name in _CARRIERS], seed, "carriers")
    employees = make_pool([*_EMPLOYEES, ""], seed, "employees")
    mine, lines = draw_numbers("7BHH", seed, "orders"), draw_numbers("6B", seed, "lines")
    for i, drawn in enumerate(draw_first(customers, people.FORM, seed, "customers"), 1):
        orders = _ORDERS[drawn[13]]
        if not orders:
            continue
        country = countries[drawn[0]]
        recipient = people.format_name(countries, drawn)
        place = f"{country.streets[drawn[6]]},{country.places[drawn[7]]},{country.country.code}"
        products = product_count(i)
        for number, (a, b, c, d, e, f, g, day, p) in enumerate(islice(mine, orders), 1):
            parts, total = [], 0
            for kind in next(lines)[: _LINES[a]]:
                product = p % products
                parts.append(heads[product] + tails[kind & 127])
                total += cents[product] * factors[kind & 127]
                p += _STRIDE
            status, day = _STATUS[b], day & 1023
            shipped = days[day + 1 + c % 20] if status in ("SHIPPED", "DELIVERED") else ""
            yield (
                f"o{i:08d}-{number},c{i:08d},{status},{days[day]},"
                f"{days[day + 7 + d % 40] if d > 25 else ''},{shipped},"
                f"EUR,{total // 10000}.{total % 10000:04d},{freights[e]},"
                f'{recipient},{place},"[{",".join(parts)}]",{employees[f]},'
                f"{carriers[g] if shipped else ''},shop,{i}-{number}\n"
            )


def _make_lines(count: int, seed: str) -> tuple[list[str], list[int]]:
    """The beginning of each product's order line, as JSON within CSV, and its price in cents."""
    cents = [_price_of(drawn) for drawn in _product_draws(count, seed)]
    heads = [
        f'{{""productId"":""p{p:04d}"",""unitPrice"":""{price // 100}.{price % 100:02d}"",'
        for p, price in enumerate(cents, 1)
    ]
    return heads, cents


def _format_tail(quantity: int, discount: str) -> str:
    """The end of an order line."""
    off = f',""discount"":""{discount}""' if discount else ""
    return f'""quantity"":{quantity}{off}}}'
