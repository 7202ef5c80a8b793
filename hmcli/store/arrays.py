"""Arrays in Zarr 3, one chunk per row, whole shards at once, every byte under a checksum.

Stacked arrays (one row per item) lie at `<artifact>/data.zarr/<group>/<name>`; an item too large to be a row is a group
of its own, built in a temporary folder and renamed into place. Zarr by itself reads a missing shard or row as the fill
value and knows no bfloat16: reading here refuses both gaps with the array's name, and bfloat16 is stored as the uint16
with the same bits. zarr is imported where it is used.

An entry of the manifest's `arrays`: path, axes, shape, dtype, units, and the attributes given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.errors import DataError
from hmcli.store.files import inside
from hmcli.store.finite import require_finite
from hmcli.store.listed import FIX, Listed, listed
from hmcli.store.records import MANIFEST

if TYPE_CHECKING:
    import zarr

ROOT = "data.zarr"
BFLOAT16 = "bfloat16"
ZSTD = "zstd"
ROWS_PER_SHARD = 8  # of a stacked array
_ZSTD_LEVEL = 3
_ABSENT = np.uint64(2**64 - 1)  # offset of a chunk that is not in its shard
_INDEX_ENTRY, _INDEX_CHECKSUM = 16, 4  # bytes: offset and length of a chunk; crc32c of the index, at the shard's end
_SHARD_BYTES = 256 << 20  # of an item's array, before compression


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """float32 -> uint16 bits of bfloat16, rounded to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    nan = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(values), nan, rounded).astype(np.uint16)


def bfloat16_values(bits: np.ndarray) -> np.ndarray:
    """uint16 bits of bfloat16 -> float32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def write_stack(
    root: Path,
    group: str,
    name: str,
    rows: Iterable[np.ndarray],
    *,
    count: int,
    shape: Sequence[int],
    dtype: str,
    axes: Sequence[str],
    units: str,
    rows_per_shard: int = ROWS_PER_SHARD,
    compressor: str = ZSTD,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `count` rows of `shape` as `<root>/<group>/<name>`; returns the array's entry for the manifest.

    `root` is a `data.zarr` folder, `group` may be "" or nested ("64x112"). `axes` names every axis, the row axis first.
    `compressor`: zstd, blosc or none; other than zstd it is said in the entry.
    bfloat16 takes rows of float32 (rounded) or uint16 (bits). Raises ValueError for rows that are not as announced.
    """
    array, entry = begin_stack(
        root, group, name, count=count, shape=shape, dtype=dtype, axes=axes, units=units,
        rows_per_shard=rows_per_shard, compressor=compressor, attributes=attributes,
    )  # fmt: skip
    done = 0
    for block in _blocks(rows, rows_per_shard, tuple(shape), dtype, name):
        if done + len(block) > count:
            raise ValueError(f"{name}: more than the {count} rows announced")
        array[done : done + len(block)] = block
        done += len(block)
    if done != count:
        raise ValueError(f"{name}: {done} rows came, {count} were announced")
    return entry


def begin_stack(
    root: Path,
    group: str,
    name: str,
    *,
    count: int,
    shape: Sequence[int],
    dtype: str,
    axes: Sequence[str],
    units: str,
    rows_per_shard: int = ROWS_PER_SHARD,
    compressor: str = ZSTD,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[zarr.Array, dict[str, Any]]:
    """The empty array that `write_stack` fills, and its entry for the manifest."""
    if len(axes) != len(shape) + 1:
        raise ValueError(f"{name}: axes {list(axes)} must name the row axis and the {len(shape)} axes of a row")
    make_group(root, group)
    packed = {} if compressor == ZSTD else {"compressor": compressor}
    described = {"axes": list(axes), "dtype": dtype, "units": units, **packed, **(attributes or {})}
    array = _create(root / group / name, (count, *shape), dtype, rows_per_shard, described, compressor)
    path = f"{ROOT}/{group}/{name}" if group else f"{ROOT}/{name}"
    return array, {"path": path, "shape": [count, *shape], **described}


def make_group(root: Path, group: str = "") -> None:
    """Make `root` and the (nested) group in it, where they are not there yet."""
    import zarr

    root.parent.mkdir(parents=True, exist_ok=True)
    zarr.open_group(str(root), mode="a", zarr_format=3, use_consolidated=False)
    if group:
        zarr.open_group(str(root), mode="a", zarr_format=3, use_consolidated=False).require_group(group)


def _create(
    path: Path,
    shape: Sequence[int],
    dtype: str,
    rows_per_shard: int,
    attributes: Mapping[str, Any],
    compressor: str = ZSTD,
) -> zarr.Array:
    import zarr

    row = tuple(max(1, side) for side in shape[1:])
    return zarr.create_array(
        str(path),
        shape=tuple(shape),
        chunks=(1, *row),
        shards=(rows_per_shard, *row),
        dtype="uint16" if dtype == BFLOAT16 else dtype,
        compressors=_packing(compressor),
        attributes=dict(attributes),
        zarr_format=3,
        config={"write_empty_chunks": True},  # else a row of zeros and a lost row would look alike
    )


def _packing(compressor: str) -> list[Any]:
    """Codecs of a chunk, whose bytes are under a checksum in any case."""
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    if compressor == ZSTD:
        return [ZstdCodec(level=_ZSTD_LEVEL, checksum=True)]
    if compressor == "blosc":
        return [BloscCodec(cname="zstd", clevel=_ZSTD_LEVEL, shuffle="bitshuffle"), Crc32cCodec()]
    if compressor == "none":
        return [Crc32cCodec()]
    raise ValueError(f"compressor {compressor!r}: known are {ZSTD}, blosc and none")


def rounded(values: np.ndarray, keep_bits: int) -> tuple[np.ndarray, float]:
    """Floats with so many bits of their mantissa, to nearest even, and the root of the mean square of what is lost."""
    from numcodecs import BitRound

    kept = BitRound(keep_bits).encode(values).view(values.dtype)
    lost = kept.astype(np.float64) - values.astype(np.float64)
    return kept, float(np.sqrt(np.mean(lost**2)))


def _blocks(
    rows: Iterable[np.ndarray], length: int, shape: tuple[int, ...], dtype: str, name: str
) -> Iterable[np.ndarray]:
    """Rows gathered into whole shards (the last one may be shorter)."""
    block: list[np.ndarray] = []
    for row in rows:
        stored = stored_form(np.asarray(row), dtype, name)
        if stored.shape != shape:
            raise ValueError(f"{name}: a row has shape {stored.shape}, announced was {shape}")
        block.append(stored)
        if len(block) == length:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)


