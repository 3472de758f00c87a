"""Records of very many fields, and of very many bytes."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from workshops import OUTPUT, DatasetDoor, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane("api/models", priority=12)]

MIB = 1 << 20


@pytest.fixture(scope="module")
def samples(modelled: Workshop) -> DatasetDoor:
    return DatasetDoor(modelled, "samples")


def test_a_patch_may_name_all_fields_of_a_record(modelled: Workshop) -> None:
    ribbons = DatasetDoor(modelled, "ribbons")
    made = ribbons.post("POST", ribbons.path, {"ribbonId": "r"}).json()
    body = {n: n if v is None else v for n, v in made.items() if n not in OUTPUT}
    assert len(",".join(body)) > 4096, "more than a selection of fields may have"
    reply = ribbons.post("PATCH", f"{ribbons.path}/r", body)
    assert reply.status == 200, reply.text
    got = ribbons.hub.get(f"{ribbons.path}/r", "admin").json()
    assert {n: got[n] for n in body} == body


def test_a_mask_may_name_all_fields_of_a_record(modelled: Workshop) -> None:
    ribbons = DatasetDoor(modelled, "ribbons")
    request = ribbons.message("UpdateRibbonRequest", allowMissing=True)
    request.ribbon.ribbon_id = "masked"
    paths = [f.path for f in ribbons.dataset.fields if not f.in_key]
    request.update_mask.paths.extend(paths)
    setattr(request.ribbon, paths[0], "x")
    assert getattr(ribbons.call("UpdateRibbon", request, "Ribbon"), paths[0]) == "x"
    request.update_mask.paths.append("a_column_with_no_name")
    with pytest.raises(grpc.RpcError, match="a_column_with_no_name"):
        ribbons.call("UpdateRibbon", request, "Ribbon")


def post(samples: DatasetDoor, key: str, size: int) -> Any:
    return samples.post("POST", samples.path, {"sampleId": key, "text": "x" * size})


def test_a_record_of_more_bytes_than_replies_hold_is_refused(samples: DatasetDoor) -> None:
    reply = post(samples, "huge", 7 * MIB // 2)
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text[:500]
    assert "larger than 3.5 MiB" in reply.json()["message"]
    assert samples.hub.get(f"{samples.path}/huge", "admin").status == 404


def test_the_largest_record_is_read_back(samples: DatasetDoor) -> None:
    assert post(samples, "largest", 7 * MIB // 2 - 1000).status == 200
    path = f"{samples.path}/largest"
    assert len(samples.hub.get(path, "admin").json()["text"]) == 7 * MIB // 2 - 1000
    request = samples.message("GetSampleRequest", sampleId="largest")
    assert len(samples.call("GetSample", request, "Sample").text) == 7 * MIB // 2 - 1000
    assert samples.hub.request("DELETE", path, consumer="admin").status == 200


def test_updates_do_not_add_up_to_a_larger_record(samples: DatasetDoor) -> None:
    path = f"{samples.path}/growing"
    assert post(samples, "growing", 2 * MIB).status == 200
    before = samples.hub.get(path, "admin").json()
    reply = samples.post("PATCH", path, {"source": "y" * (2 * MIB)})
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text[:500]
    assert samples.hub.get(path, "admin").json() == before
    assert samples.post("PATCH", path, {"text": "y", "source": "y" * (2 * MIB)}).status == 200
    assert samples.hub.request("DELETE", path, consumer="admin").status == 200


@pytest.mark.parametrize("more", [1, 150], ids=["few", "many"])
def test_a_batch_refuses_a_large_record_alone(samples: DatasetDoor, more: int) -> None:
    prefix = f"batch{more}-"
    small = [{"sampleId": f"{prefix}{i}"} for i in range(more)]
    records = [*small, {"sampleId": f"{prefix}huge", "text": "x" * (7 * MIB // 2)}]
    path = f"{samples.path}:batchUpsert"
    reply = samples.post("POST", path, {"samples": records})
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text[:500]
    reply = samples.post("POST", path, {"samples": records, "partial": True})
    assert reply.status == 200, reply.text[:500]
    report = reply.json()
    (error,) = report["rowErrors"]
    assert (int(report["createdCount"]), int(report["refusedCount"])) == (more, 1)
    assert int(error["row"]) == more + 1 and "larger than 3.5 MiB" in error["description"]
    found = samples.hub.get(samples.path, "admin", filter=f'sample_id = "{prefix}*"').json()
    assert len(found["samples"]) == min(more, 100)


def test_a_body_names_records_by_their_fields(samples: DatasetDoor) -> None:
    """A body of one field leaves the others alone, however large they are."""
    assert post(samples, "kept", MIB).status == 200
    path = f"{samples.path}/kept"
    assert samples.post("PATCH", path, {"flag": True}).status == 200
    got = samples.hub.get(path, "admin").json()
    assert (got["flag"], len(got["text"])) == (True, MIB)
