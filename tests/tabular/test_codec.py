from __future__ import annotations

import datetime
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy.stats import kstest

from diffusionkit.core.state import Batch
from diffusionkit.errors import UserError
from diffusionkit.tabular.codec import TableCodec
from diffusionkit.tabular.schema import Schema

N = 300
rng = np.random.default_rng(0)
HOLES = rng.random(N) < 0.2
DAYS = pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 999, N), unit="D"))
MOMENTS = pd.Series(
    pd.Timestamp("2020-01-01", tz="Europe/Berlin") + pd.to_timedelta(rng.integers(0, 10**9, N), unit="s")
)
TEXTS, FLAGS = pd.Series(rng.choice(["a", "b", "c"], N)), pd.Series(rng.random(N) < 0.5)
DATES = pd.Series([datetime.date(2020, 1, 1) + datetime.timedelta(int(k)) for k in rng.integers(0, 99, N)])
COLUMNS = {
    "str": TEXTS, "object": TEXTS.astype(object), "bool": FLAGS, "int64": pd.Series(rng.integers(-(2**62), 2**62, N)),
    "int8": pd.Series(rng.integers(0, 9, N).astype("int8")), "uint64": pd.Series(rng.integers(0, 2**64, N, dtype="uint64")),
    "float64": pd.Series(rng.normal(size=N)), "float32": pd.Series(rng.normal(size=N).astype("float32")),
    "heavy": pd.Series(10 ** rng.uniform(-300, 300, N) * rng.choice([-1, 1], N)), "day": DAYS, "tz": MOMENTS,
    "seconds": DAYS.astype("datetime64[s]"), "span": pd.Series(pd.to_timedelta(rng.integers(0, 50, N), unit="h")),
    "constant": pd.Series([3] * N), "constant tz": pd.Series([pd.Timestamp("2020", tz="UTC")] * N),
    "none": pd.Series([None] * N, dtype=object), "nan": pd.Series([np.nan] * N), "no category": pd.Series([None] * N, dtype="category"),
    "cut": pd.Series(pd.cut(rng.normal(size=N), 5)), "numbers": pd.Series(pd.Categorical(rng.integers(0, 4, N))), "date": DATES,
    "ordered": pd.Series(pd.Categorical(rng.choice(["lo", "hi"], N), ["lo", "mid", "hi"], ordered=True)),
    "Int64": pd.Series(rng.integers(0, 2**60, N)).astype("Int64"), "boolean": FLAGS.astype("boolean"), "string": TEXTS.astype("string"),
    "Float64": pd.Series(rng.integers(0, 9, N) / 4).astype("Float64"), "flag objects": FLAGS.astype(object),
    "whole objects": pd.Series(rng.integers(0, 9, N)).astype(object), "arrow int": pd.Series(rng.integers(0, 9, N)).astype("int64[pyarrow]"),
    "arrow text": TEXTS.astype(pd.ArrowDtype(pa.string())), "arrow tz": MOMENTS.astype("timestamp[us, tz=Europe/Berlin][pyarrow]"),
    "arrow date": DAYS.astype("date32[day][pyarrow]"), "arrow bool": FLAGS.astype("bool[pyarrow]"), 7: pd.Series(rng.integers(0, 3, N) * 1.0),
    "sparse": pd.Series(pd.arrays.SparseArray(rng.integers(0, 3, N))), "months": pd.Series(pd.Categorical(DAYS.dt.to_period("Q").dt.to_timestamp())),
}  # fmt: skip
WHOLE = {"bool": "boolean", "int64": "Int64", "int8": "Int8", "uint64": "UInt64", "constant": "Int64"}


def holed(series: pd.Series) -> pd.Series:
    """Some values missing; in a dtype that can say so."""
    series = series.astype(WHOLE.get(str(series.dtype), series.dtype))
    if isinstance(series.dtype, pd.SparseDtype):
        series = series.astype(float)
    return series.mask(HOLES, None if series.dtype == "object" else pd.NA if series.dtype.kind == "O" else np.nan)


def table(make=lambda series: series) -> pd.DataFrame:
    return pd.DataFrame({name: make(series) for name, series in COLUMNS.items()})


