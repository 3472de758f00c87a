"""Customers, their contacts, and interactions with them."""

# Names in other scripts contain letters that look like Latin ones, on purpose.
# ruff: noqa: RUF001

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from penstockd.demo.draw import POOL, draw_first, draw_numbers, make_pool, quote_csv, weighted_pool
from penstockd.demo.people import Pools, make_pools

HEADER = (
    "customer_id,name,kind,status,email,phone,tax_id,"
    "billing_address.line1,billing_address.line2,billing_address.city,billing_address.region,"
    "billing_address.postal_code,billing_address.country_code,"
    "currency_code,credit_limit,lifetime_value,marketing_opt_in,tags,notes,birth_date,"
    "source,source_id"
)
CONTACTS_HEADER = (
    "contact_id,customer_id,given_name,family_name,job_title,email,phone,is_primary,"
    "language_code,source,source_id"
)
INTERACTIONS_HEADER = (
    "interaction_id,customer_id,contact_id,channel,occur_time,subject,body,duration_seconds,"
    "sentiment,source,source_id"
)
#: The random bytes of a customer. The first three say its country and name.
FORM = "16B"

_STATUS = weighted_pool((48, "LEAD"), (168, "ACTIVE"), (40, "CHURNED"))
_DOMAINS = ["@example.com", "@example.org", "@mail.example.com", "@example.net"]
_TAGS = [
    "[]", "[]", "[]", '["vip"]', '["b2b","net-30"]', '["newsletter"]', '["b2b"]', '["vip","日本"]',
    '["wholesale","priority","north"]', '["référence, à rappeler"]', '["say \\"hi\\""]',
]  # fmt: skip
_NOTES = [
    "Prefers e-mail.", 'Asked for the "gold" plan, twice.', "Met at the fair.\nCall back in May.",
    "Pays late; see contract, §4.", "Línea nueva:\n- primera\n- segunda", "", "Key account",
    "¿Descuento del 10 %? Sí, hasta junio.", "Ζητά τιμολόγιο.", "重要客户，请优先处理。",
    "لا يتصل به يوم الجمعة.", "Tab\there, and a \\ backslash.", "O'Hara's cousin 🙂",
]  # fmt: skip
_LIMITS = [
    "0", "500", "1000.00", "2500.5", "5000.0000", "7500.25", "10000", "25000.00", "100000",
    "0.0001", "999999.9999",
]  # fmt: skip
_SOURCES = weighted_pool((128, "crm"), (80, "shop"), (48, "erp"))
_OPT_IN = weighted_pool((100, "true"), (156, "false"))


def generate_customers(customers: int, seed: str) -> Iterator[str]:
    """The lines of customers 1 to ``customers``, in the order of HEADER."""
    countries = make_pools(seed)
    domains = make_pool(_DOMAINS, seed, "domains")
    limits = ["", *make_pool(_LIMITS, seed, "limits")[1:]]
    limits[1::5] = [""] * len(limits[1::5])
    tags = make_pool([quote_csv(tag) for tag in _TAGS], seed, "tags")
    notes = _mostly_null([quote_csv(note) for note in _NOTES], seed, "notes")
    births = _birth_dates(seed)
    for i, drawn in enumerate(draw_first(customers, FORM, seed, "customers"), 1):
        a, b, c, d, e, f, g, h, j, k, m, n, o, p, q, r = drawn
        country = countries[a]
        code = country.country.code
        person = country.people[c]
        if b < 90:
            name, kind, born = country.companies[c], "COMPANY", ""
            tax_id = f"{code}{a}{h:03d}{j:03d}{i % 10}" if d > 30 else ""
        else:
            name, kind, born = person.name, "PERSON", births[d]
            tax_id = f"{h:03d}-{j:03d}-{i % 1000:03d}" if d > 180 else ""
        place = f"{country.lines[g]},{country.places[h]},{code}" if e > 5 else ",,,,,"
        email = f"{person.local}{i}{domains[f]}" if f > 20 else ""
        phone = country.phones[j] if j > 25 else ""
        value = f"{k << 4 | m}.{n % 100:02d}" if r > 40 else ""
        yield (
            f"c{i:08d},{name},{kind},{_STATUS[e]},{email},{phone},{tax_id},{place},"
            f"{country.country.currency},{limits[k]},{value},{_OPT_IN[m]},{tags[n]},{notes[o]},"
            f"{born},{_SOURCES[p]},{q:x}-{i}\n"
        )


def format_name(countries: list[Pools], drawn: tuple[int, ...]) -> str:
    """The name, as CSV, of the customer with these random bytes."""
    country = countries[drawn[0]]
    return country.companies[drawn[2]] if drawn[1] < 90 else country.people[drawn[2]].name


