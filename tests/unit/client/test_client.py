from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness import PATIENCE, duration, free_port, promptly
from penstock.api.v1 import customers_service_pb2, customers_service_pb2_grpc
from penstock.client import (
    Client,
    Counts,
    ExportIncomplete,
    PenstockError,
    UnknownDataset,
    Violation,
)
from penstock.client.auth import ClientCredentials
from penstock.client.link import parse_url
from penstock.client.retry import Backoff
from penstock.hub.v1 import receipts_pb2
from penstock.model.v1 import customers_pb2

Customer = customers_pb2.Customer


@pytest.fixture
def client(hub: Any) -> Iterator[Client]:
    with Client(hub.url, client_id="admin", client_secret="s3cret", timeout=PATIENCE) as client:
        yield client


def fill(hub: Any, count: int) -> None:
    for i in range(count):
        hub.records["customers"][f"c{i}"] = Customer(customer_id=f"c{i}", name=f"N{i}", etag="7")


# --- credentials ---


def test_a_token_is_fetched_once_and_sent_with_every_call(hub: Any, client: Client) -> None:
    fill(hub, 1)
    client.dataset("customers").get("c0")
    client.dataset("customers").get("c0")
    assert hub.tokens_issued == 1
    assert [m["authorization"] for m in hub.metadata] == ["Bearer token-1"] * 2
    assert client.access_token() == "token-1"


def test_an_api_key_is_sent_with_every_call(hub: Any) -> None:
    fill(hub, 1)
    with Client(hub.url, api_key="key-1") as client:
        assert client.dataset("customers").get("c0").name == "N0"
    assert hub.metadata[0]["x-api-key"] == "key-1"
    assert hub.tokens_issued == 0


def test_generated_stubs_work_on_the_clients_channel(hub: Any, client: Client) -> None:
    fill(hub, 1)
    stub = customers_service_pb2_grpc.CustomersStub(client.channel)
    request = customers_service_pb2.GetCustomerRequest(customer_id="c0")
    assert stub.GetCustomer(request).name == "N0"


def test_a_wrong_secret_is_said_to_be_wrong(hub: Any) -> None:
    with (
        Client(hub.url, client_id="admin", client_secret="wrong") as client,
        pytest.raises(PenstockError) as caught,
    ):
        client.dataset("customers").get("c0")
    assert caught.value.code == "UNAUTHENTICATED"
    assert caught.value.reason == "INVALID_CLIENT"
    assert caught.value.request_id == "req-2"
    assert hub.calls == []


def test_a_token_is_renewed_before_it_expires(hub: Any) -> None:
    now = [1000.0]
    hub.token_life = 900
    credentials = ClientCredentials(
        hub.url, "admin", "s3cret", timeout=PATIENCE, clock=lambda: now[0]
    )
    assert credentials.token() == "token-1"
    now[0] += 839
    assert credentials.token() == "token-1"
    now[0] += 2
    assert credentials.token() == "token-2"


def test_many_threads_share_one_token(hub: Any) -> None:
    credentials = ClientCredentials(hub.url, "admin", "s3cret", timeout=PATIENCE)
    threads = [threading.Thread(target=credentials.token) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.tokens_issued == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((200, b"<html>"), "UNKNOWN"),
        ((200, b"{}"), "INTERNAL"),
        ((404, b"not found"), "UNIMPLEMENTED"),
        ((400, b'{"code": 3, "message": "no", "details": []}'), "INVALID_ARGUMENT"),
        ((400, b'{"code": 3, "message": "no", "details": [{"@type": "x/y"}]}'), "INVALID_ARGUMENT"),
    ],
)
def test_odd_answers_of_the_token_endpoint_are_errors(
    hub: Any, answer: tuple[int, bytes], code: str
) -> None:
    hub.token_answer = answer
    with pytest.raises(PenstockError) as caught:
        ClientCredentials(hub.url, "admin", "s3cret", timeout=PATIENCE).token()
    assert caught.value.code == code


def test_a_token_that_the_hub_forgot_is_replaced_once(hub: Any, client: Client) -> None:
    fill(hub, 1)
    assert client.access_token() == "token-1"
    hub.valid_tokens.clear()
    client.dataset("customers").create({"customer_id": "n"})
    assert hub.tokens_issued == 2
    assert hub.calls == ["CreateCustomer"] * 2


def test_a_given_token_that_is_refused_is_not_sent_again(hub: Any) -> None:
    with Client(hub.url, token="old") as client, pytest.raises(PenstockError) as caught:
        client.dataset("customers").get("c0")
    assert caught.value.reason == "UNAUTHENTICATED"
    assert hub.calls == ["GetCustomer"]


# --- records ---


