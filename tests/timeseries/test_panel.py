from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.timeseries.panel import Block, Panel, listed, whole_numbers


def block(names=("a", "b"), rows=20, ahead=5, start="2020-01-01", tz=None) -> Block:
    index = pd.date_range(start, periods=rows, freq="D", tz=tz)
    values = np.arange(rows * len(names), dtype=float).reshape(rows, -1)
    past, known = np.arange(2.0 * rows).reshape(rows, 1, 2), np.arange(rows + ahead, dtype=float).reshape(-1, 1, 1)
    return Block(tuple(names), index, values, past, known)


def panel(*blocks: Block, joint=True) -> Panel:
    size = sum(len(b.names) for b in blocks)
    return Panel(blocks, "D", joint, ("p", "q"), ("k",), np.zeros((size, 0)), {}, whole_numbers(blocks))


def test_parts_are_joined_to_the_whole():
    whole = panel(block())
    for head, tail in (whole.split(rows=6), whole.split(time="2020-01-15")):
        [h], [t] = head.blocks, tail.blocks
        assert len(h) == 14 and len(t) == 6 and h.index[-1] < t.index[0] == pd.Timestamp("2020-01-15")
        for name in ("values", "past"):
            np.testing.assert_array_equal(
                np.concatenate([getattr(h, name), getattr(t, name)]), getattr(whole.blocks[0], name)
            )
        np.testing.assert_array_equal(h.known, whole.blocks[0].known)  # what is known of the second part stays known
        np.testing.assert_array_equal(t.known, whole.blocks[0].known[14:])
        assert h.index.freq is not None and t.index.freq is not None
    np.testing.assert_array_equal(whole.tail(6).blocks[0].values, tail.blocks[0].values)
    assert len(whole.tail(100).blocks[0]) == 20


def test_each_series_is_split_from_its_own_end():
    apart = panel(block("a", 20), block("b", 9, start="2020-02-01"), joint=False)
    head, tail = apart.split(rows=4)
    assert [len(b) for b in head.blocks] == [16, 5] and [len(b) for b in tail.blocks] == [4, 4]
    assert apart.names == ("a", "b") and apart.size == 2 and not apart.common_end and panel(block()).common_end
    with pytest.raises(UserError, match=r"series 'b' has 9 rows, from 2020-02-01.*the last 9 rows"):
        apart.split(rows=9)
    with pytest.raises(UserError, match=r"series 'b'.*2020-01-05"):
        apart.split(time="2020-01-05")
    with pytest.raises(ValueError, match="either"):
        apart.split()


def test_a_time_of_any_zone_splits():
    zoned = panel(block(tz="Europe/Berlin"))
    for time in ("2020-01-11", pd.Timestamp("2020-01-10 23:00", tz="UTC")):
        assert len(zoned.split(time=time)[1].blocks[0]) == 10


def test_coming_times():
    common = panel(block("a"), block("b"), joint=False).coming(3)
    assert common.equals(pd.date_range("2020-01-21", periods=3))
    for tz in (None, "Europe/Berlin"):
        apart = panel(block("a", tz=tz), block("b", start="2020-03-01", tz=tz), joint=False).coming(2)
        assert apart.shape == (2, 2) and apart.dtype.kind == "M"
        first = pd.Timestamp("2020-01-21", tz=tz)
        assert pd.Timestamp(apart[0, 0]) == (first if tz is None else first.tz_convert("UTC").tz_localize(None))


def test_frames_and_series_come_back():
    whole = panel(block())
    frame = whole.frame(rows=3)
    assert frame.shape == (3, 2) and list(frame.columns) == ["a", "b"]
    pd.testing.assert_series_equal(whole.series("b"), whole.frame()["b"], check_freq=False)
    with pytest.raises(UserError, match="no series 'z'"):
        whole.series("z")
    long = panel(block("a", 3), block("b", 2), joint=False).frame()
    assert long["unique_id"].tolist() == list("aaabb") and long["y"].tolist() == [0, 1, 2, 0, 1]


def test_what_must_be_known_ahead():
    whole = panel(block(ahead=5))
    whole.check_future(5)
    with pytest.raises(UserError, match=r"'k' is missing for 2020-01-26.*step 6 of the horizon of 7"):
        whole.check_future(7)
    known = whole.blocks[0].known.copy()
    known[22] = np.nan
    holed = replace(whole, blocks=(replace(whole.blocks[0], known=known),))
    holed.check_future(2)
    with pytest.raises(UserError, match=r"2020-01-23"):
        holed.check_future(3)
    each = replace(whole.blocks[0], known=np.where(np.arange(2)[:, None] == 1, np.nan, whole.blocks[0].known))
    with pytest.raises(UserError, match=r"'k' of series 'b'"):
        replace(whole, blocks=(each,)).check_future(1)
    none = replace(whole, known_names=(), blocks=(replace(whole.blocks[0], known=np.zeros((20, 1, 0))),))
    none.check_future(100)


def test_shapes_that_disagree_are_refused():
    good = block()
    for wrong in (
        {"values": np.zeros((20, 3))},
        {"past": np.zeros((19, 1, 2))},
        {"known": np.zeros((19, 1, 1))},
        {"past": np.zeros((20, 3, 2))},
    ):
        with pytest.raises(ValueError, match="must be"):
            replace(good, **wrong)
    with pytest.raises(ValueError, match="just one"):
        panel(good, good)
    with pytest.raises(ValueError, match="block each"):
        panel(good, joint=False)
    with pytest.raises(ValueError, match="column for each"):
        replace(panel(good), known_names=("k", "l"))
    with pytest.raises(ValueError, match="row for each"):
        replace(panel(good), static=np.zeros((1, 0)))


def test_whole_numbers_and_lists():
    values = np.array([[1, 1.5, np.nan], [np.nan, 2, 3]])
    index = pd.date_range("2020", periods=2, freq="D")
    found = whole_numbers((Block(("a", "b", "c"), index, values, np.zeros((2, 1, 0)), np.zeros((2, 1, 0))),))
    assert found.tolist() == [True, False, True]
    assert listed(["a", 1]) == "'a', 1" and listed(list(range(10))).endswith("7 and 2 more")
