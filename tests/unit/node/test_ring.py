"""What callers may do at the sidecar, from the settings and the plans' highest rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstockd.node.errors import ConfigRefused
from penstockd.node.ring import (
    RateLimit,
    RingRate,
    forget_plan_rate,
    read_plan_rate,
    scale_limits,
    write_plan_rate,
)

SETTING = RateLimit(rate=1000, burst=2000)


@pytest.mark.parametrize(
    ("plans", "consumer", "address"),
    [
        (None, SETTING, SETTING),
        # All have a rate: the highest; an address may hold many consumers.
        (RingRate(50, 100, True), RateLimit(50, 150), SETTING),
        (RingRate(5000, 100, True), RateLimit(5000, 5100), RateLimit(5000, 5100)),
        # Some have none: the settings, unless a plan allows more.
        (RingRate(50, 100, False), SETTING, SETTING),
        (RingRate(5000, 100, False), RateLimit(5000, 5100), RateLimit(5000, 5100)),
    ],
)
def test_limits_of_callers(plans: RingRate | None, consumer: RateLimit, address: RateLimit) -> None:
    limits = scale_limits(SETTING, plans)
    assert limits is not None
    assert (limits["consumer"], limits["address"]) == (consumer, address)
    assert limits["with_key"] == address.times(2)
    # What needs no plan keeps its limits.
    assert limits["sign_in"] == SETTING.times(1, 5) and limits["open"] == SETTING.times(1, 20)
    assert scale_limits(None, plans) is None, "the operator wants no limits here"


def test_the_rate_is_told_in_a_file(tmp_path: Path) -> None:
    assert read_plan_rate(tmp_path) is None
    for rate in (RingRate(5, 10, True), None, RingRate(7, 1, False)):
        write_plan_rate(tmp_path, rate)
        assert read_plan_rate(tmp_path) == rate
    assert [path.name for path in tmp_path.iterdir()] == ["plan-rate.json"]
    for wrong in ("{}", "[1]", "x"):
        (tmp_path / "plan-rate.json").write_text(wrong)
        with pytest.raises(ConfigRefused, match="holds no rate"):
            read_plan_rate(tmp_path)
    for _ in range(2):
        forget_plan_rate(tmp_path)
        assert read_plan_rate(tmp_path) is None
