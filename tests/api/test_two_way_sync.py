"""A CRM and the hub keep the same customers, and people change both.

The CRM below is a client as somebody would write it: it follows the hub's changes, sends its own
with the etag that it knows (``If-Match``), and where a customer has changed on both sides it merges
by the fields that ETAG_MISMATCH lists, and tries again.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from chance import SEED
from harness import Reply, RunningHub, new_customer

#: The fields that the CRM keeps.
FIELDS = ("name", "email", "phone", "currencyCode", "notes", "marketingOptIn")
#: Where both sides have changed a field: whose value counts.
HUB_DECIDES = {"currencyCode", "marketingOptIn"}
Values = dict[str, Any]


@dataclass
class Contact:
    """A customer in the CRM: what people see, what both sides agreed upon last, and its etag."""

    now: Values
    agreed: Values = field(default_factory=dict)
    etag: str = ""

    @property
    def changed(self) -> Values:
        """What people have changed since."""
        return {name: v for name, v in self.now.items() if v != self.agreed.get(name)}


class Crm:
    """The CRM, which signs in as ``crm`` and does not see all fields."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.contacts: dict[str, Contact] = {}
        self.gone: dict[str, Contact] = {}
        self.cursor = hub.get("/v1/customers:changes", "crm").json()["nextCursor"]
        self.conflicts: list[set[str]] = []
        #: Called between the merge and the next try: others do not wait.
        self.meanwhile: Callable[[str], None] = lambda key: None

    def call(self, verb: str, key: str, body: Any = None, **headers: str) -> Reply:
        """A call about one customer."""
        path = "/v1/customers" if verb == "POST" else f"/v1/customers/{key}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.hub.request(verb, path, consumer="crm", json_body=body, headers=sent)

    # --- from the hub ---

    def pull(self) -> None:
        """Take over what has changed in the hub."""
        self.hub.head()
        keys = dict[str, None]()
        while True:
            page = self.hub.get("/v1/customers:changes", "crm", cursor=self.cursor).json()
            keys |= dict.fromkeys(change["key"] for change in page["changes"])
            if page["nextCursor"] == self.cursor or not page["changes"]:
                break
            self.cursor = page["nextCursor"]
        for key in keys:
            self.take(key)

    def take(self, key: str) -> None:
        """Merge the hub's customer into the CRM's."""
        reply = self.call("GET", key)
        if key in self.gone:
            return  # the push decides
        contact = self.contacts.get(key)
        if reply.status == 404:
            if contact is not None and not contact.changed:
                del self.contacts[key]
            elif contact is not None:
                contact.etag, contact.agreed = "", {}  # people still work with it
            return
        theirs = {name: reply.json()[name] for name in FIELDS}
        if contact is None:
            contact = self.contacts[key] = Contact(dict(theirs))
        else:
            contact.now = merge(contact, theirs)
        contact.agreed, contact.etag = theirs, reply.headers["etag"]

    # --- to the hub ---

    def push(self) -> None:
        """Send what people have changed in the CRM."""
        for key in list(self.gone):
            self.push_deletion(key)
        for key, contact in list(self.contacts.items()):
            for _ in range(10):
                if not contact.changed or self.push_changes(key, contact):
                    break
            else:
                raise AssertionError(f"{key} never settles")

    def push_changes(self, key: str, contact: Contact) -> bool:
        """Send the changes of a contact; returns whether the hub has them now."""
        mine = contact.changed
        if contact.etag:
            reply = self.call("PATCH", key, mine, if_match=contact.etag)
        else:
            reply = self.call("POST", key, contact.now | {"customerId": key}, if_none_match="*")
        if reply.status == 200:
            contact.agreed = {name: reply.json()[name] for name in FIELDS}
            contact.etag = reply.headers["etag"]
            return True
        assert reply.status == 412, reply.text
        assert "taxId" not in reply.text and "creditLimit" not in reply.text
        if reply.reason == "ETAG_MISMATCH":
            self.note_conflict(key, mine, reply)
        self.take(key)
        self.meanwhile(key)
        return False

    def note_conflict(self, key: str, mine: Values, reply: Reply) -> None:
        """Check that the answer lists what differs, and nothing else."""
        theirs = self.call("GET", key).json()
        listed = set(reply.violations()) - {"etag"}
        assert listed == {name for name, value in mine.items() if theirs[name] != value}
        self.conflicts.append(listed)

    def push_deletion(self, key: str) -> None:
        """Delete a customer unless the hub's has changed: then it comes back."""
        contact = self.gone.pop(key)
        reply = self.call("DELETE", key, if_match=contact.etag)
        if reply.status != 200:
            assert reply.status == 412, reply.text
            self.take(key)


