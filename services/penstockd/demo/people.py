"""Pools of names, addresses and phone numbers, country by country."""

from __future__ import annotations

import random
from dataclasses import dataclass

from penstockd.demo.draw import POOL, fill_pattern, make_pool, quote_csv
from penstockd.demo.names import COUNTRIES, Country


@dataclass(frozen=True, slots=True)
class Person:
    """A name as CSV, whole and in parts, and in ASCII for an e-mail address."""

    name: str
    given: str
    family: str
    local: str


@dataclass(frozen=True, slots=True)
class Pools:
    """One country's pools to pick from; all texts are CSV.

    ``streets`` hold line1 alone, ``lines`` line1 and line2 as two values; ``places`` city, region
    and postal code as three.
    """

    country: Country
    people: list[Person]
    companies: list[str]
    streets: list[str]
    lines: list[str]
    places: list[str]
    phones: list[str]


def make_pools(seed: str) -> list[Pools]:
    """The pools of each country, repeated in the list as often as the country's weight."""
    return [
        made for country in COUNTRIES for made in [_country_pools(country, seed)] * country.weight
    ]


def _country_pools(country: Country, seed: str) -> Pools:
    source = random.Random(f"{seed}:{country.code}")
    given, family = _split_names(country.given), _split_names(country.family)
    people = [_make_person(country, g, f) for g in given for f in family]
    companies = [form.format(f) for form in country.companies.split(";") for f, _ in family]
    streets = [_make_street(country, source) for _ in range(POOL)]
    flats = ["", "", "", "", "", "2nd floor", "c/o Reception, Building C", '"The Annex"']
    lines = [
        f"{street},{quote_csv(flat) if flat else ''}"
        for street, flat in zip(streets, make_pool(flats, seed, country.code), strict=True)
    ]
    places = country.places.split(" ")
    return Pools(
        country=country,
        people=make_pool(people, seed, country.code, "people"),
        companies=make_pool(
            [quote_csv(name) for name in companies], seed, country.code, "companies"
        ),
        streets=streets,
        lines=lines,
        places=[_format_place(places[i % len(places)], source) for i in range(POOL)],
        phones=[fill_pattern(country.phone, source) for _ in range(POOL)],
    )


def _split_names(names: str) -> list[tuple[str, str]]:
    """Names with their ASCII forms, which are in lower case and without marks."""
    pairs = (name.partition("=") for name in names.split(" "))
    return [
        (name.replace("_", " "), "".join(c for c in (ascii or name).lower() if c.isalnum()))
        for name, _, ascii in pairs
    ]


def _make_person(country: Country, given: tuple[str, str], family: tuple[str, str]) -> Person:
    parts = [given[0], family[0]]
    if country.family_first:
        parts.reverse()
    # Han, kana and Hangul names are written without a blank.
    joined = ("" if country.code in ("CN", "JP", "KR") else " ").join(parts)
    return Person(
        quote_csv(joined), quote_csv(given[0]), quote_csv(family[0]), f"{given[1]}.{family[1]}"
    )


def _make_street(country: Country, source: random.Random) -> str:
    forms = country.streets.split(";")
    return quote_csv(source.choice(forms).replace("#", str(source.randrange(1, 200))))


def _format_place(place: str, source: random.Random) -> str:
    city, region, postal = place.split("|")
    values = [
        fill_pattern(city, source),
        fill_pattern(region, source),
        fill_pattern(postal, source),
    ]
    return ",".join(quote_csv(value) if value else "" for value in values)