def small(n=N, seed=0) -> pd.DataFrame:
    r = np.random.default_rng(seed)
    return pd.DataFrame({
        "income": np.where(r.random(n) < 0.7, 0.0, r.exponential(size=n).round(2)), "age": r.integers(17, 90, n),
        "job": r.choice(["a", "b", "c"], n, p=[0.7, 0.2, 0.1]), "flag": r.random(n) < 0.3,
    })  # fmt: skip


@pytest.mark.parametrize("make", [lambda series: series, holed], ids=["whole", "holes"])
@pytest.mark.parametrize("bins", [0, 7, 100])
def test_frames_come_back_exactly(make, bins, tmp_path):
    df = table(make)
    codec = TableCodec.fit(df, bins=bins, between=False)
    codec.save(tmp_path)
    for each in (codec, TableCodec.load(tmp_path)):
        x = each.encode(df)
        assert {name: tuple(leaf.shape) for name, leaf in x.items()} == each.like(N)
        pd.testing.assert_frame_equal(each.decode(x), df)


def test_saved_codecs_encode_and_decode_the_same(tmp_path):
    df = table(holed).assign(id=[f"A-{i:04d}" for i in range(N)])
    codec = TableCodec.fit(df, bins=10)
    codec.save(tmp_path)
    other = TableCodec.load(tmp_path)
    assert other.schema == codec.schema
    for (name, one), another in zip(codec.arguments().items(), other.arguments().values(), strict=True):
        assert np.array_equal(one, another, equal_nan=True) if name == "positions" else one == another
    states = [each.encode(df, torch.Generator().manual_seed(3)) for each in (codec, other)]
    assert torch.equal(states[0]["num"], states[1]["num"]) and torch.equal(states[0]["cat"], states[1]["cat"])
    pd.testing.assert_frame_equal(codec.decode(states[0]), other.decode(states[0]))
    for name in ("codec.json", "codec.safetensors"):
        assert (tmp_path / name).is_file()


@pytest.mark.parametrize("bins", [0, 7, 100])
def test_every_number_entry_is_normal(bins):
    codec = TableCodec.fit(table(holed), bins=bins)
    num = codec.encode(table(holed))["num"]
    assert num.dtype == torch.float32 and num.shape[1] == codec.arguments()["numbers"]
    for column in num.T:
        assert kstest(column.numpy(), "norm").pvalue > 1e-4


def test_codes_stay_below_their_sizes_and_use_them_all():
    for bins in (0, 7, 100):
        codec = TableCodec.fit(table(holed), bins=bins)
        cat, sizes = codec.encode(table(holed))["cat"], codec.arguments()["sizes"]
        assert cat.dtype == torch.int64 and [len(column.unique()) for column in cat.T] == sizes


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("bins", [0, 20])
def test_normal_noise_decodes_into_the_marginals(bins, between):
    df = small(2000)
    codec = TableCodec.fit(df, bins=bins, between=between)
    x = codec.encode(df)
    if bins == 0:
        x["num"] = torch.randn(2000, 2)
    else:
        x["num"] = torch.randn_like(x["num"])
    made = codec.decode(x)
    assert (made.income == 0).mean() == pytest.approx((df.income == 0).mean(), abs=0.05)
    for name in ("income", "age"):
        gap = np.abs(np.sort(made[name]) - np.sort(df[name])).mean() / df[name].std()
        assert gap < 0.1
        assert df[name].min() <= made[name].min() and made[name].max() <= df[name].max()
    assert (made.income.round(2) == made.income).all()
    assert set(made.age) <= set(df.age)


def test_between_makes_new_values_of_continuous_columns_only():
    df = pd.DataFrame({"x": rng.normal(size=500), "k": rng.permutation(500) * 3})
    x = {"num": torch.randn(4000, 2), "cat": torch.zeros(4000, 0, dtype=torch.long)}
    seen, between = (TableCodec.fit(df, bins=0, between=flag).decode(x) for flag in (False, True))
    assert seen.x.isin(df.x).all() and between.k.isin(df.k).all()
    assert between.x.isin(df.x).mean() < 0.05


def test_time_spans_between_lie_on_the_grid_of_those_seen():
    df = pd.DataFrame({"x": pd.to_timedelta(rng.permutation(1000) * 15, unit="min")})
    made = TableCodec.fit(df, bins=0).decode({"num": torch.randn(500, 1), "cat": torch.zeros(500, 0, dtype=torch.long)})
    assert made.x.dtype == df.x.dtype and (made.x % pd.Timedelta("15min") == pd.Timedelta(0)).all()