def test_get_asks_for_the_fields_it_is_told(hub: Any, client: Client) -> None:
    fill(hub, 1)
    customer = client.dataset("customers").get("c0", fields=["name", "billing_address.city"])
    assert (customer.customer_id, customer.name) == ("c0", "N0")
    assert hub.requests[-1].fields == "name,billing_address.city"


def test_list_draws_page_after_page(hub: Any, client: Client) -> None:
    fill(hub, 5)
    found = client.dataset("customers").list(filter='name != ""', order_by="name", page_size=2)
    assert next(found).customer_id == "c0"
    assert len(hub.calls) == 1
    assert [c.customer_id for c in found] == ["c1", "c2", "c3", "c4"]
    assert [r.page_token for r in hub.requests] == ["", "2", "4"]
    assert {r.filter for r in hub.requests} == {'name != ""'}


def test_create_takes_messages_and_json(hub: Any, client: Client) -> None:
    customers = client.dataset("customers")
    customers.create(Customer(customer_id="a", name="Ada"))
    stored = customers.create(
        {"customerId": "b", "name": "Bo", "billing_address": {"city": "Oslo"}, "phone": None}
    )
    assert stored.billing_address.city == "Oslo"
    assert sorted(hub.records["customers"]) == ["a", "b"]


def test_a_record_that_is_none_of_the_dataset_is_not_sent(hub: Any, client: Client) -> None:
    customers = client.dataset("customers")
    for wrong in ({"colour": "red"}, {"kind": "DOG"}, customers_service_pb2.GetCustomerRequest()):
        with pytest.raises(ValueError, match=r"colour|DOG|GetCustomerRequest"):
            customers.create(wrong)
    assert hub.calls == []


def test_update_changes_what_the_record_sets(hub: Any, client: Client) -> None:
    hub.records["customers"]["c1"] = Customer(
        customer_id="c1", name="Old", phone="1", notes="n", etag="7"
    )
    stored = client.dataset("customers").update(
        {"customerId": "c1", "name": "New", "phone": None, "billingAddress": {"city": "Bonn"},
         "etag": "7"},
        etag="7",
    )  # fmt: skip
    assert hub.requests[-1].update_mask.paths == ["name", "phone", "billing_address.city"]
    assert (stored.name, stored.HasField("phone"), stored.notes) == ("New", False, "n")
    assert stored.billing_address.city == "Bonn"


def test_update_takes_a_mask(hub: Any, client: Client) -> None:
    hub.records["customers"]["c1"] = Customer(customer_id="c1", name="Old", notes="n")
    record = Customer(customer_id="c1", name="New", notes="other")
    assert client.dataset("customers").update(record, ["name"]).notes == "n"
    client.dataset("customers").update(record)
    assert hub.requests[-1].update_mask.paths == ["name", "notes"]


def test_update_needs_a_key_and_a_field(client: Client) -> None:
    with pytest.raises(ValueError, match="lacks customer_id"):
        client.dataset("customers").update({"name": "x"})
    with pytest.raises(ValueError, match="no field to update"):
        client.dataset("customers").update({"customerId": "c1"})
    with pytest.raises(ValueError, match="no field 'colour'"):
        client.dataset("customers").update({"customerId": "c1", "colour": "red"})


def test_delete_and_batch_upsert(hub: Any, client: Client) -> None:
    fill(hub, 2)
    customers = client.dataset("customers")
    customers.delete("c0", etag="7")
    assert hub.requests[-1].etag == "7"
    counts = customers.batch_upsert([{"customerId": "c1"}, Customer(customer_id="c9")])
    assert counts == Counts(rows=2, created=1, updated=1, unchanged=0)


def test_datasets_are_those_of_the_hub(client: Client) -> None:
    (customers,) = client.datasets()
    assert customers.name == "customers"
    assert "orders" in Client.known_datasets()


# --- errors and retries ---


def test_an_error_carries_what_the_hub_says(hub: Any, client: Client, refusal: Any) -> None:
    hub.refusals = [
        refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "1 row is bad; nothing was loaded.",
            "IMPORT_ROW_INVALID",
            (("rows[7].credit_limit", "'much' is not a decimal number"),),
            bad_rows="1",
        )
    ]
    with pytest.raises(PenstockError) as caught:
        client.dataset("customers").import_(b"customer_id\nc1\n", "csv")
    error = caught.value
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "IMPORT_ROW_INVALID")
    assert error.violations == (
        Violation("rows[7].credit_limit", "'much' is not a decimal number"),
    )
    assert error.metadata == {"bad_rows": "1"}
    assert error.request_id == "req-1"
    assert "IMPORT_ROW_INVALID" in str(error)


