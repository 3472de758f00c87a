"""A2 in memory: every tampering is found at its place, and a valid log raises no alarm."""

from __future__ import annotations

import os
import random
from collections import Counter

from chance import SEED
from penstockd.audit.chain import COLUMNS
from penstockd.audit.verify import MAX_FINDINGS, Fault, Finding, Verification

from .tampering import FIRST_DAY, Log, Tampering, make_log, tamper

CASES = int(os.environ.get("PENSTOCK_A2_CASES", "1000"))


def test_every_tampering_is_found_at_its_place() -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    chance = random.Random(SEED)
    sound = make_log(chance)
    seen: Counter[str] = Counter()
    for case in range(CASES):
        if case % 100 == 0:
            sound = make_log(chance)
        done = tamper(chance, sound, case)
        seen[done.name.split(" ")[0]] += 1
        check(done)
    print(dict(seen))
    assert len(seen) >= 9


def check(done: Tampering) -> None:
    findings = done.log.verify().findings
    assert findings, f"{done.name} was not found"
    day, place = done.place
    if day is not None:
        first = findings[0]
        assert (first.day, first.sequence) == (day, place), (done.name, findings[:3])
        assert first.fault in done.faults, (done.name, first)
    else:
        # A checkpoint to which a chain is anchored takes the chain along.
        found = [f for f in findings if f.day is None and f.checkpoint == place]
        assert found and found[0].fault in done.faults, (done.name, done.place, findings[:3])


def test_sound_logs_raise_no_alarm() -> None:
    chance = random.Random(SEED)
    for _ in range(60):
        size = chance.choice([1, 2, 9, 10, 11, 60])
        log = make_log(chance, days=chance.randint(1, 3), entries=size, every=chance.randint(1, 20))
        assert log.verify().findings == []
        log.outside = log.checkpoints[chance.randrange(len(log.checkpoints)) :]
        assert log.verify().findings == []


def test_without_a_checkpoint_there_is_nothing_to_verify_against() -> None:
    """There are no findings for an empty log nor for a consistent one, whenever it is verified."""
    log = make_log(random.Random(SEED), days=2, entries=9, every=3)
    for one in (Log(), Log(log.chains, [], [], log.now)):
        found = one.verify()
        assert not found.intact
        assert found.findings[-1].fault is Fault.UNVERIFIABLE
        assert "nothing to verify against" in str(found.findings[-1])


def test_checkpoints_that_are_gone_from_the_audit_make_it_stale() -> None:
    log = make_log(random.Random(SEED), days=1, entries=9, every=3)
    log.outside, log.checkpoints = log.checkpoints, []
    assert {f.fault for f in log.verify().findings} >= {Fault.TRUNCATED, Fault.STALE}


def test_a_verifier_that_trusts_any_key_would_miss_a_rebuilt_log() -> None:
    """The control: only the key reveals it."""
    chance = random.Random(SEED)
    kind = next(i for i in range(len(COLUMNS), 200) if tamper(
        random.Random(1), make_log(random.Random(1)), i).name == "rebuild with a key")  # fmt: skip
    done = tamper(chance, make_log(chance), kind)
    keys = {c.public_key for c in done.log.checkpoints}
    trusting = Verification(done.log.checkpoints, keys)
    assert trusting.findings == []
    assert done.log.verify().findings


def test_many_findings_of_one_kind_hide_none_of_another() -> None:
    log = make_log(random.Random(SEED), days=1, entries=9, every=3)
    check = Verification(log.checkpoints, {c.public_key for c in log.checkpoints})
    for number in range(MAX_FINDINGS + 5):
        check.find(Finding(Fault.SUPPRESSED, "not kept", entry_id=number))
    check.find(Finding(Fault.CHANGED, "changed", FIRST_DAY, 4))
    assert Counter(f.fault for f in check.report(0, 0).findings) == {
        Fault.SUPPRESSED: MAX_FINDINGS,
        Fault.CHANGED: 1,
    }
