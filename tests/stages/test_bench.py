"""hm bench: a benchmark is frozen, drawn again at any size, and told apart from anything else."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_bench import BASELINES, PANEL, RECIPES, TinyBench

from hmcli.bench.freeze import draft
from hmcli.cli.bench import DEFAULT
from hmcli.errors import DataError, HMError, UsageError
from hmcli.recipe.reading import load_recipe, recipe_names
from hmcli.recipe.sections import PosesConfig
from hmcli.registry import find
from hmcli.runtime import Silent
from hmcli.stages.bench import card, definition, verify
from hmcli.stages.bench.definition import find_benchmark, write_benchmark
from hmcli.stages.bench.prints import poses_hash, thumbnails, values_on_disk
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.rendering import render
from hmcli.store.video import read_video, write_video
from hmcli.world.staging.clip import describe_clip


def troubles(tiny_bench: TinyBench, *folders: Path) -> dict[str, str]:
    """Clip -> what `hm bench verify` says is wrong with it."""
    found = verify.run(folders, benchmark=str(tiny_bench.file), reporter=Silent())
    return {item.item: item.reason for item in found.quarantined}


def copied(tiny_bench: TinyBench, tmp_path: Path) -> Path:
    """The easy clips, to be damaged: a plain folder in the released layout, which no manifest speaks for."""
    shutil.copytree(
        tiny_bench.data / "easy", tmp_path / "easy", ignore=shutil.ignore_patterns("manifest.json", "clips.jsonl")
    )
    return tmp_path / "easy"


def rewrite(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_benchmark_is_read_back_as_it_was_frozen(tiny_bench):
    assert find_benchmark(tiny_bench.file) == tiny_bench.frozen
    assert [clip.id for clip in tiny_bench.frozen.splits["mixed"].clips] == ["s32-00000", "s32-00001"]
    assert tiny_bench.frozen.split_of("s31-00001") == "easy"
    assert tiny_bench.frozen.split_of("s33-00000") is None


def test_the_fingerprint_is_of_what_is_fixed_and_not_of_who_froze_it(tiny_bench):
    assert dataclasses.replace(tiny_bench.frozen, frozen_by={"hmcli": "9"}).fingerprint == tiny_bench.frozen.fingerprint
    assert dataclasses.replace(tiny_bench.frozen, training="anything").fingerprint != tiny_bench.frozen.fingerprint


def test_clips_agree_with_what_was_frozen_from_them(tiny_bench):
    assert troubles(tiny_bench, tiny_bench.data / "easy", tiny_bench.data / "mixed") == {}
    found = verify.run([tiny_bench.data / "easy"], benchmark=str(tiny_bench.file), reporter=Silent())
    assert found.text == "tiny easy at 32x48: 2 of 2 clips agree"


def test_the_same_clips_are_drawn_again_without_looking_for_them(tiny_bench, tmp_path):
    again = render.run(tiny_bench.again("mixed"), out=tmp_path / "again", reporter=Silent()).path
    assert troubles(tiny_bench, again) == {}
    for clip in tiny_bench.frozen.splits["mixed"].clips:
        for file in (tiny_bench.data / "mixed" / clip.id).iterdir():
            if file.suffix != ".npz":
                assert (again / clip.id / file.name).read_bytes() == file.read_bytes()


def test_another_size_shows_the_same_world(tiny_bench, tmp_path):
    larger = tiny_bench.again("easy", size=(64, 96))
    data = render.run(larger, out=tmp_path / "larger", reporter=Silent()).path
    assert troubles(tiny_bench, data) == {}
    sources = open_dataset(data, PosesConfig()).clips
    assert (sources[0].context_info.height, sources[0].context_info.width) == (64, 96)
    for clip, source in zip(tiny_bench.frozen.splits["easy"].clips, sources, strict=True):
        assert poses_hash(values_on_disk(source), 1e-5) == clip.print.poses
        assert source.caption == clip.print.caption


def test_fewer_clips_are_the_first_ones_and_the_others_are_missing(tiny_bench, tmp_path):
    data = render.run(tiny_bench.again("easy", clips=1), out=tmp_path / "one", reporter=Silent()).path
    assert troubles(tiny_bench, data) == {"s31-00001": "missing"}


def test_a_recipe_of_a_benchmark_changes_nothing_but_size_and_number(tiny_bench):
    other = dataclasses.replace(tiny_bench.again("easy", fps=6), seed=5)
    with pytest.raises(UsageError) as error:
        render.run(other, out=Path("nowhere"), reporter=Silent())
    assert error.value.where["seed"] == "5, frozen is 31"
    assert error.value.where["world.fps"] == "6, frozen is 5"
    with pytest.raises(UsageError, match="has 2 clips"):
        render.run(tiny_bench.again("easy", clips=3), out=Path("nowhere"), reporter=Silent())
    with pytest.raises(UsageError, match="no split 'crowd'"):
        render.run(tiny_bench.again("easy", split="crowd"), out=Path("nowhere"), reporter=Silent())
    with pytest.raises(UsageError, match="64x80 would show more"):
        render.run(tiny_bench.again("easy", size=(64, 80)), out=Path("nowhere"), reporter=Silent())


def test_a_draw_that_this_program_refuses_is_an_error_and_no_other_clip(tiny_bench, tmp_path):
    split = tiny_bench.frozen.splits["easy"]
    accepted = {split.clips[0].draw}
    while (draw := max(accepted) + 1) == (found := describe_clip(RECIPES["easy"].world, 31, 0, first_draw=draw).draw):
        accepted.add(found)
    clips = (dataclasses.replace(split.clips[0], draw=draw), *split.clips[1:])
    other = dataclasses.replace(tiny_bench.frozen, splits={"easy": dataclasses.replace(split, clips=clips)})
    write_benchmark(tmp_path / "other.json", other)
    recipe = tiny_bench.again("easy")
    recipe = dataclasses.replace(
        recipe, world=dataclasses.replace(recipe.world, benchmark=str(tmp_path / "other.json"))
    )
    with pytest.raises(HMError, match=f"draw {draw} is refused"):
        render.run(recipe, out=tmp_path / "clips", reporter=Silent())


# --- what is noticed -------------------------------------------------------------------------------------------------


def test_a_moved_camera_is_named_with_frame_and_distance(tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)

    def move(cameras):
        cameras["tgt_cam"]["4"][0][3] += 25  # centimetres

    rewrite(data / "s31-00001" / "camera.json", move)
    assert troubles(tiny_bench, data) == {"s31-00001": "the camera is off in 1 frames, by 0.25 in frame 17"}


def test_the_last_bits_of_a_pose_do_not_count(tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)

    def nudge(cameras):
        for matrix in cameras["cond_cam"].values():
            matrix[1][3] *= 1 + 1e-13

    rewrite(data / "s31-00000" / "camera.json", nudge)
    assert troubles(tiny_bench, data) == {}


def test_a_moved_subject_is_named(tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)
    file = data / "s31-00000" / "subjects.json"
    (name,) = json.loads(file.read_text())

    def move(subjects):
        subjects[name]["position"][3][1] += 0.5

    rewrite(file, move)
    assert troubles(tiny_bench, data) == {"s31-00000": f"{name} is off in 1 frames, by 0.5 in frame 3"}


def test_an_event_may_move_by_a_frame_and_not_further(tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)

    def later(clip: str, frames: int) -> None:
        def in_events(events):
            next(one for one in events if one["kind"] == "exit")["frame"] += frames

        def in_subjects(subjects):
            next(iter(subjects.values()))["hidden"][0]["first"] += frames

        rewrite(data / clip / "events.json", in_events)
        rewrite(data / clip / "subjects.json", in_subjects)

    later("s31-00000", 1)
    later("s31-00001", 2)
    found = troubles(tiny_bench, data)
    assert list(found) == ["s31-00001"]
    gone = tiny_bench.frozen.splits["easy"].clips[1].print.absences[0]
    assert found["s31-00001"] == f"{gone.subject} is visible in frame {gone.first + 1} (1 frames are wrong)"


def test_an_event_of_another_reason_or_one_more_is_named(tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)

    def another_reason(events):
        events[0]["reason"] = {"left the frame": "occluded"}.get(events[0]["reason"], "left the frame")

    def one_more(events):
        events.append(events[0] | {"frame": events[0]["frame"] + 3})

    rewrite(data / "s31-00000" / "events.json", another_reason)
    rewrite(data / "s31-00001" / "events.json", one_more)
    found = troubles(tiny_bench, data)
    assert "is missing; the event" in found["s31-00000"]
    assert found["s31-00001"].startswith("the event")
    assert found["s31-00001"].endswith("is new")


def test_another_lens_is_named_and_a_missing_one(tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)

    def longer(lens):
        lens["fx"] *= 1.01

    rewrite(data / "s31-00000" / "intrinsics.json", longer)
    (data / "s31-00001" / "intrinsics.json").unlink()
    found = troubles(tiny_bench, data)
    assert found["s31-00000"].startswith("fx of the intrinsics is")
    assert found["s31-00001"] == "it has no intrinsics"


@pytest.mark.parametrize("damage", ["nobody", "moved", "gone"])
def test_other_instance_masks_are_named(damage: str, tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)
    file = data / "s31-00000" / "cond_instances.mp4"
    masks = read_video(file)
    if damage == "gone":
        file.unlink()
    else:
        changed = np.roll(masks, 12, axis=2) if damage == "moved" else np.zeros_like(masks)
        write_video(file, changed, fps=5, quality="lossless")
    said = troubles(tiny_bench, data)["s31-00000"]
    assert {
        "gone": "no instance masks", "moved": "frame is off by", "nobody": "frames show more or less of a subject",
    }[damage] in said  # fmt: skip


def test_a_benchmark_that_froze_no_masks_lens_or_events_compares_none_and_keeps_its_fingerprint(tiny_bench, tmp_path):
    split = tiny_bench.frozen.splits["easy"]
    bare = [dataclasses.replace(clip.print, lens=(), happenings=(), masks="", mask_shares="") for clip in split.clips]
    clips = tuple(dataclasses.replace(clip, print=of) for clip, of in zip(split.clips, bare, strict=True))
    older = dataclasses.replace(tiny_bench.frozen, splits={"easy": dataclasses.replace(split, clips=clips)})
    write_benchmark(tmp_path / "older.json", older)
    text = (tmp_path / "older.json").read_text()
    assert not any(f'"{name}"' in text for name in ("lens", "happenings", "masks", "mask_shares"))
    assert find_benchmark(tmp_path / "older.json").fingerprint == older.fingerprint
    data = copied(tiny_bench, tmp_path)
    (data / "s31-00001" / "intrinsics.json").unlink()
    (data / "s31-00001" / "cond_instances.mp4").unlink()
    assert not verify.run([data], benchmark=str(tmp_path / "older.json"), reporter=Silent()).quarantined


def test_pixels_may_differ_a_little_and_not_much(tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)
    noise = np.random.default_rng(0)
    for clip, amount in (("s31-00000", 3), ("s31-00001", 0)):
        video = read_video(data / clip / "tgt.mp4").astype(np.int64)
        video += noise.integers(-amount, amount + 1, video.shape)
        if clip == "s31-00001":
            video[-1, :8, :12] += np.where(video[-1, :8, :12] > 128, -90, 90)  # something in a corner of the last frame
        write_video(data / clip / "tgt.mp4", np.clip(video, 0, 255).astype(np.uint8), fps=5, quality="lossless")
    found = troubles(tiny_bench, data)
    assert list(found) == ["s31-00001"]
    assert found["s31-00001"].startswith("the last of the target frame is off by")


def test_one_frame_of_another_colour_is_named(tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)
    video = read_video(data / "s31-00000" / "tgt.mp4")
    video[3] = 255 - video[3]
    write_video(data / "s31-00000" / "tgt.mp4", video, fps=5, quality="lossless")
    assert "1 frames have another colour, frame 16 by" in troubles(tiny_bench, data)["s31-00000"]


def test_a_caption_that_tells_something_else_is_a_difference(tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)
    lines = (data / "caption.txt").read_text().splitlines()
    (data / "caption.txt").write_text("\n".join(["s31-00000\tA frog.", *lines[1:]]) + "\n")
    assert troubles(tiny_bench, data) == {"s31-00000": "the caption is 'A frog.'"}


def test_clips_of_another_seed_are_no_clips_of_the_benchmark(tiny_bench, tmp_path):
    other = render.run(
        dataclasses.replace(RECIPES["easy"], seed=77), out=tmp_path / "other", reporter=Silent()
    ).path  # fmt: skip
    with pytest.raises(DataError, match="no clip of this folder is of tiny"):
        troubles(tiny_bench, other)
    data = copied(tiny_bench, tmp_path)
    shutil.copytree(other / "s77-00000", data / "s77-00000")
    with (data / "caption.txt").open("a") as file:
        file.write("s77-00000\tAnother clip.\n")
    assert troubles(tiny_bench, data) == {"s77-00000": "no clip of tiny"}


def test_a_clip_that_cannot_be_read_differs_and_says_why(tiny_bench, tmp_path):
    data = copied(tiny_bench, tmp_path)
    (data / "s31-00000" / "subjects.json").write_text("{")
    assert "not valid JSON" in troubles(tiny_bench, data)["s31-00000"]


def test_two_folders_of_one_split_are_refused(tiny_bench, tmp_path):
    with pytest.raises(UsageError, match="split easy"):
        troubles(tiny_bench, tiny_bench.data / "easy", copied(tiny_bench, tmp_path))


def test_a_file_that_is_no_benchmark_says_where_not(tiny_bench, tmp_path):
    content = json.loads(tiny_bench.file.read_text())
    content["splits"]["easy"]["clips"][0]["draw"] = "first"
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        find_benchmark(tmp_path / "bad.json")
    assert "splits.easy.clips.0.draw" in error.value.where
    with pytest.raises(UsageError, match="no benchmark 'hm-bench-0'"):
        find_benchmark("hm-bench-0")


# --- parts -----------------------------------------------------------------------------------------------------------


def test_thumbnails_are_means_of_parts_at_any_size():
    small = np.random.default_rng(0).integers(0, 256, (5, 8, 16, 3)).astype(np.uint8)
    large = small.repeat(3, axis=1).repeat(5, axis=2)
    found = thumbnails(small[:2], small[2:])
    np.testing.assert_array_equal(found, thumbnails(large[:2], large[2:]))
    np.testing.assert_allclose(found[2, 3, 1], small[3, 3, 2:4].mean(0), atol=0.5)
    assert thumbnails(small[:2, :, :13], small[2:, :, :13]).shape == (4, 8, 8, 3)


def test_rows_without_a_model_are_scored_on_the_frozen_clips(tiny_bench):
    for name, split in tiny_bench.frozen.splits.items():
        assert list(split.baselines) == list(BASELINES)
        for row, scores in split.baselines.items():
            true = [read_video(tiny_bench.data / name / clip.id / "tgt.mp4") for clip in split.clips]
            made = [read_video(tiny_bench.data / f"{name}.rows" / row / "videos" / f"{c.id}.mp4") for c in split.clips]
            values = [find("metric", "psnr")(prediction=p, reference=t) for p, t in zip(made, true, strict=True)]
            assert scores["psnr"] == pytest.approx(float(np.mean(values)), abs=1e-3)
            assert 0 < scores["ssim"] < 1


def test_the_card_says_what_is_fixed(tiny_bench):
    text = card.card(str(tiny_bench.file)).text
    for said in ("13 + 17", "| 31 |", "street", "nearest-view", tiny_bench.frozen.fingerprint, "psnr, ssim"):
        assert said in text


# --- the packaged benchmark ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["easy", "hard", "crowd"])
def test_a_retired_benchmark_is_not_drawn_and_says_who_draws_it(split):
    with pytest.raises(UsageError, match="hm-bench-1 is retired") as refused:
        render.chosen_clips(load_recipe(f"bench/hm-bench-1-{split}"))
    assert "hm 0.1.0, commit ddf93592cbd1" in refused.value.fix


def test_clips_are_not_verified_against_a_retired_benchmark(tiny_bench):
    with pytest.raises(UsageError, match="hm-bench-1 is retired"):
        verify.run([tiny_bench.data / "easy"], benchmark="hm-bench-1", reporter=Silent())


def test_the_packaged_benchmark_holds_out_families_and_varies():
    frozen = find_benchmark(DEFAULT)
    scenes, subjects, moves = (set(frozen.held_out[key]) for key in ("scenes", "subjects", "camera moves"))
    clips = [clip for split in frozen.splits.values() for clip in split.clips]
    assert {clip.scene for clip in clips} == scenes
    assert {name for clip in clips for name in clip.subjects} == subjects
    assert {clip.trajectory for clip in clips} == {f"{move}_{side}" for move in moves for side in ("left", "right")}
    for name, split in frozen.splits.items():
        for clip in split.clips:
            gone = clip.print.absences
            assert any(one.certified for one in gone) == (name != "absent")
            assert name != "absent" or any(one.last == 153 for one in gone), "somebody is away to the end"


def test_the_packaged_benchmark_is_what_its_recipes_ask_for():
    recipes = {name.rpartition("-")[2]: load_recipe(name) for name in recipe_names()
               if DEFAULT in name and not name.endswith("panel")}  # fmt: skip
    found = find_benchmark(DEFAULT)
    asked = draft(DEFAULT, recipes, load_recipe(f"bench/{DEFAULT}-panel").eval)
    fixed = {"splits": found.splits, "judges": found.judges, "frozen_by": found.frozen_by}
    assert dataclasses.replace(asked, **fixed) == found
    assert {name: split.count for name, split in found.splits.items()} == dict.fromkeys(recipes, 64)
    for name, recipe in recipes.items():
        chosen = render.chosen_clips(recipe)  # which compares the recipe with what is frozen
        assert [one.draw for one in chosen] == [clip.draw for clip in found.splits[name].clips]
        assert recipe.world.hold_out == "test"
    assert len({recipe.seed for recipe in recipes.values()}) == 4


@pytest.mark.parametrize("split", ["easy", "hard", "crowd", "absent"])
def test_clips_of_the_packaged_benchmark_are_drawn_again(split, tmp_path):
    recipe = load_recipe(f"bench/{DEFAULT}-{split}")
    one = dataclasses.replace(recipe, world=dataclasses.replace(recipe.world, clips=1))
    data = render.run(one, out=tmp_path / "clips", reporter=Silent()).path
    found = verify.run([data], benchmark=DEFAULT, reporter=Silent())
    assert {item.reason for item in found.quarantined} == {"missing"}
    assert len(found.quarantined) == 63


# --- drafts ----------------------------------------------------------------------------------------------------------


def test_a_draft_says_that_it_is_one_and_is_compared_with_nothing(tiny_bench, tmp_path, monkeypatch):
    file = tmp_path / "tiny.json"
    write_benchmark(file, draft("tiny", RECIPES, PANEL))
    with monkeypatch.context() as packaged:
        packaged.setattr(definition, "PACKAGED", tmp_path)
        assert card.names().text.endswith("; a draft, not frozen")
    assert "A draft: it is not frozen" in (text := card.card(str(file)).text)
    assert "Scores without a model" not in text
    assert card.card(str(file)).data["fingerprint"] is None
    with pytest.raises(UsageError, match="tiny is a draft"):
        verify.run([tiny_bench.data / "easy"], benchmark=str(file), reporter=Silent())


def test_clips_of_a_draft_are_those_of_its_seed_and_of_its_recipe_alone(tiny_bench, tmp_path):
    file = tmp_path / "draft.json"
    write_benchmark(file, draft("tiny", RECIPES, PANEL))
    recipe = dataclasses.replace(
        RECIPES["easy"], world=dataclasses.replace(RECIPES["easy"].world, clips=1, benchmark=str(file))
    )
    data = render.run(recipe, out=tmp_path / "clips", reporter=Silent()).path
    true = tiny_bench.data / "easy" / "s31-00000"
    assert (data / "s31-00000" / "tgt.mp4").read_bytes() == (true / "tgt.mp4").read_bytes()
    other = dataclasses.replace(recipe, world=dataclasses.replace(recipe.world, fps=6))
    with pytest.raises(UsageError, match="would not be the clips of tiny"):
        render.chosen_clips(other)