def merge(contact: Contact, theirs: Values) -> Values:
    """A three-way merge: whoever has changed a field decides, and of two the policy."""
    merged = {}
    for name in FIELDS:
        mine, before = contact.now[name], contact.agreed.get(name)
        if mine == before or (theirs[name] != before and name in HUB_DECIDES):
            merged[name] = theirs[name]
        else:
            merged[name] = mine
    return merged


@pytest.fixture
def crm(hub: RunningHub) -> Iterator[Crm]:
    made = Crm(hub)
    yield made
    for key in made.contacts:
        hub.request("DELETE", f"/v1/customers/{key}?allow_missing=true", consumer="admin")


def in_hub(hub: RunningHub, key: str, **values: Any) -> None:
    """Change a customer as people in another department do, who see all fields."""
    path = f"/v1/customers/{key}"
    reply = hub.request("PATCH", path, consumer="admin", json_body=values)
    assert reply.status == 200, reply.text


def create_in_hub(hub: RunningHub, **values: Any) -> str:
    record = new_customer(currencyCode="EUR", **values)
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert reply.status == 200, reply.text
    return str(record["customerId"])


def check_equal(hub: RunningHub, crm: Crm) -> None:
    """Both sides show the same, and the CRM has nothing to send."""
    for key, contact in crm.contacts.items():
        reply = hub.get(f"/v1/customers/{key}")
        assert reply.status == 200, key
        assert {name: reply.json()[name] for name in FIELDS} == contact.now, key
        assert not contact.changed, key


def test_both_sides_change_one_customer(hub: RunningHub, crm: Crm) -> None:
    key = create_in_hub(hub, name="Old", email="old@a.example", notes="n", taxId="secret")
    crm.pull()
    contact = crm.contacts[key]
    assert (contact.now["name"], contact.now["email"]) == ("Old", "old@a.example")
    # The same field, another one on each side, and one that the CRM does not see.
    contact.now |= {"name": "From the CRM", "phone": "1", "currencyCode": "USD"}
    in_hub(hub, key, name="From the hub", notes="seen", currencyCode="CHF", taxId="changed")
    crm.push()
    assert crm.conflicts == [{"name", "phone", "currencyCode"}]
    record = hub.get(f"/v1/customers/{key}").json()
    assert (record["name"], record["phone"]) == ("From the CRM", "1")
    assert (record["notes"], record["currencyCode"]) == ("seen", "CHF")
    assert record["taxId"] == "changed", "what the CRM does not see is not touched"
    check_equal(hub, crm)


def test_what_the_crm_does_not_see_is_no_conflict(hub: RunningHub, crm: Crm) -> None:
    key = create_in_hub(hub)
    crm.pull()
    in_hub(hub, key, taxId="t", creditLimit="7")
    crm.contacts[key].now["name"] = "New"
    crm.push()
    assert not crm.conflicts
    record = hub.get(f"/v1/customers/{key}").json()
    assert (record["name"], record["taxId"], record["creditLimit"]) == ("New", "t", "7")