def test_states_of_number_columns():
    df = pd.DataFrame({"x": [0.5, 1.5, 1.5, None] * 30, "y": np.arange(120.0) / 7, "z": [2.5, None] * 60})
    normal = TableCodec.fit(df, bins=0)
    found = normal.arguments()
    assert found["numbers"] == 2 and found["sizes"] == [2, 2] and found["owners"] == {"num": [0, 1], "cat": [0, 2]}
    binned = TableCodec.fit(df, bins=10)
    found = binned.arguments()
    assert found["numbers"] == 1 and found["sizes"] == [3, 10, 2] and found["owners"] == {"num": [1], "cat": [0, 1, 2]}
    assert binned.entries("y") == {"num": [0], "cat": [1]} and binned.entries("x") == {"num": [], "cat": [0]}
    assert (normal.encode(df)["cat"][:, 0].numpy() == df.x.isna()).all()


def test_whole_numbers_of_few_values_can_have_codes():
    df = small()
    codec = TableCodec.fit(df, bins=0, whole=100)
    assert codec.arguments()["owners"] == {"num": [0], "cat": [1, 2, 3]}
    pd.testing.assert_series_equal(codec.decode(codec.encode(df)).age, df.age)


@pytest.mark.parametrize("bins", [0, 100])
@pytest.mark.parametrize("names", [["income", "age"], ["job", "flag"], ["age"], ["job"]])
def test_tables_of_one_sort_or_one_column(names, bins):
    df = small()[names]
    codec = TableCodec.fit(df, bins=bins, between=False)
    assert codec.like(N) == {name: leaf.shape for name, leaf in codec.encode(df).items()}
    pd.testing.assert_frame_equal(codec.decode(codec.encode(df)), df)


def test_tables_where_nothing_varies_are_refused():
    with pytest.raises(UserError, match="nothing to learn"):
        TableCodec.fit(pd.DataFrame({"x": [1] * 60, "id": [str(i) for i in range(60)]}))


def test_wide_tables_and_many_levels():
    df = pd.DataFrame(rng.normal(size=(100, 400)))
    codec = TableCodec.fit(df, bins=0, between=False)
    pd.testing.assert_frame_equal(codec.decode(codec.encode(df)), df, check_column_type=False)
    levels = pd.DataFrame({"x": [f"level {i % 2000}" for i in range(5000)]})
    codec = TableCodec.fit(levels)
    assert codec.arguments()["sizes"] == [2000]
    pd.testing.assert_frame_equal(codec.decode(codec.encode(levels)), levels)


def test_memory_stays_far_below_rows_times_levels():
    df = pd.DataFrame({"x": [f"level {i % 4000}" for i in range(40_000)], "y": rng.normal(size=40_000)})
    tracemalloc.start()
    codec = TableCodec.fit(df)
    codec.decode(codec.encode(df))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000 * 4000 / 4