def stored_form(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """The values as they are stored: bfloat16 as bits, any other dtype as it is. No silent conversion: ValueError."""
    if dtype == BFLOAT16 and values.dtype == np.float32:
        return bfloat16_bits(values)
    wanted = np.dtype("uint16") if dtype == BFLOAT16 else np.dtype(dtype)
    if values.dtype != wanted:
        raise ValueError(f"{name}: values are {values.dtype}, announced was {dtype}")
    return values


def open_group(path: Path | str) -> zarr.Group:
    """Open a group for reading. Raises DataError when there is none."""
    import zarr

    try:
        return zarr.open_group(str(path), mode="r", zarr_format=3, use_consolidated=False)
    except Exception as error:
        raise DataError("the Zarr group cannot be opened", where={"group": path, "at": error}) from error


def read_rows(array: StackReader, indices: Sequence[int]) -> np.ndarray:
    """The rows at `indices`, stacked: single reads in a loop, which beats Zarr's own index reads on shards tenfold."""
    rows = [array[int(index)] for index in indices]
    return np.stack(rows) if rows else np.empty((0, *array.shape[1:]), array.dtype)


class StackReader:
    """Rows of one array, read one by one; opens when first used, anew in every process, and can be pickled.

    `reader[i]` is one row; bfloat16 comes as float32, or as its uint16 bits with `bits=True`. A missing shard, a
    missing row, a flipped bit or a number that is not finite is a DataError that names array and row; NaN is let
    through where `undefined` says that it means something. In a complete artifact every file that is read is held
    against the manifest (hmcli.store.listed), unless `trusting`: then the caller looks at the values itself.
    """

    def __init__(
        self, path: Path | str, *, bits: bool = False, undefined: bool = False, trusting: bool = False
    ) -> None:
        self.path = Path(path)
        self.bits = bits
        self.undefined = undefined
        self.trusting = trusting
        self._array: zarr.Array | None = None
        self._files: tuple[Listed, Path] | None = None  # of the artifact, and its folder
        self._whole_shards: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        kept = {"path": self.path, "bits": self.bits, "undefined": self.undefined, "trusting": self.trusting}
        return kept | {"_array": None, "_files": None, "_whole_shards": set()}

    @property
    def array(self) -> zarr.Array:
        if self._array is None:
            import zarr

            if not self.trusting and (root := _artifact_of(self.path)) is not None:
                self._files = listed(root), root
            try:
                with self._as_written(self.path / "zarr.json"):
                    self._array = zarr.open_array(str(self.path), mode="r", zarr_format=3)
            except DataError:
                raise
            except Exception as error:
                raise DataError(
                    "the array cannot be opened", where={"array": self.path, "at": error}, fix=_fix(self.path)
                ) from error
        return self._array

    @property
    def attributes(self) -> dict[str, Any]:
        """axes, dtype and units, and what else the writer said."""
        return dict(self.array.attrs)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the rows as they come out."""
        return np.dtype("float32") if self._widens else np.dtype(self.array.dtype)

    @property
    def _widens(self) -> bool:
        return not self.bits and self.attributes.get("dtype") == BFLOAT16

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> np.ndarray:
        if not 0 <= row < len(self):
            raise DataError("the array has no such row", where={"array": self.path, "row": row, "rows": len(self)})
        where: dict[str, object] = {"array": self.path, "row": row}
        try:
            with self._held(row):
                self._require(row, where)
                with self._as_written(self.shard_file(row)) if 0 not in self.shape else nullcontext():
                    values = np.asarray(self.array[row])
        except DataError as error:
            error.where |= where
            raise
        except Exception as error:  # zarr and its codecs raise whatever they like on bad bytes
            raise DataError("a row is damaged", where=where | {"at": error}, fix=_fix(self.path)) from error
        half = {"values"} if self.attributes.get("dtype") == BFLOAT16 else set()
        undefined = {"values"} if self.undefined else set()
        require_finite({"values": values}, where=where, undefined=undefined, bfloat16=half)
        return bfloat16_values(values) if self._widens else values

    def _held(self, row: int) -> AbstractContextManager[object]:
        """The file that holds a row is here, and stays (of artifacts at a URL)."""
        _ = self.array
        if self._files is None or 0 in self.shape:
            return nullcontext()
        files, root = self._files
        return files.held(self.shard_file(row).relative_to(root).as_posix())

    def _as_written(self, file: Path) -> AbstractContextManager[object]:
        """While a file is read: it has the bytes that the artifact's manifest lists."""
        if self._files is None:
            return nullcontext()
        files, root = self._files
        return files.unchanged(file.relative_to(root).as_posix())

    @property
    def rows_per_shard(self) -> int:
        return int((self.array.shards or self.array.chunks)[0])

    def shard_file(self, row: int) -> Path:
        """The file that holds a row."""
        return self.path.joinpath("c", str(row // self.rows_per_shard), *["0"] * (len(self.shape) - 1))

    def shard_bytes(self, row: int) -> bytes:
        """The file that holds a row of a complete artifact. Raises DataError unless it is as it was written."""
        file = self.shard_file(row)
        if self._files is None:
            raise ValueError(f"{self.path} is in no complete artifact: nothing says what its bytes should be")
        files, root = self._files
        return files.read(file.relative_to(root).as_posix()).data

    def _require(self, row: int, where: dict[str, object]) -> None:
        """Raise unless the row's bytes are there: zarr itself would answer with the fill value."""
        rows_per_shard = self.rows_per_shard
        shard = row // rows_per_shard
        if shard in self._whole_shards or 0 in self.shape:
            return
        file = self.shard_file(row)
        length = _INDEX_ENTRY * rows_per_shard
        try:
            with file.open("rb") as handle:
                handle.seek(-(length + _INDEX_CHECKSUM), 2)
                offsets = np.frombuffer(handle.read(length), "<u8").reshape(rows_per_shard, 2)[:, 0]
        except FileNotFoundError as error:
            raise DataError("a shard is missing", where=where | {"shard": file}, fix=_fix(self.path)) from error
        except (OSError, ValueError) as error:
            raise DataError("a shard is cut short", where=where | {"shard": file}, fix=_fix(self.path)) from error
        if offsets[row % rows_per_shard] == _ABSENT:
            raise DataError("a row is missing", where=where | {"shard": file}, fix=_fix(self.path))
        if not (offsets[: len(self) - shard * rows_per_shard] == _ABSENT).any():
            self._whole_shards.add(shard)


def _artifact_of(path: Path) -> Path | None:
    """The complete artifact that an array lies in; None for one that lies elsewhere, or is still being written."""
    roots = [parent.parent for parent in path.parents if parent.name == ROOT]
    return next((root for root in roots if (root / MANIFEST).is_file()), None)


def _fix(path: Path) -> str:
    return FIX.format(_artifact_of(path) or path)


def write_item_group(
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    axes: Mapping[str, Sequence[str]],
    units: Mapping[str, str],
    dtypes: Mapping[str, str] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Make `folder` (empty or absent) one item's group; one chunk per entry of each array's first axis.

    `dtypes` names the arrays that hold bfloat16 (as float32 or uint16 bits); the others keep their own dtype. Returns
    the description of every array: axes, shape, dtype, units. Raises NotFiniteError for NaN or infinity.
    """
    import zarr

    zarr.open_group(str(folder), mode="a", zarr_format=3, use_consolidated=False, attributes=dict(attributes or {}))
    described = {}
    for name, values in arrays.items():
        dtype = (dtypes or {}).get(name, str(np.asarray(values).dtype))
        stored = stored_form(np.asarray(values), dtype, name)
        half = {name} if dtype == BFLOAT16 else set()
        require_finite({name: stored}, where={"group": folder.name}, bfloat16=half)
        if stored.ndim == 0 or len(axes[name]) != stored.ndim:
            raise ValueError(f"{name}: axes {list(axes[name])} do not fit shape {stored.shape}")
        entry = {"axes": list(axes[name]), "dtype": dtype, "units": units[name]}
        rows = max(1, min(len(stored), _SHARD_BYTES // max(1, stored[:1].nbytes)))
        array = _create(folder / name, stored.shape, dtype, rows, entry)
        for start in range(0, len(stored), rows):
            array[start : start + rows] = stored[start : start + rows]
        described[name] = {**entry, "shape": list(stored.shape)}
    return described


def read_item_array(
    folder: Path | str, name: str, *, start: int = 0, stop: int | None = None, bits: bool = False
) -> np.ndarray:
    """Entries start..stop of the first axis of one array of an item; only their chunks are read."""
    reader = StackReader(inside(Path(folder), name), bits=bits)
    return read_rows(reader, range(start, len(reader) if stop is None else stop))
