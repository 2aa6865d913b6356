"""Arithmetic and the protocols that light clients speak."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.counters import Counted, parse_actions
from benchmarks.figures import latency_columns, percentile, rounded, slope
from benchmarks.resp import command, reply_ends_at


def test_a_percentile_is_a_measured_value() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50, 99, 100)
    assert percentile([3.0], 0.5) == percentile([3.0], 0.99) == 3.0
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_leaves_that_share_at_or_below_it(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, 0.0), (0.012345, 0.0123), (1.2345, 1.23), (123.45, 123), (98_765.0, 98_800), (-2.345, -2.35)],
)
def test_numbers_have_three_significant_figures(value: float, expected: float) -> None:
    assert rounded(value) == pytest.approx(expected, abs=0.0051 * abs(expected))
    assert len(str(rounded(value)).replace("-", "").replace(".", "").strip("0")) <= 3


def test_what_did_not_arrive_is_told() -> None:
    columns = latency_columns([1.0, 2.0, 3.0], expected=4)
    assert columns == {"delivered": 0.75, "p50_ms": 2.0, "p99_ms": 3.0, "max_ms": 3.0}
    assert latency_columns([], expected=4) == {"delivered": 0.0}


def test_the_slope_is_that_of_the_line() -> None:
    assert slope([(0, 100), (10, 120), (20, 140)]) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="two different points"):
        slope([(5, 1), (5, 2)])


def test_a_redis_command_is_framed_by_bytes() -> None:
    assert command("XADD", "ä", "*") == "*3\r\n$4\r\nXADD\r\n$2\r\nä\r\n$1\r\n*\r\n"


def test_a_reply_ends_where_its_last_part_does() -> None:
    reply = b"*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nf\r\n$5\r\nt1\r\ne\r\n"
    assert reply_ends_at(reply) == len(reply)
    assert reply_ends_at(reply + b"*1\r\n") == len(reply)
    assert [reply_ends_at(reply[:end]) for end in range(len(reply))] == [None] * len(reply)
    assert reply_ends_at(b"$-1\r\n") == 5
    assert reply_ends_at(b":17\r\n") == 5


METRICS = """# TYPE action counter
action{action_type="grpc_SignalWorkflowExecution",namespace="default",service_name="frontend"} 12
action{action_type="grpc_SignalWorkflowExecution",namespace="default",service_name="history"} 1
action{action_type="grpc_StartWorkflowExecution",namespace="temporal_system",service_name="frontend"} 2
service_requests{namespace="default"} 5
"""


def test_actions_are_those_of_the_namespace_in_use() -> None:
    assert parse_actions(METRICS) == {"grpc_SignalWorkflowExecution": 13}


def test_what_was_counted_since() -> None:
    before = Counted(parse_actions(METRICS), redis_bytes=10)
    after = Counted(parse_actions(METRICS + METRICS.replace("Signal", "Query")), redis_bytes=25)
    since = after.since(before)
    assert since.actions == {"grpc_QueryWorkflowExecution": 13}
    assert since.redis_bytes == 15
