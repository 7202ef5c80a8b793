"""What artifacts say of themselves, as typed values, and the content keys made from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from hmcli.errors import DataError
from hmcli.stages.latents.layout import INTRINSICS, LATENTS, POSES, VISIBILITY, Shape, group_name
from hmcli.stages.shared.typed import LeftOut, from_json, key_of, to_json


@dataclass(frozen=True, kw_only=True)
class Said:
    number: int
    names: tuple[str, ...] = ()
    note: LeftOut[str] = None


@dataclass(frozen=True, kw_only=True)
class SaidToo:
    number: int
    names: tuple[str, ...] = ()


def test_a_field_that_may_be_left_out_is_said_where_it_has_a_value():
    assert to_json(Said(number=1)) == {"number": 1, "names": []}
    assert to_json(Said(number=1, note="")) == {"number": 1, "names": [], "note": ""}
    for said in (Said(number=1), Said(number=2, names=("a",), note="b")):
        assert from_json(Said, to_json(said), "a note") == said


def test_any_other_value_or_kind_of_values_has_another_key():
    one = Said(number=1, names=("a",))
    assert key_of(one) == key_of(Said(number=1, names=("a",)))
    others = [replace(one, number=2), replace(one, names=("a", "a")), replace(one, note="")]
    keys = {key_of(other) for other in [one, *others, SaidToo(number=1, names=("a",))]}
    assert len(keys) == 5


def test_what_is_damaged_is_refused_by_its_place_a_few_places_at_once():
    with pytest.raises(DataError, match="a note is damaged") as error:
        from_json(Said, {"number": "1", "names": ["a", 2, "b", 3, 4, 5, 6]}, "a note", file="x")
    assert list(error.value.where) == ["file", "number", "names.1", "names.3", "names.4", "names.5"]
    with pytest.raises(DataError) as error:
        from_json(Said, [], "a note")
    assert list(error.value.where) == ["as a whole"]


def test_clips_of_another_shape_or_with_other_arrays_are_another_group_of_latents():
    shape = Shape(context=3, target=2, context_video_frames=9, target_video_frames=8, has_target=True)
    arrays = {LATENTS: ("float16", [16, 5, 6, 8]), POSES: ("float32", [17, 4, 4]), INTRINSICS: ("float32", [4])}
    cameras_alone = replace(shape, has_target=False)
    seen = arrays | {VISIBILITY: ("float32", [17, 2])}
    assert group_name(shape, arrays) == "3+2x6x8"
    assert group_name(cameras_alone, arrays) == "3+2-camerasx6x8"
    assert group_name(shape, seen) == "3+2x6x8-2subjects"
    assert group_name(shape, {LATENTS: arrays[LATENTS]}) == f"3+2x6x8-no-{POSES}-no-{INTRINSICS}"
