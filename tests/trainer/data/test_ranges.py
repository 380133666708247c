"""Byte ranges: what is asked for, and what comes back, in which order."""

import pytest

from patho_trainer.data import faults, ranges


def test_ranges_are_asked_for_in_the_order_of_the_object_and_without_empty_ones():
    found = ranges.ranges("u", [30, 0, 7], [5, 10, 0])
    assert found.arguments == {"starts": [0, 30], "lengths": [10, 5], "coalesce": 0}
    assert ranges.placed(found, [memoryview(b"a"), memoryview(b"b")], 3) == [b"b", b"a", b""]


@pytest.mark.parametrize(
    ("starts", "sizes", "requests", "first"),
    [([0, 10, 20], [10, 10, 5], 1, 3), ([0, 11], [10, 5], 2, 1), ([0, 5, 20], [10, 2, 1], 2, 2), ([], [], 0, 0)],
)
def test_ranges_that_touch_or_overlap_are_one_request(starts, sizes, requests, first):
    found = ranges.ranges("u", starts, sizes)
    assert found.requests == requests
    assert not starts or [len(part.starts) for part in found.split()] == [first, len(starts) - first]


def test_the_bytes_of_a_span_are_cut_into_its_ranges():
    found = ranges.ranges("u", [2, 4, 3], [2, 3, 4])
    assert found.stretches == [(slice(0, 3), 2, 7)]
    assert [bytes(b) for b in found.cut([b"cdefg"])] == [b"cd", b"defg", b"efg"]


def test_a_short_body_is_transient():
    found = ranges.ranges("u", [0], [4])
    with pytest.raises(faults.Transient, match="a body of 3 bytes where 4 were asked for"):
        found.cut([b"abc"])
    with pytest.raises(faults.Transient, match="a body of 2 bytes where 4 were asked for"):
        found.checked([b"ab"])
