"""Random Views over random records: PostgreSQL and the Lens must show the same bytes.

PENSTOCK_FUZZ_CASES sets the number of Views of each dataset, PENSTOCK_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import builtins
import itertools
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from penstockd.catalog import Dataset, Field, Kind
from penstockd.catalog.canonical import from_message
from penstockd.policy import lens as lens_module
from penstockd.policy import members, projection, question
from penstockd.policy.lens import Lens
from penstockd.policy.masks import make_mask
from penstockd.policy.model import Mask
from penstockd.query import FieldUnknown, plain
from seen_worlds import World, open_world
from worlds import Asker, cases, random_selection

CASES = int(os.environ.get("PENSTOCK_FUZZ_CASES", "20"))
SEED = int(os.environ.get("PENSTOCK_FUZZ_SEED", str(random.randrange(2**32))))


@pytest.fixture(scope="module")
def world(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(module_url, tmp_path_factory.mktemp("model"), SEED) as made:
        yield made


@dataclass(frozen=True)
class Case:
    """A Lens, and PostgreSQL's results by the same View."""

    text: str
    lens: Lens
    rows: Mapping[str, Sequence[Any]]


def random_case(world: World, dataset: Dataset, number: int, rng: random.Random) -> Case:
    view = world.view(dataset, rng)
    asker = Asker(dataset, view.fields(), rng, members=view.members)
    filter = asker.expression() if rng.random() < 0.6 else ""
    fields = random_selection(view.fields(), rng)
    lens = Lens(view, world.catalog, fields=fields, filter=filter)
    rules = [g.row_filter for g in view.grants]
    text = f"seed {SEED}, case {number} of {dataset.name}: {rules} {filter!r} {fields!r}"
    return Case(text, lens, world.rows(view, lens.fields, filter))


def differences(world: World, case: Case) -> list[str]:
    """The records in which the Lens and PostgreSQL differ."""
    lens, found = case.lens, []
    for key, image in world.images[lens.dataset.name].items():
        row = case.rows.get(key)
        expected = None if row is None else lens.of_row(row)
        shown = lens.project(image) if lens.shows(image, world.find) else None
        if not lens.see(image, world.find) == shown == expected:
            found.append(key)
    return found


def all_cases(world: World, count: int) -> Iterator[Case]:
    for dataset in world.catalog:
        share = count if dataset.name != "things" else count * 6
        for number, rng in cases(SEED, share):
            yield random_case(world, dataset, number, rng)


def test_the_lens_shows_what_postgres_shows(world: World) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED} PENSTOCK_FUZZ_CASES={CASES}")
    telling = tried = masked = followed = 0
    for case in all_cases(world, CASES):
        lens, images = case.lens, world.images[case.lens.dataset.name]
        assert differences(world, case) == [], case.text
        given = list(images.values())
        shown = lens.shows_all(given, world.find)
        seen = [lens.project(i) if s else None for i, s in zip(given, shown, strict=True)]
        assert lens.see_all(given, world.find) == seen
        assert lens.project_all(given) == [lens.project(i) for i in given]
        assert not lens.sees_all or len(case.rows) == len(images)
        assert not lens.clear or lens.project_all(given) == given
        tried += 1
        telling += 0 < len(case.rows) < len(images)
        masked += any(lens.view.mask(f) in (Mask.HASH, Mask.PARTIAL) for f in lens.fields)
        followed += len(lens.follows) > 0
    assert telling > tried / 5 and masked > tried / 5 and followed > tried / 20


def test_what_changed_is_what_differs_in_the_rows(world: World) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED} PENSTOCK_FUZZ_CASES={CASES}")
    compared = 0
    for case in all_cases(world, max(CASES // 10, 2)):
        lens, keys = case.lens, list(case.rows)
        for one, other in itertools.pairwise(keys):
            before, after = (lens.of_row(case.rows[key]) for key in (one, other))
            expected = differing(lens, case.rows[one], case.rows[other])
            assert lens.changed(before, after) == expected, case.text
            assert expected or before == after or not complete(lens), case.text
            assert lens.changed(before, before) == []
            compared += len(expected) > 0
    assert compared > CASES


def differing(lens: Lens, one: Sequence[Any], other: Sequence[Any]) -> list[str]:
    """The visible fields that differ between two rows."""
    pairs = zip(lens.fields, one, other, strict=True)
    # In this form the zeros of floats differ, and NaN equals NaN.
    paths = [f.path for f, x, y in pairs if repr(x) != repr(y)]
    moving = not complete(lens) and set(paths) <= {"update_time", "etag"}
    return [] if moving else paths


def complete(lens: Lens) -> bool:
    return all(lens.view.is_whole(f) for f in lens.dataset.fields)


def salted(mask: Mask, key: bytes) -> Any:
    return make_mask(mask, key + b"!")


def nowhere(self: Any, record: Any, find: Any, values: list[Any]) -> None:
    READ(self, record, lambda dataset, key: None, values)


READ = question.QuestionPlace.read


def numbered(field: Field) -> Any:
    return None if field.kind is Kind.ENUM else from_message(field)


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (projection, "make_mask", salted),
        (lens_module, "make_mask", salted),
        (projection, "holds_its_message", lambda field: True),
        (projection, "holds_its_message", lambda field: False),
        (projection, "TEXT_MASKS", frozenset({Mask.HASH})),
        (question, "from_message", numbered),
        (question.QuestionPlace, "read", nowhere),
        (Lens, "_make_getter", lambda self, field: None),
        (plain, "any", all),
        (members.Stripping, "apply", lambda self, value: None),
        (members.Stripping, "json", lambda self, value: value),
        (members, "make_mask", salted),
    ],
)
def test_a_wrong_lens_is_caught(
    world: World, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, wrong: Any
) -> None:
    # Modules have no attribute for a builtin until it is set there.
    monkeypatch.setattr(where, name, wrong, raising=not hasattr(builtins, name))
    things = world.catalog["things"]
    # One of the first cases nearly always shows it; few compare a member of a list in a filter.
    tried = (random_case(world, things, n, rng) for n, rng in cases(SEED, 5000))
    assert any(differences(world, case) for case in tried), f"seed {SEED}"


def test_hidden_fields_do_not_exist_for_filters_and_selections(world: World) -> None:
    for _, rng in cases(SEED, 20):
        view = world.view(world.catalog["things"], rng)
        for field in view.dataset.fields:
            if view.mask(field) is Mask.HIDE:
                with pytest.raises(FieldUnknown):
                    Lens(view, world.catalog, filter=f"{field.path}:*")
                with pytest.raises(FieldUnknown):
                    Lens(view, world.catalog, fields=field.path)