def test_reads_are_tried_again_when_the_hub_is_unavailable(
    hub: Any, client: Client, refusal: Any
) -> None:
    fill(hub, 1)
    hub.refusals = [refusal(grpc.StatusCode.UNAVAILABLE, "down") for _ in range(2)]
    assert client.dataset("customers").get("c0").name == "N0"
    assert len(hub.calls) == 3


def test_reads_give_up_in_the_end(hub: Any, client: Client, refusal: Any) -> None:
    hub.refusals = [refusal(grpc.StatusCode.UNAVAILABLE, "down") for _ in range(9)]
    with pytest.raises(PenstockError, match="down"):
        client.dataset("customers").get("c0")
    assert len(hub.calls) == 6


def test_writes_are_never_tried_again(hub: Any, client: Client, refusal: Any) -> None:
    customers = client.dataset("customers")
    writes: list[Callable[[], object]] = [
        lambda: customers.create({"customerId": "x"}),
        lambda: customers.update({"customerId": "x", "name": "n"}),
        lambda: customers.delete("x"),
        lambda: customers.batch_upsert([{"customerId": "x"}]),
        lambda: customers.import_(b"customer_id\nx\n", "CSV"),
    ]
    for number, write in enumerate(writes, 1):
        hub.refusals = [refusal(grpc.StatusCode.UNAVAILABLE, "down")]
        with pytest.raises(PenstockError, match="down"):
            write()
        assert len(hub.calls) == number


def test_a_hub_that_is_not_there_is_said_so() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    def ask() -> None:
        with (
            Client(url, api_key="k", timeout=1) as client,
            pytest.raises(PenstockError) as caught,
        ):
            client.dataset("customers").get("c0")
        assert caught.value.code == "UNAVAILABLE"

    promptly(5, lambda: duration(ask))
    with (
        Client(url, client_id="a", client_secret="b") as client,
        pytest.raises(PenstockError, match=f"cannot reach the hub at {url}"),
    ):
        client.dataset("customers").get("c0")


def test_an_unknown_dataset_names_those_there_are(client: Client) -> None:
    for name in ("custmers", "../x", "Customers", ""):
        with pytest.raises(UnknownDataset, match="contacts, customers"):
            client.dataset(name)


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://h", "http://", "http://h/v1", "http://u@h", "http://h:x"]
)
def test_what_is_no_url_of_a_hub_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Client(url)


def test_urls_and_arguments() -> None:
    assert parse_url("https://hub.example.com/") == "https://hub.example.com"
    assert parse_url("http://[::1]:8080") == "http://[::1]:8080"
    for wrong in ({"client_id": "a"}, {"api_key": "a", "token": "b"}):
        with pytest.raises(ValueError):
            Client("http://127.0.0.1:1", **wrong)  # type: ignore[arg-type]


# --- files ---


def test_export_streams_what_the_hub_sends(hub: Any, client: Client) -> None:
    chunks = client.dataset("customers").export(
        "ndjson", filter="a = 1", order_by="b", fields=["c"], limit=3
    )
    assert b"".join(chunks) == b"customer_id,name\nc1,Ada\n"
    request = hub.requests[-1]
    assert (request.format, request.filter, request.order_by) == ("NDJSON", "a = 1", "b")
    assert (request.fields, request.limit) == ("c", 3)


def test_an_export_that_breaks_off_goes_on_where_it_did(hub: Any, client: Client) -> None:
    hub.refuse_stream_after, hub.breaks = 1, 3
    chunks = client.dataset("customers").export()
    assert list(chunks) == [b"customer_id,name\n", b"c1,Ada\n"]
    assert len(hub.calls) == 4
    resumed = hub.requests[-1]
    assert (resumed.resume_receipt, resumed.resume_offset) == ("r1", 17)
    assert chunks.receipt is not None and chunks.receipt.byte_count == 24


def test_an_export_that_breaks_off_for_good_is_an_error(
    hub: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.client.export.BACKOFF", Backoff(attempts=3, first=0.001))
    hub.refuse_stream_after = 1
    chunks = client.dataset("customers").export()
    assert next(chunks) == b"customer_id,name\n"
    with pytest.raises(PenstockError, match="database"):
        next(chunks)
    assert len(hub.calls) > 1


def test_an_export_that_cannot_be_resumed_says_so(hub: Any, client: Client) -> None:
    hub.refuse_stream_after, hub.resumable = 1, False
    with pytest.raises(PenstockError) as raised:
        list(client.dataset("customers").export())
    assert raised.value.reason == "EXPORT_NOT_RESUMABLE"
    assert len(hub.calls) == 2


@pytest.mark.parametrize(
    ("receipt", "said"),
    [
        (None, "without a receipt"),
        ({"byte_count": 25}, "24 bytes have arrived, not 25"),
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"state": receipts_pb2.Receipt.FAILED}, "FAILED"),
        ({"state": receipts_pb2.Receipt.RUNNING}, "RUNNING"),
    ],
)
def test_an_export_that_is_not_its_receipts_is_incomplete(
    hub: Any, client: Client, tmp_path: Path, receipt: Any, said: str
) -> None:
    hub.receipt = receipt
    with pytest.raises(ExportIncomplete, match=said) as raised:
        list(client.dataset("customers").export())
    assert raised.value.receipt_id == "r1"
    with pytest.raises(ExportIncomplete):
        client.dataset("customers").download(tmp_path / "c.csv")
    assert not (tmp_path / "c.csv").exists()


