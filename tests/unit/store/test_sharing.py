"""Shares of work: even, equal at every node, and with as few moves as a change needs."""

from __future__ import annotations

import random
from collections import Counter

from chance import SEED
from penstockd.store.sharing import SETTLED, LiveNode, share_out, shares_elsewhere, with_node
from penstockd.store.singleton_rows import SINGLETONS, Holder

OLD = SETTLED + 1


def live(*names: str, age: float = OLD, takes: tuple[str, ...] = SINGLETONS) -> list[LiveNode]:
    return [LiveNode(name, "", f"{name}.host", age, takes) for name in names]


def test_shares_are_even_and_the_same_whoever_computes_them() -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    chance = random.Random(SEED)
    for _ in range(200):
        names = [f"{chance.getrandbits(64):x}" for _ in range(chance.randint(1, 10))]
        shares = share_out(live(*names))
        assert set(shares) == set(SINGLETONS)
        assert max(Counter(shares.values()).values()) == -(-len(SINGLETONS) // len(names))
        chance.shuffle(names)
        assert share_out(live(*names)) == shares


def test_a_node_that_comes_or_goes_moves_few_tasks() -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    chance = random.Random(SEED)
    moved = 0
    for _ in range(200):
        names = [f"{chance.getrandbits(64):x}" for _ in range(4)]
        before, after = share_out(live(*names)), share_out(live(*names[1:]))
        moved += sum(before[n] != after[n] for n in SINGLETONS if before[n].node_id != names[0])
    # Of the six that another node had, less than one moves; dealing in turn would move four.
    assert moved < 200


def test_a_task_goes_to_a_node_that_takes_it() -> None:
    nodes = [
        *live("a", takes=("x", "y")),
        *live("b", takes=("y", "z")),
        *live("older", takes=()),  # of a version that does not report what it takes
    ]
    shares = share_out(nodes)
    assert (shares["x"].node_id, shares["z"].node_id) == ("a", "b") and shares.keys() == {
        "x",
        "y",
        "z",
    }
    assert share_out(live("a", takes=())) == {} == share_out([])


def test_a_node_that_has_just_come_is_handed_nothing() -> None:
    nodes = [*live("a"), *live("b", age=SETTLED - 1)]
    assert shares_elsewhere(nodes, Holder("a", "")) == {}
    settled = shares_elsewhere(live("a", "b"), Holder("a", ""))
    halves = {len(SINGLETONS) // 2, len(SINGLETONS) - len(SINGLETONS) // 2}
    assert len(settled) in halves and {n.node_id for n in settled.values()} == {"b"}
    # The node itself hands over what belongs to another: a long-lived node counts for it.
    assert len(shares_elsewhere(nodes, Holder("b", ""))) == len(SINGLETONS) - len(settled)


def test_what_a_node_says_of_itself_counts_with_the_age_that_others_know() -> None:
    own = LiveNode("a", "", "a.host", 0.0, ("x",))
    assert with_node(own, live("a", "b"))[0] == LiveNode("a", "", "a.host", OLD, ("x",))
    assert [n.node_id for n in with_node(own, live("b"))] == ["a", "b"]


def test_twins_have_shares_of_their_own_and_a_restart_moves_nothing() -> None:
    chosen, twin = (LiveNode("a", i, "h", OLD, SINGLETONS) for i in "xy")
    other = live("b")[0]
    shares = share_out([chosen, twin, other])
    assert set(shares.values()) == {chosen.holder, twin.holder, other.holder}
    before = share_out([chosen, other])
    after = share_out([twin, other])
    assert {n: h.node_id for n, h in before.items()} == {n: h.node_id for n, h in after.items()}