def test_others_write_while_the_crm_merges(hub: RunningHub, crm: Crm) -> None:
    key = create_in_hub(hub, name="0")
    crm.pull()
    rounds = itertools.count(1)

    def meanwhile(key: str) -> None:
        if (number := next(rounds)) < 4:
            in_hub(hub, key, notes=f"note {number}")

    crm.meanwhile = meanwhile
    in_hub(hub, key, name="theirs")
    crm.contacts[key].now["name"] = "mine"
    crm.push()
    assert len(crm.conflicts) == 4, "one for the first change, and one for each that came between"
    record = hub.get(f"/v1/customers/{key}").json()
    assert (record["name"], record["notes"]) == ("mine", "note 3")
    check_equal(hub, crm)


def test_deletions_and_twins(hub: RunningHub, crm: Crm) -> None:
    gone, kept, edited, wanted = (create_in_hub(hub, name=name) for name in "abcd")
    crm.pull()
    # Deleted in the CRM: one that nobody else changed, and one that somebody did.
    for key in (gone, kept):
        crm.gone[key] = crm.contacts.pop(key)
    in_hub(hub, kept, notes="still needed")
    # Deleted in the hub: one that people changed in the CRM, and one that they did not.
    crm.contacts[edited].now["notes"] = "work in progress"
    for key in (edited, wanted):
        assert hub.request("DELETE", f"/v1/customers/{key}", consumer="admin").status == 200
    crm.push()
    crm.pull()
    assert hub.get(f"/v1/customers/{gone}").status == 404 and gone not in crm.contacts
    assert crm.contacts[kept].now["notes"] == "still needed"
    assert hub.get(f"/v1/customers/{edited}").json()["notes"] == "work in progress"
    assert wanted not in crm.contacts
    # Both sides create the same customer.
    twin = create_in_hub(hub, name="Twin", email="t@a.example", notes="hub")
    blank = dict.fromkeys(FIELDS) | {"name": "Twin", "phone": "7", "marketingOptIn": False}
    crm.contacts[twin] = Contact(blank | {"currencyCode": "EUR"})
    crm.push()
    record = hub.get(f"/v1/customers/{twin}").json()
    assert (record["phone"], record["email"]) == ("7", "t@a.example")
    check_equal(hub, crm)


def test_no_change_is_lost_in_many_rounds(hub: RunningHub, crm: Crm) -> None:
    """Random changes on both sides. What one side alone has changed since they last agreed
    survives; of two changes the policy keeps one."""
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    rng, numbers = random.Random(SEED), itertools.count()
    keys = [create_in_hub(hub, name="start") for _ in range(6)]
    crm.pull()
    for _ in range(8):
        expected = {key: dict(crm.contacts[key].now) for key in keys}
        for key in keys:
            before = dict(expected[key])
            mine, theirs = (draw_change(rng, numbers, before) for _ in range(2))
            crm.contacts[key].now |= mine
            in_hub(hub, key, **theirs)
            for name in FIELDS:
                first, second = (mine, theirs) if name in HUB_DECIDES else (theirs, mine)
                expected[key][name] = (before | first | second)[name]
        if rng.random() < 0.5:
            crm.pull()
        crm.push()
        crm.pull()
        check_equal(hub, crm)
        assert {key: crm.contacts[key].now for key in keys} == expected
    assert len(crm.conflicts) > 5


def draw_change(rng: random.Random, numbers: Iterator[int], before: Values) -> Values:
    """New values of some fields, other than those of before."""
    number = next(numbers)
    values = {
        "name": f"name {number}",
        "email": f"e{number}@a.example",
        "phone": rng.choice([None, str(number)]),
        "currencyCode": "".join(rng.choices("ABCDEFG", k=3)),
        "notes": f"note {number}",
        "marketingOptIn": rng.random() < 0.5,
    }
    names = rng.sample(FIELDS, rng.randrange(4))
    return {name: values[name] for name in names if values[name] != before[name]}