def test_batches_draw_fresh_ties_but_the_same_codes():
    df = small()
    data = TableCodec.fit(df, bins=0).table(df)
    rows = torch.tensor([5, 2, 2, 7])
    one, again, other = (data.batch(rows, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert isinstance(one, Batch) and one.cond is None and len(data) == N
    assert torch.equal(one.x["num"], again.x["num"])
    assert (one.x["num"] != other.x["num"]).all() and torch.equal(one.x["cat"], other.x["cat"])
    assert torch.equal(data.batch(rows).x["num"], data.batch(rows).x["num"])
    codec = TableCodec.fit(df, bins=0)
    pd.testing.assert_frame_equal(codec.decode(one.x), df.iloc[[5, 2, 2, 7]].reset_index(drop=True))


def test_levels_never_seen_are_refused():
    df = small()
    with pytest.raises(UserError, match="column 'job': level 'z' was never seen; the levels are 'a', 'b', 'c'"):
        TableCodec.fit(df).encode(df.assign(job="z"))
    with pytest.raises(UserError, match="column 'c': level 4"):
        TableCodec.fit(df.assign(c=3)).encode(df.assign(c=4))


def test_numbers_never_seen_count_as_the_nearest():
    df = small()
    codec = TableCodec.fit(df, between=False)
    made = codec.decode(codec.encode(df.assign(age=1000, income=-5.0)))
    assert (made.age == df.age.max()).all() and (made.income == 0).all()


def test_other_dtypes_at_use_are_refused_or_read():
    df = small()
    codec = TableCodec.fit(df)
    with pytest.raises(UserError, match="'age'"):
        codec.encode(df.assign(age=df.age.astype(str)))
    states = [codec.encode(d, torch.Generator().manual_seed(0))
              for d in (df, df.astype({"age": "float32", "job": "category", "flag": "boolean"})[["flag", "job", "age", "income"]])]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_missing_values_are_told_by_masks():
    df = small().astype({"age": float, "flag": object})
    codec = TableCodec.fit(df, bins=50)
    holes = df.copy()
    holes.loc[3, ["age", "income"]] = np.nan
    holes.loc[4, ["job", "flag"]] = None
    masks, x = codec.missing(holes), codec.encode(holes)
    assert {name: mask.shape for name, mask in masks.items()} == {name: leaf.shape for name, leaf in x.items()}
    for column, row in (("age", 3), ("income", 3), ("job", 4), ("flag", 4)):
        for name, places in codec.entries(column).items():
            for place in places:
                assert masks[name][:, place].nonzero().flatten().tolist() == [row]
    for place, size in enumerate(codec.arguments()["sizes"]):
        assert x["cat"][:, place].max() < size


@pytest.mark.parametrize(
    "ids, look",
    [
        ([f"ABC-{i:03d}" for i in range(1, N + 1)], r"ABC-\d{3}"),
        ([f"u{i}@x.org" for i in range(N)], r"u\d+@x\.org"),
        ([f"{i * 2654435761 % 2**32:08x}" for i in range(N)], r"[0-9a-f]{8}"),
        (["".join(rng.choice(list("KLMX"), 2)) + f"-{i:03d}-Q" for i in range(N)], r"[A-Z]{2}-\d{3}-Q.*"),
        ([f"{i * 6364136223846793005 % 2**64:016x}-"[:8] + f"-{i % 7:04x}-4{i:03x}-8{i:03x}-{i:012x}" for i in range(N)],
         r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
        ([chr(65 + i // 26) + chr(65 + i % 26) for i in range(N)], r"[A-Z]{2}.*"),
        (np.arange(N) + 10**6, r"\d{7}"),
    ],
    ids=["counter", "address", "hex", "code", "uuid", "two letters", "whole"],
)  # fmt: skip
def test_identifiers_are_new_unique_and_of_the_same_look(ids, look, tmp_path):
    df = small().assign(id=ids)
    codec = TableCodec.fit(df, Schema.infer(df, {"id": "identifier"}))
    codec.save(tmp_path)
    saved = (tmp_path / "codec.json").read_text()
    assert not any(f'"{i}"' in saved for i in ids)
    x = codec.encode(df)
    chunks = [codec.decode(x, first=k * N).id for k in range(20)]
    made = pd.concat(chunks)
    assert made.is_unique and not made.isin(ids).any() and made.dtype == df.id.dtype
    assert made.astype(str).iloc[:N].str.fullmatch(look).all()


def test_identifiers_can_be_left_out_or_missing():
    df = small().assign(id=[None if i % 4 == 0 else f"k{i * 7919:07d}" for i in range(N)])
    schema = Schema.infer(df)
    made = TableCodec.fit(df, schema).decode(TableCodec.fit(df, schema).encode(df))
    assert made.id.isna().mean() == pytest.approx(0.25, abs=0.08) and made.id.dropna().is_unique
    codec = TableCodec.fit(df, schema.leave_out("id"))
    assert list(codec.decode(codec.encode(df)).columns) == ["income", "age", "job", "flag"]
    codec.encode(df.drop(columns="id"))


def test_codes_of_levels():
    df = small().assign(job=small().job.where(~HOLES))
    codec = TableCodec.fit(df)
    codes = codec.encode(df)["cat"][:, codec.entries("job")["cat"][0]].numpy()
    for level in ("a", "b", "c"):
        assert ((codes == codec.code_of("job", level)) == (df.job == level)).all()
    assert ((codes == codec.code_of("job", None)) == df.job.isna()).all()
    assert codec.code_of("flag", True) == 1
    for column, value, words in (("job", "z", "'z' was never seen"), ("age", 3, "no levels"), ("flag", None, "no value was missing"),
                                 ("no", 1, "no column 'no'")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            codec.code_of(column, value)


@pytest.mark.parametrize("bins", [0, 8])
@pytest.mark.parametrize(
    "column, low, high",
    [("x", -0.5, 0.25), ("x", None, -0.1), ("age", 30, 40), ("age", 39.5, None), ("money", 1.005, 1.125), ("span", "2h", "9h"),
     ("day", "2020-01-05", datetime.date(2020, 1, 20)), ("tz", "2020-01-05", None), ("date", datetime.date(2020, 1, 5), "2020-02-01")],
)  # fmt: skip
def test_what_lies_within_a_range_decodes_into_it(column, low, high, bins):
    df = pd.DataFrame({
        "x": rng.normal(size=N), "age": small().age, "money": rng.exponential(size=N).round(2), "date": DATES,
        "span": pd.to_timedelta(rng.permutation(N) * 7, unit="min"), "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(N) // 2, unit="D"),
        "tz": pd.Timestamp("2020-01-01", tz="Asia/Tokyo") + pd.to_timedelta(rng.permutation(N), unit="D"),
    })  # fmt: skip
    codec = TableCodec.fit(df, bins=bins)
    codes, (least, most) = codec.within(column, low, high)
    assert len(codes) == len(least) == len(most) and (least <= most).all()
    x = {name: leaf.repeat(10, 1) for name, leaf in codec.encode(df).items()}
    chosen = torch.randint(len(codes), (10 * N,))
    entries = codec.entries(column)
    for place in entries["cat"]:
        x["cat"][:, place] = codes[chosen]
    for place in entries["num"]:
        low_z, high_z = least[chosen].clamp(min=-8), most[chosen].clamp(max=8)
        share = torch.rand(10 * N)
        x["num"][:, place] = torch.where(
            share < 0.1, low_z, torch.where(share > 0.9, high_z, torch.lerp(low_z, high_z, share))
        )
    made = codec.decode(x)[column]
    zone = getattr(made.dtype, "tz", None)
    as_seen = {
        "span": pd.Timedelta,
        "day": pd.Timestamp,
        "tz": lambda v: pd.Timestamp(v, tz=zone),
        "date": lambda v: pd.Timestamp(v).date(),
    }
    low, high = (v if v is None else as_seen.get(column, lambda v: v)(v) for v in (low, high))
    assert (low is None or (made >= low).all()) and (high is None or (made <= high).all())
    assert made.nunique() > 3


def test_impossible_ranges_are_refused():
    df = pd.DataFrame({"age": [10, 20, 30] * 30, "job": ["a", "b", "c"] * 30})
    codec = TableCodec.fit(df)
    for low, high in ((40, 50), (12, 18), (30, 10), (None, 5)):
        with pytest.raises(
            UserError, match="column 'age' holds no value in the range asked for; those seen reach from 10 to 30"
        ):
            codec.within("age", low, high)
    assert codec.within("age", 12, 12, nearest=True)[0].tolist() == [0]
    with pytest.raises(UserError, match="'age'"):
        codec.within("age", 99, 99, nearest=True)
    with pytest.raises(UserError, match="'job' is categorical: it holds no numbers"):
        codec.within("job", 1, 2)
    with pytest.raises(UserError, match="'abc' is not a value"):
        codec.within("age", "abc", None)


def test_bounds_are_those_seen():
    codec = TableCodec.fit(table(holed))
    for name in ("float64", "day", "tz", "date", "Int64", "span"):
        seen = holed(COLUMNS[name]).dropna()
        assert codec.bounds(name) == (seen.min(), seen.max())


def test_states_that_are_not_numbers_are_refused():
    df = small()
    codec = TableCodec.fit(df, bins=0)
    x = codec.encode(df)
    x["num"][3, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        codec.decode(x)


@pytest.mark.parametrize(
    "name, content", [("codec.json", "{"), ("codec.json", '{"codec": "pixel"}'), ("codec.safetensors", "x" * 20)]
)
def test_damaged_files_are_refused(name, content, tmp_path):
    TableCodec.fit(small()).save(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=f"{name}: is damaged"):
        TableCodec.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name}: cannot be read"):
        TableCodec.load(tmp_path)


def test_identifiers_and_constants_are_said_aloud():
    df = small().assign(key=[f"K-{i:04d}" for i in range(N)], same=1)
    notes = TableCodec.fit(df).notes()
    assert any("'key'" in note and "identifier" in note for note in notes)
    assert any("'same'" in note for note in notes)
    assert not TableCodec.fit(small()[["age", "job"]]).notes()
