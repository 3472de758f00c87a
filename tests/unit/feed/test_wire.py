"""Changes as feeds send them, encoded by hand, compared with protobuf's own encoding."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from penstock.hub.v1 import changes_pb2
from penstockd.feed.event import Event, FeedOperation
from penstockd.feed.wire import ChangeCodec, receipt_lines
from penstockd.store.sequences import Sequences

SEQUENCES = Sequences(b"k" * 32)
#: Names of transactions have any size: most take nine bytes, few of these take less.
SHORT = [n for n in range(4000) if SEQUENCES.transaction(n) < 1 << 56]
NUMBERS = st.integers(0, 2**50 - 1) | st.integers(0, 2**14) | st.sampled_from(SHORT)
RECORDS = st.none() | st.binary(max_size=300) | st.just(b"x" * 20_000)


@given(
    NUMBERS,
    NUMBERS,
    st.sampled_from(FeedOperation),
    st.text(max_size=200),
    RECORDS,
    RECORDS,
    st.lists(st.sampled_from(["name", "billing_address.city"])),
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),
)
def test_a_change_is_what_protobuf_makes_of_it(
    number: int,
    transaction: int,
    operation: FeedOperation,
    key: str,
    before: bytes | None,
    after: bytes | None,
    changed: list[str],
    moment: datetime,
) -> None:
    event = Event(
        number, transaction, "customers", key, operation, before, after, tuple(changed), moment
    )
    sequence = SEQUENCES.sequence(number)
    codec = ChangeCodec("penstock.model.v1.Customer", SEQUENCES, "customers", include_before=True)
    expected = changes_pb2.Change(
        operation=int(operation),  # type: ignore[arg-type]
        key=key,
        changed_fields=changed,
        transaction_id=SEQUENCES.transaction(transaction),
        sequence=sequence,
        dataset="customers",
    )
    expected.commit_time.FromDatetime(moment)
    for name, record in (("before", before), ("after", after)):
        if record is not None:
            field = getattr(expected, name)
            field.type_url, field.value = "type.googleapis.com/penstock.model.v1.Customer", record
    found = changes_pb2.ListChangesResponse.FromString(codec.encode(event, sequence))
    assert list(found.changes) == [expected]


def test_receipts_digest_the_sequence_the_operation_and_the_key() -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    events = [
        Event(n, 9, "customers", key, FeedOperation.CREATED, None, b"", (), moment)
        for n, key in ((7, "é"), (9, "b"))
    ]
    assert receipt_lines(events, [70, 90]) == "70\tCREATED\té\n90\tCREATED\tb\n".encode()