def test_a_download_that_cannot_be_resumed_starts_again(
    hub: Any, client: Client, tmp_path: Path
) -> None:
    hub.refuse_stream_after, hub.breaks, hub.resumable = 1, 2, False
    client.dataset("customers").download(tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_bytes() == b"".join(hub.export_chunks)
    assert len(hub.calls) == 5  # two that broke off, each with an attempt to continue, and the last


def test_an_export_that_has_not_begun_is_tried_again(
    hub: Any, client: Client, refusal: Any
) -> None:
    hub.refusals = [refusal(grpc.StatusCode.UNAVAILABLE, "down")]
    assert b"".join(client.dataset("customers").export()).endswith(b"Ada\n")
    hub.export_chunks = []
    assert list(client.dataset("customers").export()) == []


def test_download_leaves_no_file_that_looks_whole(
    hub: Any, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.client.export.BACKOFF", Backoff(attempts=3, first=0.001))
    path = tmp_path / "c.csv"
    seen: list[int] = []
    assert client.dataset("customers").download(path, progress=seen.append) == 24
    assert path.read_bytes() == b"customer_id,name\nc1,Ada\n"
    assert seen == [17, 24]
    assert [p.name for p in tmp_path.iterdir()] == ["c.csv"]
    hub.refuse_stream_after = 1
    other = tmp_path / "d.csv"
    with pytest.raises(PenstockError):
        client.dataset("customers").download(other)
    assert not other.exists()
    assert (tmp_path / "d.csv.part").read_bytes() == b"customer_id,name\n"


def test_import_sends_a_file_in_frames(hub: Any, client: Client, tmp_path: Path) -> None:
    data = b"customer_id\n" + b"".join(b"c%d\n" % i for i in range(200_000))
    path = tmp_path / "c.csv"
    path.write_bytes(data)
    seen: list[int] = []
    counts = client.dataset("customers").import_(path, progress=seen.append)
    assert counts.rows == 200_000
    assert hub.uploads == [data]
    parts = hub.requests[-1]
    assert len(parts) > 3 and max(len(p.file.data) for p in parts) <= 256 << 10
    assert [p.format for p in parts] == ["CSV"] + [""] * (len(parts) - 1)
    assert parts[0].file.content_type == "text/csv"
    assert seen[-1] == len(data)


def test_import_takes_files_bytes_and_iterables(hub: Any, client: Client, tmp_path: Path) -> None:
    data = b"customer_id\nc1\n"
    path = tmp_path / "x.ndjson"
    path.write_bytes(data)
    customers = client.dataset("customers")
    customers.import_(str(path), "CSV")
    with path.open("rb") as file:
        customers.import_(file, "CSV")
    customers.import_(data, "CSV")
    customers.import_(iter([data[:5], b"", data[5:]]), "CSV")
    customers.upload(path)
    customers.import_(b"", "CSV")
    assert hub.uploads == [data] * 5 + [b""]
    assert hub.requests[-2][0].format == "NDJSON"
    for unnamed in (b"x", tmp_path / "x.dat"):
        with pytest.raises(ValueError, match="format"):
            customers.import_(unnamed)


def test_a_source_that_fails_cancels_the_import(hub: Any, client: Client) -> None:
    def source() -> Iterator[bytes]:
        yield b"customer_id\n" + b"c1\n" * 200_000
        raise OSError("the disk is gone")

    hub.upload_is_cancelled = True
    with pytest.raises(OSError, match="the disk is gone"):
        client.dataset("customers").import_(source(), "CSV")
    assert hub.upload_ended.wait(PATIENCE)
    assert hub.uploads == []


def test_whoever_stops_early_ends_the_export(hub: Any, client: Client) -> None:
    hub.export_chunks = [b"x" * 1000] * 100_000
    chunks = client.dataset("customers").export()
    next(chunks)
    chunks.close()
    fill(hub, 1)
    assert client.dataset("customers").get("c0").name == "N0"
