"""The log of a process: an outage that fails many calls is one line a second, not one for each
call."""

from __future__ import annotations

import pytest
import structlog

from penstockd.observe import RareLine, log_beside_results


def test_a_line_that_many_calls_would_write_is_written_once_a_second() -> None:
    time = 100.0
    with structlog.testing.capture_logs() as logged:
        line = RareLine(structlog.get_logger(), "database_unavailable", clock=lambda: time)
        for _ in range(700):  # ten seconds of seventy calls each
            line.warn(method="/m", cause="gone")
            time += 1 / 70
    assert 9 <= len(logged) <= 11
    assert {e["event"] for e in logged} == {"database_unavailable"}
    assert logged[0]["left_out"] == 0 and logged[0]["cause"] == "gone"
    assert len(logged) + sum(e["left_out"] for e in logged) + 70 >= 690


def test_what_a_command_logs_is_not_part_of_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    logger = structlog.get_logger()
    try:
        structlog.reset_defaults()
        logger.warning("on_stdout")  # the control
        assert "on_stdout" in capsys.readouterr().out
        log_beside_results()
        logger.info("a_detail")
        logger.warning("a_warning")
    finally:
        structlog.configure(**before)
    shown = capsys.readouterr()
    assert shown.out == "" and "a_warning" in shown.err and "a_detail" not in shown.err
