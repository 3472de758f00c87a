"""What REST calls may say: bodies and queries are read strictly, and every fault is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness import Reply, RunningHub, new_customer


def send(hub: RunningHub, verb: str, path: str, body: bytes | str, kind: str = "") -> Reply:
    headers = {"content-type": kind} if kind else {}
    data = body.encode() if isinstance(body, str) else body
    return hub.request(verb, path, consumer="admin", body=data, headers=headers)


def made(hub: RunningHub, **values: Any) -> tuple[str, dict[str, Any]]:
    """The path of a new customer, and the record."""
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=new_customer(**values))
    assert reply.status == 200, reply.text
    return f"/v1/customers/{reply.json()['customerId']}", reply.json()


#: A member's text, the path that is named, and a part of what is said of it.
MEMBERS = [
    ('"nmae": "x"', "nmae", "did you mean 'name'?"),
    ('"billingAddress": {"citty": "x"}', "billingAddress.citty", "did you mean 'city'?"),
    ('"Name": "x"', "Name", "is not a field"),
    ('"marketing_opt_in": true, "marketingOptIn": true', "marketingOptIn", "given twice"),
    ('"name": 7', "name", "must be a string, not a number"),
    ('"name": ["x"]', "name", "must be a string, not an array"),
    ('"name": "a\\u0000b"', "name", "U+0000"),
    ('"marketingOptIn": "true"', "marketingOptIn", "must be true or false, not a string"),
    ('"marketingOptIn": 1', "marketingOptIn", "must be true or false, not a number"),
    ('"kind": "PERSN"', "kind", "is not one of KIND_UNSPECIFIED, PERSON, COMPANY"),
    ('"kind": "person"', "kind", "is not one of"),
    ('"creditLimit": "much"', "creditLimit", "not a decimal"),
    ('"creditLimit": 12345678901234567890.5', "creditLimit", ""),
    ('"tags": "vip"', "tags", "must be an array, not a string"),
    ('"tags": [null]', "tags", "at [0]: must be a string, not null"),
    ('"tags": ["a", 7]', "tags", "at [1]: must be a string"),
    ('"billingAddress": "Riga"', "billingAddress", "must be an object, not a string"),
    ('"billingAddress": []', "billingAddress", "must be an object, not an array"),
    ('"birthDate": "2001-02-29"', "birthDate", ""),
]


@pytest.mark.parametrize(("member", "path", "said"), MEMBERS, ids=[m for m, _, _ in MEMBERS])
@pytest.mark.parametrize("verb", ["POST", "PATCH"])
def test_a_member_that_is_not_understood_is_named(
    hub: RunningHub, verb: str, member: str, path: str, said: str
) -> None:
    record, before = made(hub)
    if verb == "POST":
        record, key = "/v1/customers", new_customer()["customerId"]
        reply = send(hub, verb, record, f'{{"customerId": "{key}", {member}}}')
    else:
        reply = send(hub, verb, record, f"{{{member}}}")
        assert hub.get(record).json() == before, "nothing is changed"
    assert reply.status == 400, reply.text
    assert reply.reason in ("VALUE_INVALID", "FIELD_UNKNOWN")
    (named,) = reply.violations()
    assert named == path and said in reply.violations()[path], reply.text


#: Bodies that are no JSON object of the method, and what is said of them.
BODIES = [
    ("", "the body is empty"),
    ("   ", "the body is empty"),
    ("{", "the body is not JSON"),
    ('{"name": "x"} {}', "the body is not JSON"),
    ('{"name": "x"}]', "the body is not JSON"),
    ("{'name': 'x'}", "the body is not JSON"),
    ('{"name": "x",}', "the body is not JSON"),
    ('{"name": NaN}', "the body is not JSON"),
    ('{"name": "\\ud800"}', "the body is not JSON"),
    ('{"name": "a", "name": "b"}', "the body has the member 'name' twice"),
    ('{"billingAddress": {"city": "a", "city": "b"}}', "has the member 'city' twice"),
    ("[1]", "must be an object, not an array"),
    ('"x"', "must be an object, not a string"),
    ("null", "must be an object, not null"),
    ("[" * 5000 + "]" * 5000, "the body is"),
]


@pytest.mark.parametrize(("body", "said"), BODIES, ids=[b[:30] for b, _ in BODIES])
def test_a_body_that_is_no_object_is_refused(hub: RunningHub, body: str, said: str) -> None:
    path, before = made(hub)
    for verb, at in [("POST", "/v1/customers"), ("PATCH", path)]:
        reply = send(hub, verb, at, body, "application/json")
        assert reply.status == 400, (verb, reply.text)
        assert said in reply.json()["message"]
    assert hub.get(path).json() == before


def test_bytes_that_are_no_text_are_refused(hub: RunningHub) -> None:
    for body in (b'{"name": "\xff"}', b"\xff\xfe{\x00}\x00", b"\x00"):
        reply = send(hub, "POST", "/v1/customers", body)
        assert (reply.status, reply.reason) == (400, "REQUEST_MALFORMED"), body


def test_all_faults_are_named_up_to_a_hundred(hub: RunningHub) -> None:
    faults = {f"x{i}": i for i in range(150)}
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=faults)
    assert (reply.status, reply.reason) == (400, "FIELD_UNKNOWN")
    assert len(reply.violations()) == 100
    details = {d["@type"].rpartition(".")[2]: d for d in reply.json()["details"]}
    assert details["ErrorInfo"]["metadata"] == {"violations": "150"}
    several = new_customer(kind="PERSN", tags=[1], creditLimit="much")
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=several)
    assert set(reply.violations()) == {"kind", "tags", "creditLimit"}


def test_a_hidden_field_is_an_unknown_one(hub: RunningHub) -> None:
    """The same words for a member that does not exist, and one that the caller does not see."""
    path, _ = made(hub, taxId="t")
    told = []
    for name in ("taxId", "taxIx"):
        reply = hub.request("PATCH", path, consumer="crm", json_body={name: "x"})
        assert (reply.status, reply.reason) == (400, "FIELD_UNKNOWN"), reply.text
        assert "did you mean" not in reply.text
        told.append(reply.text.replace(name, "…").replace(reply.request_id, "…"))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("", 200),
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ('application/json; charset="UTF-8"', 200),
        ("application/merge-patch+json", 200),
        ("application/x-www-form-urlencoded", 200),
        ("application/json; charset=latin1", 415),
        ("application/json-patch+json", 415),
        ("text/csv", 415),
        ("application/xml", 400),
        ("multipart/form-data; boundary=x", 415),
    ],
)
def test_the_type_of_a_body(hub: RunningHub, kind: str, status: int) -> None:
    path, _ = made(hub)
    reply = send(hub, "PATCH", path, '{"name": "typed"}', kind)
    assert reply.status == status, reply.text
    if status == 415:
        assert reply.reason == "MEDIA_TYPE_UNSUPPORTED"
        assert hub.get(path).json()["name"] != "typed"
    if "json-patch" in kind:
        assert "application/merge-patch+json" in reply.json()["message"]


def test_a_read_has_no_body(hub: RunningHub) -> None:
    path, _ = made(hub)
    for verb in ("GET", "DELETE"):
        reply = send(hub, verb, path, "{}", "application/json")
        assert (reply.status, reply.reason) == (400, "REQUEST_MALFORMED")
    assert hub.get(path).status == 200


QUERIES = [
    ("pagesize=1", "pagesize", "did you mean 'pageSize'?"),
    ("page_size=1&page_size=2", "page_size", "more than once"),
    ("page_size=1&pageSize=1", "pageSize", "more than once"),
    ("page_size=1.0", "page_size", "not a whole number"),
    ("page_size=1e2", "page_size", "not a whole number"),
    ("page_size=", "page_size", "not a whole number"),
    ("page_size=99999999999", "page_size", ""),
    ("filter=a%00b", "filter", "U+0000"),
    ("x=1", "x", "is not a parameter of this method"),
]


@pytest.mark.parametrize(("query", "name", "said"), QUERIES, ids=[q for q, _, _ in QUERIES])
def test_a_parameter_that_is_not_understood_is_named(
    hub: RunningHub, query: str, name: str, said: str
) -> None:
    reply = hub.get(f"/v1/customers?{query}")
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text
    assert said in reply.violations()[name]


def test_all_faults_of_a_query_are_named_up_to_a_hundred(hub: RunningHub) -> None:
    query = "page_size=x&filter=a%00b&pagetoken=1&filter=b&fields=name&readMask=a"
    reply = hub.get(f"/v1/customers?{query}")
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text
    told = reply.violations()
    assert list(told) == ["page_size", "filter", "pagetoken", "readMask"]
    assert "not a whole number" in told["page_size"] and "more than once" in told["filter"]
    assert "did you mean 'pageToken'?" in told["pagetoken"]
    assert reply.json()["message"].startswith("page_size is "), "the first is in the message"
    many = hub.get("/v1/customers?" + "&".join(f"x{i}=1" for i in range(150)))
    assert (many.status, len(many.violations())) == (400, 100)
    details = {d["@type"].rpartition(".")[2]: d for d in many.json()["details"]}
    assert details["ErrorInfo"]["metadata"] == {"violations": "150"}
    ticket = {"feed": "/v1/customers:watch?nothing=1&batchSize=x"}
    feed = hub.request("POST", "/v1/streamTickets", consumer="admin", json_body=ticket)
    assert (feed.status, set(feed.violations())) == (400, {"nothing", "batchSize"}), feed.text


def test_a_query_that_cannot_be_read(hub: RunningHub) -> None:
    for query in ("filter=%ff", "&".join(f"datasets={i}" for i in range(501))):
        reply = hub.get(f"/v1/changes?{query}")
        assert (reply.status, reply.reason) == (400, "REQUEST_MALFORMED")


def test_contradicting_choices_write_nothing(hub: RunningHub) -> None:
    """One of two values of a parameter would win; which one would decide about a write."""
    for query in ("validate_only=true&validate_only=false", "validate_only=yes"):
        record = new_customer()
        reply = hub.request("POST", f"/v1/customers?{query}", consumer="admin", json_body=record)
        assert reply.status == 400
        assert hub.get(f"/v1/customers/{record['customerId']}").status == 404


def test_a_parameter_is_not_in_the_body_too(hub: RunningHub) -> None:
    body = {"customers": [new_customer()], "partial": True}
    reply = hub.request(
        "POST", "/v1/customers:batchUpsert?partial=false", consumer="admin", json_body=body
    )
    assert (reply.status, reply.violations()) == (400, {"partial": "differs from the body"})
    same = hub.request(
        "POST", "/v1/customers:batchUpsert?partial=true", consumer="admin", json_body=body
    )
    assert same.status == 200, same.text


def test_elements_of_a_batch_are_named_by_their_place(hub: RunningHub) -> None:
    body = {"customers": [new_customer(), new_customer(nmae="x"), 7, None]}
    reply = hub.request("POST", "/v1/customers:batchUpsert", consumer="admin", json_body=body)
    assert reply.status == 400
    assert reply.violations() == {
        "customers[1].nmae": "is not a field; did you mean 'name'?",
        "customers[2]": "must be an object, not a number",
        "customers[3]": "must not be null",
    }


def test_messages_of_the_hub_are_read_as_strictly(hub: RunningHub) -> None:
    role = {
        "roleId": "t-strict",
        "grants": [{"dataset": "customers", "actions": "read", "rowfilter": "x"}],
        "permissions": [7],
        "title": None,
    }
    reply = hub.request("POST", "/v1/access/roles", consumer="admin", json_body=role)
    assert reply.status == 400
    assert set(reply.violations()) == {
        "grants[0].actions",
        "grants[0].rowfilter",
        "permissions[0]",
    } | set(set(reply.violations()) & {"title"})
    assert hub.get("/v1/access/roles/t-strict").status == 404
    wait = hub.request(
        "POST", "/v1/subscriptions/none:pull", consumer="admin", json_body={"wait": 5}
    )
    assert "must be a string" in wait.violations()["wait"]


def test_a_body_of_too_many_items_is_refused_before_they_are_read(hub: RunningHub) -> None:
    for items in ("{}," * 10_000 + "{}", "{}," * 5_000_000 + "{}"):
        body = f'{{"customers": [{items}]}}'
        reply = send(hub, "POST", "/v1/customers:batchUpsert", body, "application/json")
        assert reply.reason == "REQUEST_TOO_LARGE", reply.text[:300]


# --- merge patch (RFC 7396) -------------------------------------------------------------


def test_members_that_are_present_change_and_no_others(hub: RunningHub) -> None:
    path, before = made(
        hub,
        marketingOptIn=True,
        email="a@b.c",
        tags=["a", "b"],
        billingAddress={"line1": "l", "city": "Bonn", "region": "NW"},
    )

    def patch(change: dict[str, Any], **query: Any) -> dict[str, Any]:
        reply = hub.request("PATCH", path, consumer="admin", json_body=change, query=query)
        assert reply.status == 200, reply.text
        assert hub.get(path).json() == reply.json()
        found: dict[str, Any] = reply.json()
        return found

    def apart(record: dict[str, Any], *names: str) -> dict[str, Any]:
        return {n: v for n, v in record.items() if n not in (*names, "etag", "updateTime")}

    after = patch({"marketingOptIn": False})
    assert after["marketingOptIn"] is False
    assert apart(after, "marketingOptIn") == apart(before, "marketingOptIn")
    after = patch({"billingAddress": {"city": "Ulm", "region": None}})
    assert (
        after["billingAddress"] | {"city": "Ulm", "region": None, "line1": "l"}
        == after["billingAddress"]
    ), "objects merge"
    assert patch({"tags": ["c"]})["tags"] == ["c"], "lists are replaced"
    assert patch({"tags": []})["tags"] == []
    assert patch({"source": ""})["source"] == ""
    assert patch({"email": None})["email"] is None, "null clears"
    assert patch({"billingAddress": None})["billingAddress"] is None
    assert apart(patch({})) == apart(after, "tags", "source", "email", "billingAddress") | {
        "tags": [],
        "source": "",
        "email": None,
        "billingAddress": None,
    }, "an empty patch changes nothing"


def test_a_whole_record_can_be_sent_back(hub: RunningHub) -> None:
    path, record = made(hub, email="a@b.c")
    reply = hub.request("PATCH", path, consumer="admin", json_body=record)
    assert reply.status == 200, reply.text
    assert reply.json() == record, "nothing has changed"
    reply = hub.request("PATCH", path, consumer="admin", json_body=record | {"name": "N"})
    assert (reply.status, reply.json()["name"]) == (200, "N")
    old = hub.request("PATCH", path, consumer="admin", json_body=record | {"name": "M"})
    assert (old.status, old.reason) == (409, "ETAG_MISMATCH"), "the etag in it is that of before"


def test_a_patch_that_names_a_mask_changes_what_it_names(hub: RunningHub) -> None:
    path, _ = made(hub, email="a@b.c", notes="n")
    change = {"name": "N", "email": "x@y.z", "notes": None}
    reply = hub.request(
        "PATCH", path, consumer="admin", json_body=change, query={"updateMask": "email"}
    )
    for blank in ("", ",", " "):
        empty = hub.request(
            "PATCH", path, consumer="admin", json_body=change, query={"update_mask": blank}
        )
        assert (empty.status, empty.reason) == (400, "VALUE_INVALID")
    assert reply.json()["email"] == "x@y.z"
    assert (reply.json()["name"], reply.json()["notes"]) == ("Test", "n")


def test_settings_of_the_hub_are_patched_alike(hub: RunningHub) -> None:
    name = "t-patched"
    consumer = {"consumerId": name, "title": "T", "roles": ["crm"]}
    path = f"/v1/access/consumers/{name}"
    assert (
        hub.request("POST", "/v1/access/consumers", consumer="admin", json_body=consumer).status
        == 200
    )
    reply = hub.request("PATCH", path, consumer="admin", json_body={"roles": []})
    assert reply.status == 200, reply.text
    assert "roles" not in reply.json() and reply.json()["title"] == "T"
    assert hub.request("DELETE", path, consumer="admin").status == 200


# --- preconditions ----------------------------------------------------------------------


def test_a_read_can_ask_for_what_is_new(hub: RunningHub) -> None:
    path, record = made(hub)
    first = hub.get(path)
    tag = first.headers["etag"]
    assert tag == f'"{record["etag"]}"'
    assert "accept" in first.headers["vary"].lower()
    for header in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        for verb in ("GET", "HEAD"):
            same = hub.request(verb, path, consumer="admin", headers={"if-none-match": header})
            assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag), header
    hub.request("PATCH", path, consumer="admin", json_body={"name": "N"})
    new = hub.request("GET", path, consumer="admin", headers={"if-none-match": tag})
    assert (new.status, new.json()["name"]) == (200, "N")


def test_a_write_can_name_what_it_expects(hub: RunningHub) -> None:
    path, record = made(hub)
    tag = f'"{record["etag"]}"'

    def patch(name: str, **headers: str) -> Reply:
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        return hub.request("PATCH", path, consumer="admin", json_body={"name": name}, headers=given)

    changed = patch("one", if_match=tag)
    assert changed.status == 200
    new = changed.headers["etag"]
    assert new == f'"{changed.json()["etag"]}"' and new != tag
    for header in (tag, f"W/{new}", f"W/{new}, {tag}", '"nothing"', '""', '"-xml"', f"{tag}, *"):
        refused = patch("two", if_match=header)
        if header.endswith("*"):
            assert (refused.status, refused.reason) == (400, "REQUEST_MALFORMED")
            continue
        assert refused.status == 412, (header, refused.text)
        assert refused.reason in ("ETAG_MISMATCH", "PRECONDITION_FAILED")
    assert hub.get(path).json()["name"] == "one"
    assert patch("three", if_match="*").status == 200
    listed = f'"a" , {hub.get(path).headers["etag"]},"b"'
    assert patch("one of several", if_match=listed).status == 200
    assert patch("none of several", if_match=listed).status == 412
    narrow = hub.get(path, "crm").headers["etag"]
    mine = hub.request(
        "PATCH",
        path,
        consumer="crm",
        json_body={"name": "of a narrower View"},
        headers={"if-match": f'"b", {narrow}'},
    )
    assert mine.status == 200, mine.text
    refused = hub.request("DELETE", path, consumer="admin", headers={"if-match": tag})
    assert refused.status == 412
    now = hub.get(path).headers["etag"]
    beside = hub.request(
        "DELETE", path, consumer="admin", headers={"if-match": now}, query={"etag": "other"}
    )
    assert (beside.status, list(beside.violations())) == (400, ["etag"])
    gone = hub.request("DELETE", path, consumer="admin", headers={"if-match": now})
    assert gone.status == 200
    assert patch("four", if_match="*").status == 412, "there is nothing that matches"


def test_a_read_can_name_what_it_expects(hub: RunningHub) -> None:
    path, record = made(hub)
    for header, status in [
        (f'"{record["etag"]}"', 200),
        (f'"a", "{record["etag"]}"', 200),
        ("*", 200),
        ('"a", "b"', 412),
        (f'W/"{record["etag"]}"', 412),
        (f'"{record["etag"]}-xml"', 412),
    ]:
        for verb in ("GET", "HEAD"):
            reply = hub.request(verb, path, consumer="admin", headers={"if-match": header})
            assert (reply.status, "x-http-status" in reply.headers) == (status, False), header
    # If-Match comes before If-None-Match.
    both = {"if-match": '"a"', "if-none-match": f'"{record["etag"]}"'}
    assert hub.request("GET", path, consumer="admin", headers=both).status == 412
    refused = hub.request("GET", "/v1/customers", consumer="admin", headers={"if-match": '"a"'})
    assert (refused.status, refused.reason) == (400, "REQUEST_MALFORMED")


@pytest.mark.parametrize("header", ["if-match", "if-none-match"])
def test_an_import_has_no_preconditions(hub: RunningHub, header: str, unchanged: None) -> None:
    for value in ("*", '"a"'):
        reply = hub.request(
            "POST",
            "/v1/customers:import?format=NDJSON",
            consumer="admin",
            body=json.dumps(new_customer()).encode(),
            headers={header: value, "content-type": "application/x-ndjson"},
        )
        assert (reply.status, reply.reason) == (400, "REQUEST_MALFORMED")
        assert "an import has no precondition If-" in reply.json()["message"]


def test_a_sync_learns_what_differs_and_merges(hub: RunningHub) -> None:
    """A CRM and the hub change one record; the CRM sends what it knows, with the etag it knows."""
    path, record = made(hub, name="Old", creditLimit="5.0000", tags=["a"], email="a@b.c")
    tag = f'"{record["etag"]}"'
    elsewhere = {"creditLimit": "7", "tags": ["b"]}
    assert hub.request("PATCH", path, consumer="admin", json_body=elsewhere).status == 200
    mine = {"name": "New", "creditLimit": "5", "email": "a@b.c"}

    def send_mine(consumer: str, change: dict[str, Any], header: str) -> Reply:
        headers = {"if-match": header}
        return hub.request("PATCH", path, consumer=consumer, json_body=change, headers=headers)

    conflict = send_mine("admin", mine, tag)
    assert (conflict.status, conflict.reason) == (412, "ETAG_MISMATCH")
    now = hub.get(path)
    assert conflict.violations() == {
        "etag": f"is {now.headers['etag']} now".replace('"', "'"),
        "name": "differs from what you sent",
        "creditLimit": "differs from what you sent",
    }
    # It takes the hub's limit, keeps its own name, and sends again.
    merged = mine | {"creditLimit": now.json()["creditLimit"]}
    written = send_mine("admin", merged, now.headers["etag"])
    assert written.status == 200
    assert (written.json()["name"], written.json()["creditLimit"]) == ("New", "7")
    assert written.json()["tags"] == ["b"], "what it did not send stays"
    hidden = send_mine("crm", {"name": "x"}, '"0"')
    assert set(hidden.violations()) <= {"etag", "name"}


def test_a_create_can_insist_on_being_the_first(hub: RunningHub) -> None:
    record = new_customer()
    headers = {"if-none-match": "*"}

    def create(given: dict[str, str]) -> Reply:
        return hub.request(
            "POST", "/v1/customers", consumer="admin", json_body=record, headers=given
        )

    assert create(headers).status == 200
    assert (create(headers).status, create({}).status) == (412, 409)
    assert create({"if-none-match": '"x"'}).status == 400
    batch = hub.request(
        "POST",
        "/v1/customers:batchUpsert",
        consumer="admin",
        json_body={"customers": [record]},
        headers=headers,
    )
    assert batch.status == 400, "a batch does not create only"


def test_large_records_keep_their_etag_when_clients_accept_compression(hub: RunningHub) -> None:
    path, record = made(hub, notes="long " * 2000)
    reply = hub.request("GET", path, consumer="admin", headers={"accept-encoding": "gzip"})
    assert reply.headers["etag"] == f'"{record["etag"]}"'
    assert json.loads(reply.body) == record
