"""Zarr arrays: what was written is read, and what is not there is never read as zeros."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import pytest
import zarr

from hmcli.errors import DataError
from hmcli.store import arrays as a

SHAPE = (2, 3, 4)
AXES = ["clip", "channel", "y", "x"]


def some_rows(count: int = 7, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)
    rows[1] = 0  # an empty row must not look like a lost one
    return rows


def stack(root, rows, dtype="float32", **options):
    fixed = {"count": len(rows), "shape": SHAPE, "axes": AXES, "units": "VAE latent", "rows_per_shard": 3}
    return a.write_stack(root / "data.zarr", "24x40", "latents", iter(rows), dtype=dtype, **{**fixed, **options})


@pytest.fixture
def latents(tmp_path):
    stack(tmp_path, some_rows())
    return tmp_path / "data.zarr" / "24x40" / "latents"


def test_rows_read_back_exactly(tmp_path):
    rows = some_rows()
    entry = stack(tmp_path, rows, attributes={"time_step_s": 0.25})
    assert entry == {
        "path": "data.zarr/24x40/latents", "shape": [7, *SHAPE], "axes": AXES, "dtype": "float32",
        "units": "VAE latent", "time_step_s": 0.25,
    }  # fmt: skip
    reader = a.StackReader(tmp_path / entry["path"])
    assert len(reader) == 7
    assert np.array_equal(a.read_rows(reader, [6, 0, 1]), rows[[6, 0, 1]])
    assert a.read_rows(reader, []).shape == (0, *SHAPE)
    assert reader.attributes == {"axes": AXES, "dtype": "float32", "units": "VAE latent", "time_step_s": 0.25}


def test_plain_zarr_reads_it_without_a_warning(latents):
    group = a.open_group(latents.parents[1])
    assert [name for name, _ in group.groups()] == ["24x40"]
    assert np.array_equal(group["24x40/latents"][:], some_rows())
    assert group.metadata.consolidated_metadata is None
    with pytest.raises(Exception, match="read-only"):
        group["24x40/latents"][0] = 1


def test_one_chunk_per_row_whole_shards_and_checksummed_zstd(latents):
    array = zarr.open_array(str(latents), mode="r")
    assert array.chunks == (1, *SHAPE)
    assert array.shards == (3, *SHAPE)
    assert [codec.to_dict()["configuration"] for codec in array.compressors] == [{"level": 3, "checksum": True}]
    assert sorted(str(f.relative_to(latents)) for f in (latents / "c").rglob("*") if f.is_file()) == [
        "c/0/0/0/0", "c/1/0/0/0", "c/2/0/0/0"
    ]  # fmt: skip


@pytest.mark.parametrize("compressor", ["blosc", "none"])
def test_however_packed_rows_are_the_same_and_under_a_checksum(tmp_path, compressor):
    rows = some_rows()
    form = {"count": 7, "shape": SHAPE, "dtype": "float32", "axes": AXES, "units": "one", "rows_per_shard": 3}
    entry = a.write_stack(tmp_path / "data.zarr", "", "x", rows, compressor=compressor, **form)
    assert entry["compressor"] == compressor
    reader = a.StackReader(tmp_path / "data.zarr" / "x")
    assert np.array_equal(a.read_rows(reader, range(7)), rows)
    shard = reader.shard_file(1)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(DataError, match="a row is damaged"):
        _ = a.StackReader(reader.path)[0]
    with pytest.raises(ValueError, match="known are zstd, blosc and none"):
        a.write_stack(tmp_path / "other", "", "x", rows, compressor="lz4", **form)


@pytest.mark.parametrize("bits", [1, 4, 10])
def test_rounded_numbers_keep_so_many_bits_to_nearest(bits):
    values = np.random.default_rng(0).standard_normal((5, 6, 7)).astype(np.float16)
    kept, error = a.rounded(values, bits)
    assert (kept.dtype, kept.shape) == (np.float16, values.shape)
    assert not (kept.view(np.uint16) & np.uint16((1 << (10 - bits)) - 1)).any()
    unit = 2.0 ** (np.floor(np.log2(np.abs(values.astype(np.float64)))) - bits)
    assert (np.abs(kept.astype(np.float64) - values) <= unit / 2).all()
    assert error == pytest.approx(float(np.std(kept.astype(np.float64) - values)), rel=0.05)
    assert (error == 0) == (bits == 10)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for place in ("one", "two"):
        stack(tmp_path / place, some_rows())
    one, two = (sorted(f for f in (tmp_path / p).rglob("*") if f.is_file()) for p in ("one", "two"))
    assert [f.read_bytes() for f in one] == [f.read_bytes() for f in two]


def test_bfloat16_rounds_to_nearest_even_and_keeps_the_special_values():
    torch = pytest.importorskip("torch")
    special = [0.0, -0.0, np.inf, -np.inf, 1.0, 1.00390625, 1.01171875, 3.3e38, 3.4e38, 1e-40, -1e-45]
    values = np.concatenate([np.float32(special), np.random.default_rng(0).normal(size=500).astype(np.float32)])
    wanted = torch.from_numpy(values).to(torch.bfloat16)
    bits = a.bfloat16_bits(values)
    assert np.array_equal(bits, wanted.view(torch.uint16).numpy())
    assert np.array_equal(a.bfloat16_values(bits), wanted.float().numpy())
    assert np.isnan(a.bfloat16_values(a.bfloat16_bits(np.float32([np.nan, -np.nan])))).all()


def test_bfloat16_is_stored_as_bits_and_read_as_float_or_bits(tmp_path):
    rows = some_rows()
    entry = stack(tmp_path, rows, dtype="bfloat16")
    assert entry["dtype"] == "bfloat16"
    place = tmp_path / entry["path"]
    assert zarr.open_array(str(place), mode="r").dtype == np.uint16
    assert a.StackReader(place).dtype == np.float32
    assert np.array_equal(a.StackReader(place)[4], a.bfloat16_values(a.bfloat16_bits(rows[4])))
    bits = a.StackReader(place, bits=True)[4]
    assert np.array_equal(bits, a.bfloat16_bits(rows[4]))
    stack(tmp_path / "again", a.bfloat16_bits(rows), dtype="bfloat16")
    assert np.array_equal(a.StackReader(tmp_path / "again" / entry["path"], bits=True)[4], bits)


def test_single_values_and_empty_arrays_are_rows_too(tmp_path):
    root = tmp_path / "data.zarr"
    flags = np.array([True, False, False])
    a.write_stack(root, "", "valid", flags, count=3, shape=(), dtype="bool", axes=["clip"], units="flag")
    assert [bool(a.StackReader(root / "valid")[row]) for row in range(3)] == [True, False, False]
    a.write_stack(root, "", "boxes", [], count=0, shape=(4,), dtype="int32", axes=["clip", "edge"], units="pixel")
    assert len(a.StackReader(root / "boxes")) == 0
    none = np.zeros((2, 0, 4), np.int32)
    axes = ["clip", "subject", "edge"]
    a.write_stack(root, "", "none", none, count=2, shape=(0, 4), dtype="int32", axes=axes, units="pixel")
    assert a.StackReader(root / "none")[1].shape == (0, 4)


def test_a_flipped_bit_is_an_error_that_names_array_and_row(latents, flip):
    flip(latents / "c" / "1" / "0" / "0" / "0", 40)  # in the first row of the second shard
    assert np.array_equal(a.StackReader(latents)[4], some_rows()[4])
    with pytest.raises(DataError, match="damaged") as caught:
        a.StackReader(latents)[3]
    assert (caught.value.where["array"], caught.value.where["row"]) == (latents, 3)


@pytest.mark.parametrize("position", range(0, 400, 37))
def test_wherever_a_bit_flips_a_row_is_right_or_refused(latents, flip, position):
    shard = latents / "c" / "1" / "0" / "0" / "0"
    flip(shard, position % shard.stat().st_size)
    reader, wrong = a.StackReader(latents), []
    for row in range(7):
        try:
            assert np.array_equal(reader[row], some_rows()[row])
        except DataError:
            wrong.append(row)
    assert set(wrong) <= {3, 4, 5}


def test_a_missing_shard_is_an_error(latents):
    (latents / "c" / "2" / "0" / "0" / "0").unlink()
    reader = a.StackReader(latents)
    assert np.array_equal(reader[5], some_rows()[5])
    with pytest.raises(DataError, match="a shard is missing") as caught:
        reader[6]
    assert caught.value.where["row"] == 6


def test_a_shard_cut_short_is_an_error(latents):
    shard = latents / "c" / "0" / "0" / "0" / "0"
    for length in (0, 20, 120):
        shard.write_bytes(shard.read_bytes()[:length])
        with pytest.raises(DataError):
            a.StackReader(latents)[0]


def test_a_row_missing_from_its_shard_is_an_error(tmp_path):
    place = tmp_path / "data.zarr" / "24x40" / "latents"
    stack(tmp_path, some_rows())
    array = zarr.open_array(str(place), mode="r+", config={"write_empty_chunks": False})
    array[3:6] = np.concatenate([some_rows()[3:4], np.zeros((2, *SHAPE), np.float32)])  # a writer that skips zeros
    reader = a.StackReader(place)
    assert np.array_equal(reader[3], some_rows()[3])
    with pytest.raises(DataError, match="a row is missing") as caught:
        reader[4]
    assert caught.value.where["row"] == 4


def test_rows_that_do_not_exist_are_refused(latents):
    for row in (-1, 7):
        with pytest.raises(DataError, match="no such row"):
            a.StackReader(latents)[row]
    shutil.rmtree(latents)
    with pytest.raises(DataError, match="cannot be opened"):
        a.StackReader(latents)[0]
    with pytest.raises(DataError, match="cannot be opened"):
        a.open_group(latents)


@pytest.mark.parametrize(
    ("rows", "options", "match"),
    [
        (some_rows(6), {"count": 7}, "6 rows came, 7 were announced"),
        (some_rows(8), {"count": 7}, "more than the 7 rows"),
        (some_rows()[:, :1], {}, "a row has shape"),
        (some_rows().astype(np.float64), {}, "values are float64"),
        (some_rows(), {"dtype": "float16"}, "values are float32"),
        (some_rows(), {"axes": AXES[1:]}, "must name the row axis"),
    ],
)
def test_rows_that_are_not_as_announced_are_refused(tmp_path, rows, options, match):
    with pytest.raises(ValueError, match=match):
        stack(tmp_path, rows, **options)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_reader_can_be_pickled_and_used_after_a_fork(latents):
    reader = a.StackReader(latents)
    assert np.array_equal(reader[2], some_rows()[2])
    assert np.array_equal(pickle.loads(pickle.dumps(reader))[2], some_rows()[2])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if np.array_equal(reader[6], some_rows()[6]) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_an_items_group_is_read_slice_by_slice(tmp_path):
    keys = some_rows(5).reshape(5, 6, 4)
    arrays = {"keys": keys, "span": np.arange(10).reshape(5, 2)}
    axes = {"keys": ["slot", "token", "channel"], "span": ["slot", "end"]}
    units = {"keys": "before RoPE", "span": "latent frame"}
    described = a.write_item_group(
        tmp_path / "x", arrays, axes=axes, units=units, dtypes={"keys": "bfloat16"}, attributes={"model": "sha256:1"}
    )
    assert described["keys"] == {"axes": axes["keys"], "dtype": "bfloat16", "units": "before RoPE", "shape": [5, 6, 4]}
    os.replace(tmp_path / "x", tmp_path / "moved")
    assert np.array_equal(a.read_item_array(tmp_path / "moved", "span", start=1, stop=4), arrays["span"][1:4])
    whole = a.read_item_array(tmp_path / "moved", "keys")
    assert np.array_equal(whole, a.bfloat16_values(a.bfloat16_bits(keys)))
    assert np.array_equal(a.read_item_array(tmp_path / "moved", "keys", bits=True), a.bfloat16_bits(keys))
    assert dict(a.open_group(tmp_path / "moved").attrs) == {"model": "sha256:1"}
    with pytest.raises(ValueError, match="do not fit shape"):
        a.write_item_group(tmp_path / "y", arrays, axes={**axes, "span": ["slot"]}, units=units)
