"""Retention of the audit on a running hub: by the keeper, by command, in backups and in replies."""

from __future__ import annotations

import json
from typing import Any

from harness import RunningHub, eventually, folder

SETTINGS = {"PENSTOCK_WORKERS": "1", "PENSTOCK_AUDIT_CHECKPOINT_SECONDS": "0.5"}

#: Entries of three days, four to two days ago.
OLD = """
INSERT INTO hub.audit_entry (day, entry_time, request_id, policy_revision, method, outcome)
SELECT current_date - ago, now() - make_interval(days => ago), 'old-' || ago, 1, '/Old', 'OK'
FROM generate_series(2, 4) AS ago, generate_series(1, 10)
"""
#: Signed, and counted as usage.
SIGNED = """
SELECT count(*) FROM hub.audit_chain JOIN hub.usage_place USING (day)
WHERE day < current_date - 1 AND last_sequence = 10 AND checked_sequence = 10 AND folded = 10
"""


def archived(hub: RunningHub) -> list[dict[str, object]]:
    done = hub.command("audit", "archives", "--format", "json")
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def verified(hub: RunningHub, *more: str, code: int = 0) -> dict[str, dict[str, Any]]:
    done = hub.command("audit", "verify", "--format", "json", *more, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    report: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return report


def test_old_days_move_to_files_that_backups_keep() -> None:
    with folder() as data:
        hub = RunningHub(data / "hub", customers=10, environment=SETTINGS)
        other = RunningHub(data / "other", hub.port, secret="", environment=SETTINGS)
        hub.start()
        try:
            hub.sql_script(OLD)
            eventually(lambda: hub.sql(SIGNED) == [(3,)])
            check_command(hub)
            hub.stop()
            hub.environment["PENSTOCK_AUDIT_DAYS"] = "1"
            hub.start()
            eventually(lambda: hub.sql("SELECT count(*) FROM hub.audit_archive") == [(3,)])
            check_files(hub)
            check_replies(hub)
            done = hub.command("backup", str(data / "vault"), "--format", "json")
            assert json.loads(done.stdout)["archives"] == 3
            done = hub.command("backup", str(data / "vault"), "--wal", "--format", "json")
            assert json.loads(done.stdout)["archives"] == 0, "each is there once"
            hub.stop()
            other.command("restore", str(data / "vault"))
            report = verified(other)
            assert report["archived"]["entries"] == 30
            files = sorted((data / "hub/audit/archive").iterdir())
            assert [f.read_bytes() for f in files] == [
                f.read_bytes() for f in sorted((data / "other/audit/archive").iterdir())
            ]
            files[0].unlink()
            report = verified(other, "--archive", str(files[0].parent), code=1)
            assert "is missing" in str(report["findings"])
        finally:
            hub.stop()


def check_command(hub: RunningHub) -> None:
    """The command archives while the hub runs, and refuses to guess how many days to keep."""
    refused = hub.command("audit", "archive", check=False)
    assert refused.returncode == 2 and b"--days" in refused.stderr
    done = hub.command("audit", "archive", "--days", "3", "--format", "json")
    assert [row["entries"] for row in json.loads(done.stdout)] == [10]
    assert hub.sql("SELECT count(*) FROM hub.audit_entry WHERE request_id = 'old-4'") == [(0,)]


def check_files(hub: RunningHub) -> None:
    """Files and database are verified together, apart, and one by one."""
    report = verified(hub)
    assert (report["archived"]["entries"], report["archived"]["files"]) == (30, 3)
    assert "3 archives" in str(report["summary"])
    alone = verified(hub, "--no-archive")
    assert alone["archived"]["files"] == 0 and "NOT READ" in str(alone["summary"])
    files = sorted((hub.data / "audit/archive").iterdir())
    verified(hub, "--copy", str(files[0]))
    kept = files[0].read_bytes()
    files[0].write_bytes(kept[:-9])
    assert str(verified(hub, code=1)["findings"]).count("ARCHIVE") == 1
    files[0].write_bytes(kept)


def check_replies(hub: RunningHub) -> None:
    """Replies name archived days if the request asks for these, and only then."""
    rows = archived(hub)
    days = [str(row["day"]) for row in rows]
    found = hub.get("/v1/audit/entries", filter='method = "/Old"').json()
    assert not found.get("entries")
    told = found["archivedDays"]
    assert (told["firstDay"], told["lastDay"]) == (min(days), max(days))
    assert told["places"] == [f"{row['host']}:{row['folder']}" for row in rows[:1]]
    (later,) = hub.sql("SELECT to_char(current_date - 1, 'YYYY-MM-DD') || 'T00:00:00Z'")[0]
    assert "archivedDays" not in hub.get("/v1/audit/entries", start_time=later).json()
    shown = hub.get("/v1/audit/disclosures/customers/c00000001").json()
    assert shown["archivedDays"] == told
    assert hub.get("/v1/audit/entries:verify").json()["archivedDays"] == told
    done = hub.command("audit", "list", "--limit", "1")
    assert f"archived: {min(days)} to {max(days)}, in ".encode() in done.stderr
    assert done.stderr.count(b"archived") == 1
    copy = hub.data / "copy.ndjson"
    hub.command("audit", "export", "-o", str(copy))
    assert verified(hub, "--copy", str(copy))["archived"]["last_day"] == max(days)