_CONTACTS = weighted_pool((172, 1), (68, 2), (16, 3))
_TITLES = [
    "Buyer", "Head of Purchasing", "Accountant", "Managing Director, Europe", "Geschäftsführerin",
    'Engineer ("on call")', "Directrice des achats", "", "営業部長", "Owner",
]  # fmt: skip


def generate_contacts(customers: int, seed: str) -> Iterator[str]:
    """The lines of the contacts of each customer, one to three, of the customer's country."""
    countries = make_pools(seed)
    titles = make_pool([quote_csv(title) for title in _TITLES], seed, "titles")
    titles[::6] = [""] * len(titles[::6])
    mine = draw_numbers("6B", seed, "contacts")
    for i, drawn in enumerate(draw_first(customers, FORM, seed, "customers"), 1):
        country = countries[drawn[0]]
        language = country.country.language
        for number in range(1, _CONTACTS[drawn[15]] + 1):
            a, b, c, d, e, f = next(mine)
            person = country.people[a]
            email = f"{person.local}.{i}@example.com" if c > 30 else ""
            phone = country.phones[d] if d > 60 else ""
            yield (
                f"k{i:08d}-{number},c{i:08d},{person.given},{person.family},{titles[b]},{email},"
                f"{phone},{'true' if number == 1 else 'false'},{language if e > 20 else ''},"
                f"{_SOURCES[f]},{i}-{number}\n"
            )


_INTERACTIONS = weighted_pool((48, 0), (96, 1), (64, 2), (32, 3), (16, 4))
_CHANNELS = weighted_pool((110, "EMAIL"), (70, "PHONE"), (26, "MEETING"), (50, "WEB"))
_SUBJECTS = [
    "Invoice", 'Question about "Premium"', "Delivery, delayed", "Renewal", "Complaint", "Demo",
    "Anfrage: Rücksendung", "Solicitud de catálogo", "Питання щодо рахунку", "请求报价", "",
]  # fmt: skip
_BODIES = [
    "Sent the price list.", "Wants to be called back, after 3 pm.", "Said: \"we'll see\".",
    "Dear team,\n\nplease find the order attached.\n\nKind regards", "Agreed on 5 %, from May on.",
    "Merci d'envoyer la facture à l'adresse habituelle.", "شكرا على الرد السريع", "",
    "Windows line ends\r\nare kept.", "ありがとうございます。", "Left a message; no answer.",
]  # fmt: skip
_SENTIMENTS = [str(n / 8) for n in range(-8, 9)] + ["0.1", "-0.3333333333333333"]
_START = datetime(2022, 1, 3, 8, 0, 0, tzinfo=UTC)


def generate_interactions(customers: int, seed: str) -> Iterator[str]:
    """The lines of the interactions with each customer, none to four."""
    subjects = make_pool([quote_csv(subject) for subject in _SUBJECTS], seed, "subjects")
    bodies = _mostly_null([quote_csv(body) for body in _BODIES], seed, "bodies", null=5)
    sentiments = _mostly_null(_SENTIMENTS, seed, "sentiments", null=3)
    days = [str((_START + timedelta(days=n)).date()) for n in range(4 * POOL)]
    mine = draw_numbers("6BHI", seed, "interactions")
    for i, drawn in enumerate(draw_first(customers, FORM, seed, "customers"), 1):
        for number in range(1, _INTERACTIONS[drawn[14]] + 1):
            a, b, c, d, e, f, day, moment = next(mine)
            channel = _CHANNELS[a]
            contact = f"k{i:08d}-1" if b > 60 else ""
            lasted = day % 3600 if channel in ("PHONE", "MEETING") else ""
            yield (
                f"i{i:08d}-{number},c{i:08d},{contact},{channel},"
                f"{days[day & 1023]}T{8 + c % 10:02d}:{d % 60:02d}:{e % 60:02d}."
                f"{moment % 1000000:06d}Z,{subjects[d]},{bodies[e]},{lasted},{sentiments[f]},"
                f"{_SOURCES[b]},{i}-{number}\n"
            )


def _mostly_null(pieces: list[str], *seeds: str, null: int = 7) -> list[str]:
    """A pool of the pieces in which ``null`` of ten are NULL."""
    found = make_pool(pieces, *seeds)
    return [piece if i % 10 >= null else "" for i, piece in enumerate(found)]


def _birth_dates(seed: str) -> list[str]:
    youngest = date(2006, 12, 31)
    days = [str(youngest - timedelta(days=n * 97)) for n in range(POOL - 2)]
    births = make_pool([*days, "1952-02-29", "1999-12-31"], seed, "births")
    births[::5] = [""] * len(births[::5])
    return births
