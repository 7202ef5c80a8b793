"""hm report: numbers are those of the evaluations, intervals can be computed again, and what is missing is said."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sealing import edit
from verdict_words import NAMES, make_known, word
from warm import WarmCommand, ok

from hmcli import registry
from hmcli.contracts import StageResult
from hmcli.errors import DataError, UsageError
from hmcli.metrics.reentry import clip_tracks
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import PosesConfig
from hmcli.runtime import Silent
from hmcli.stages.bench import rows as bench_rows
from hmcli.stages.data import pieces
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.parts.merge import run as merge
from hmcli.stages.reporting import report
from hmcli.stages.reporting.cards import card_differences
from hmcli.stages.reporting.comparing import compare
from hmcli.stages.reporting.evaluations import open_evaluations
from hmcli.stages.reporting.plots import plots_by_k
from hmcli.stages.reporting.rows import open_rows
from hmcli.stages.reporting.slices import slices_of
from hmcli.stages.reporting.subjects import read_tracks
from hmcli.stages.sampling.generations import open_generation
from hmcli.stages.scoring import evaluate
from hmcli.stages.shared.shards import Shard
from hmcli.store.video import read_video

ROWS = ("last-frame", "frozen")
METRICS = ("psnr", "psnr-returned", "psnr-stretch")


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def scored(generation: Path, out: Path, *settings: str, metrics: tuple[str, ...] = METRICS) -> Path:
    recipe = load_recipe(None, list(settings))
    evaluate.run(recipe, generation=generation, reference=None, metrics=metrics, out=out, reporter=Silent())
    return out


@pytest.fixture(scope="module")
def made(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two model-free rows of three rendered clips, and their evaluations beside them."""
    root = tmp_path_factory.mktemp("report")
    bench_rows.run(clips, out=root / "rows", rows=ROWS, reporter=Silent())
    for row in ROWS:
        scored(root / "rows" / row, root / f"{row}.evaluation")
    return root


def reported(made: Path, out: Path, *paths: Path, **options) -> str:
    given = {"bundle": None, "tables": None, "clips": (), "generations": (), "reference": None, "title": "t"}
    paths = paths or tuple(made / f"{row}.evaluation" for row in ROWS)
    reporter = options.pop("reporter", Silent())
    report.run(paths, **{**given, "out": out, "reporter": reporter, **options})
    return (out or options["bundle"] / "index.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Texts of the score table's means, and the script's data."""

    def __init__(self) -> None:
        super().__init__()
        self.means: list[str] = []
        self.data, self.media = "", 0
        self._at = ""

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self._at = (given.get("class") or "") if tag == "span" else (given.get("id") or "") if tag == "script" else ""
        self.media += tag == "script" and self._at.endswith(".mp4")

    def handle_data(self, text):
        if self._at.startswith("mean"):
            self.means.append(text)
        if self._at == "data":
            self.data = text
        self._at = ""


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def scores(evaluation: Path) -> dict:
    return json.loads((evaluation / "scores.json").read_text())["metrics"]


def per_clip(evaluation: Path, label: str) -> dict[str, tuple[float, int]]:
    with (evaluation / "per_clip.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == label and row["value"]]
    return {row["clip"]: (float(row["value"]), int(row["frames"])) for row in rows}


def test_the_table_has_the_numbers_of_scores_json(made, tmp_path):
    html = reported(made, tmp_path / "r.html", tables=tmp_path / "tables")
    wanted = [scores(made / f"{row}.evaluation")[metric]["mean"] for row in ROWS for metric in METRICS]
    assert read(html).means[: len(wanted)] == [f"{mean:.3f}" for mean in wanted]  # slices follow
    with (tmp_path / "tables" / "table.csv").open(newline="") as file:
        assert [float(row["mean"]) for row in csv.DictReader(file) if row["metric"] in METRICS] == wanted
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["table.csv", "table.md", "table.tex"]
    assert "no model: last-frame" in html


@pytest.mark.parametrize("metric", METRICS)
def test_intervals_and_paired_differences_are_those_of_an_independent_bootstrap(made, metric):
    paths = [made / f"{row}.evaluation" for row in ROWS]
    table = compare(open_rows(paths, ()))
    column = [of.label for of in table.columns].index(metric)
    one, other = (per_clip(path, metric) for path in paths)
    assert list(one) == list(other)
    picked = np.random.default_rng(0).integers(len(one), size=(2000, len(one)))

    def drawn(of: dict[str, tuple[float, int]]) -> np.ndarray:
        every = [np.repeat(value, frames) for value, frames in of.values()]
        return np.array([np.concatenate([every[clip] for clip in draw]).mean() for draw in picked])

    for row, of in zip(table.rows, (one, other), strict=True):
        low, high = np.sort(drawn(of))[[49, 1949]]  # 2.5 % and 97.5 % of 2000
        assert (row.cells[column].low, row.cells[column].high) == pytest.approx((low, high), rel=1e-9)
    gap = table.rows[1].cells[column].difference
    low, high = np.sort(drawn(other) - drawn(one))[[49, 1949]]
    assert (gap.low, gap.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
    means = [scores(path)[metric]["mean"] for path in paths]
    assert gap.mean == pytest.approx(means[1] - means[0], rel=1e-9)
    assert table.rows[0].cells[column].difference is None


def test_a_difference_is_over_the_clips_that_both_have(made, tmp_path):
    """The other row lost a clip: its mean is over two, the difference over the same two of both."""
    shutil.copytree(made / "rows" / "frozen", tmp_path / "rows" / "frozen")
    victim = sorted((tmp_path / "rows" / "frozen" / "videos").glob("*.mp4"))[0]
    victim.unlink()
    less = scored(tmp_path / "rows" / "frozen", tmp_path / "less.evaluation", metrics=("psnr",))
    table = compare(open_rows([made / "last-frame.evaluation", less], ()))
    cell = table.rows[1].cells[0]
    assert (cell.clips, cell.failed, cell.difference.clips) == (2, 1, 2)
    one, other = per_clip(made / "last-frame.evaluation", "psnr"), per_clip(less, "psnr")
    means = [np.mean([of[clip][0] for clip in other]) for of in (one, other)]
    assert cell.difference.mean == pytest.approx(means[1] - means[0], rel=1e-9)


def test_a_clip_has_its_videos_once_its_values_and_its_subjects(made, clips, tmp_path):
    found = read(reported(made, tmp_path / "r.html"))
    data = json.loads(found.data)
    assert [row["name"] for row in data["rows"]] == list(ROWS)
    names = {name for clip in data["clips"] for name in (clip["context"], clip["truth"], *clip["rows"])}
    assert found.media == len(names) == 3 * 4  # context, truth, two rows
    clip = data["clips"][0]
    assert clip["frames"] == [21, 21]
    assert clip["values"][1][0][0] == per_clip(made / "frozen.evaluation", "psnr")[clip["id"]][0]
    said = json.loads((clips / clip["id"] / "subjects.json").read_text())
    assert [lane["subject"] for lane in clip["lanes"]] == list(said)
    for lane, subject in zip(clip["lanes"], said.values(), strict=True):
        frames = [span["state"] for span in lane["spans"] for _ in range(span["count"])]
        assert len(frames) == 42
        gone = [frame for of in subject["hidden"] for frame in range(of["first"], of["last"] + 1)]
        assert {frames[frame] for frame in gone} <= {"hidden"}
    stretches = [of for subject in said.values() for of in subject["hidden"] if of["certified"]]
    assert clip["hidden_seconds"] == max(of["hidden_seconds"] for of in stretches)


def test_verdicts_are_shown_by_clip_and_each_has_a_strip(made, clips, tmp_path, monkeypatch):
    make_known(monkeypatch)
    shutil.copytree(made / "rows" / "frozen", tmp_path / "gen")
    judged = scored(tmp_path / "gen", tmp_path / "judged.evaluation", metrics=("psnr", *NAMES))
    html = reported(made, tmp_path / "r.html", judged, made / "last-frame.evaluation")
    with (judged / "per_stretch.csv").open(newline="") as file:
        firsts = {(row["clip"], row["subject"]): int(row["first"]) for row in csv.DictReader(file)}
    wanted = {clip: [[of, word(first)] for (at, of), first in firsts.items() if at == clip] for clip, _ in firsts}
    data = json.loads(read(html).data)
    assert {clip["id"]: clip["verdicts"][0] for clip in data["clips"] if clip["verdicts"][0]} == wanted
    assert all(clip["verdicts"][1] == [] for clip in data["clips"])  # nobody asked for verdicts there
    assert '<th colspan="2" scope="colgroup" class="group">verdicts</th>' in html
    assert '<th scope="col">vanished [share] ↓</th>' in html
    words = {word(first) for first in firsts.values()}
    strips = re.findall(r'<figcaption><strong>(\w+)</strong> judged.*?base64,([^"]+)"', html, re.DOTALL)
    assert [name for name, _ in strips] == sorted(words, key=lambda name: (name == "right", name))
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(strips[0][1]))))
    assert picture.shape[1] >= 6 * 48
    shutil.rmtree(tmp_path / "gen")
    assert 'id="verdicts"' not in reported(made, tmp_path / "alone.html", judged)  # no video to show


def test_who_was_found_where_is_kept_with_the_scores_and_shown_beside_the_truth(made, clips, tmp_path):
    shutil.copytree(made / "rows" / "last-frame", tmp_path / "gen")
    judged = scored(tmp_path / "gen", tmp_path / "judged.evaluation", metrics=("reappearance-recall",))
    dataset, data = open_dataset(clips, PosesConfig()), open_generation(tmp_path / "gen", PosesConfig()).data
    found = json.loads(read(reported(made, tmp_path / "r.html", judged, made / "frozen.evaluation")).data)
    detector = registry.find("detector", "segmenter")("", "cpu")
    states: set[str] = set()
    for clip, source in zip(found["clips"], dataset.clips, strict=True):
        assert clip["id"] == source.id
        tracks = read_tracks(source, data)
        cameras = pieces.clip_cameras(source, data)
        video = read_video(next((tmp_path / "gen" / "videos").glob(f"{source.id}*")))
        seen = detector(video)
        kept = json.loads((judged / "places" / f"{source.id}.places.segmenter.json").read_text())
        who = clip_tracks(video, pieces.target_video(source, data), seen, tracks, cameras)
        assert [len(boxes) for boxes in kept["others"]] == [len(numbers) for numbers in who.nobodys]
        ground = clip["ground"]
        poses = np.concatenate([cameras.context_N44, cameras.target_T44])
        np.testing.assert_allclose(ground["eyes"], poses[:, :2, 3], atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(ground["ahead"], axis=1), 1, atol=2e-3)
        sights = [sight for sight in clip["sights"][0] if sight["subject"]]
        for one, sight, of, (name, way) in zip(who.subjects, sights, kept["subjects"], ground["walks"], strict=True):
            assert name == sight["subject"] == of["subject"] == one.subject.name
            wanted = np.full(42, "", dtype="<U6")
            wanted[21:][one.clear_T] = "missed"
            wanted[21:][one.found] = np.where(one.distance[one.found] <= 1, "place", "off")
            shown = np.full(42, "", dtype="<U6")
            for span in sight["spans"]:
                shown[span["first"] : span["first"] + span["count"]] = span["state"]
            assert shown.tolist() == wanted.tolist()
            states |= {*shown.tolist()}
            assert [box is not None for box in of["boxes"]] == one.found.tolist()
            assert [place is not None for place in sight["places"]] == one.found.tolist()
            np.testing.assert_allclose(way, one.subject.position_A3[:, :2], atol=1e-3)
        assert clip["sights"][1] == []  # nobody looked for subjects there
    assert len(states) > 1


def test_who_was_found_where_is_the_same_in_parts_and_stays_when_scored_again(made, tmp_path):
    def scored_part(out: Path, shard: Shard | None = None) -> StageResult:
        return evaluate.run(
            load_recipe(), generation=made / "rows" / "last-frame", reference=None, metrics=("reappearance-recall",),
            out=out, reporter=Silent(), shard=shard,
        )  # fmt: skip

    whole = scored_part(tmp_path / "whole")
    parts = [scored_part(tmp_path / f"p{k}", Shard(index=k, of=2)).path for k in range(2)]
    joined = merge(parts, out=tmp_path / "joined", reporter=Silent())
    assert joined.fingerprint == whole.fingerprint
    assert len(list((joined.path / "places").iterdir())) == 3
    before = {path.name: path.stat().st_mtime_ns for path in (whole.path / "places").iterdir()}
    assert scored_part(tmp_path / "whole").fingerprint == whole.fingerprint
    assert {path.name: path.stat().st_mtime_ns for path in (whole.path / "places").iterdir()} == before


def test_only_named_clips_are_played_and_the_others_are_listed(made, tmp_path):
    notes = Notes()
    html = reported(made, tmp_path / "r.html", clips=("s5-00001",), reporter=notes)
    data = json.loads(read(html).data)
    assert [clip["id"] for clip in data["clips"] if clip["truth"]] == ["s5-00001"]
    assert len(data["clips"]) == 3
    assert any("Videos of 1 of 3 clips" in said for said in notes.said)
    with pytest.raises(UsageError, match="clip 'nobody'"):
        reported(made, tmp_path / "s.html", clips=("nobody",))


def test_a_bundle_is_a_site_with_videos_as_files(made, tmp_path):
    data = json.loads(read(reported(made, None, bundle=tmp_path / "site")).data)
    files = {path.name for path in (tmp_path / "site" / "media").iterdir()}
    for clip in data["clips"]:
        assert {clip["context"], clip["truth"], *clip["rows"]} <= files
    reported(made, None, bundle=tmp_path / "site")  # its own site is replaced


def test_slices_are_those_of_the_evaluations(made):
    rows = open_rows([made / f"{row}.evaluation" for row in ROWS], [])
    table = compare(rows)
    found = list(slices_of(rows, table))
    shown = {
        (of.name, kind.name, table.columns[index].label, row): (cell.value, cell.values, cell.clips)
        for of in found
        for kind in of.classes
        for row, cells in zip(ROWS, kind.cells, strict=True)
        for index, cell in zip(of.columns, cells, strict=True)
        if cell is not None
    }
    said = {}
    for row in ROWS:
        with (made / f"{row}.evaluation" / "slices.csv").open(newline="") as file:
            for line in csv.DictReader(file):
                numbers = (float(line["value"]), int(line["values"]), int(line["clips"]))
                said[line["slice"], line["class"], line["metric"], row] = numbers
    assert shown == said
    hidden = next(of for of in found if of.name == "hidden seconds")
    edges = [float(kind.name.split()[0].removesuffix("+")) for kind in hidden.classes]
    assert edges == sorted(edges)
    twice = open_rows([], [f"both={made / f'{row}.evaluation'}" for row in ROWS[:1]])
    assert [of.name for of in slices_of(twice, compare(twice))] == [of.name for of in found]


def test_what_models_took_and_scores_by_k_are_shown_where_generations_record_them(made, tmp_path):
    paths = []
    for number, (policy, top_k) in enumerate([("affinity", 2), ("affinity", 10), ("fov", 2), ("none", 5)]):
        paths.append(tmp_path / f"m{number}.evaluation")
        shutil.copytree(made / "frozen.evaluation", paths[-1])
        network = {"parameters": 1_500_000 * (1 + number), "policy": policy, "top_k": top_k}
        judged = {"network": network, "peak_bytes": 2**31, "seconds_per_clip": 7.5, "devices": ["cpu"]}
        edit(
            paths[-1] / "manifest.json", lambda manifest, more=judged: manifest["attributes"]["generation"].update(more)
        )
    rows = open_rows(paths, [])
    table = compare(rows)
    costs = {cost.name: cost.values for cost in table.costs}
    assert costs["parameters"] == (1.5, 3.0, 4.5, 6.0)
    assert costs["seconds a clip"] == (7.5,) * 4
    assert costs["peak memory"] == (2.0,) * 4
    plots = list(plots_by_k(rows, table))
    assert [plot.title for plot in plots] == [column.title for column in table.columns]
    assert all(plot.series == ("affinity", "fov") for plot in plots)
    svg = plots[0].svg
    assert svg.count("<circle") == 3  # policy none reads nothing
    assert re.findall(r">(\d+)</text>", svg)[-2:] == ["2", "10"]
    mean = table.rows[1].cells[0].mean
    assert f"<title>m1: {mean:.4g} [" in svg
    assert list(plots_by_k(rows[:1], compare(rows[:1]))) == []
    assert "By K" in reported(made, tmp_path / "r.html", *paths)
    assert "By K" not in reported(made, tmp_path / "s.html")


def test_missing_generations_and_clips_cost_a_sentence_and_are_found_where_they_are_named(made, tmp_path):
    lone = tmp_path / "alone"
    shutil.copytree(made / "frozen.evaluation", lone / "frozen.evaluation")

    def forget(manifest: dict) -> None:
        manifest["attributes"]["generation"] |= {"path": str(tmp_path / "gone"), "source": ""}
        manifest["attributes"]["reference"] = ""

    edit(lone / "frozen.evaluation" / "manifest.json", forget)
    html = reported(made, tmp_path / "r.html", lone / "frozen.evaluation")
    data = json.loads(read(html).data)
    assert "gone is not there any more, or has changed (--generation names it)." in html
    assert "no folder of clips is recorded (--reference names it)." in html
    assert [clip["rows"] for clip in data["clips"]] == [[None]] * 3
    assert data["clips"][0]["hidden_seconds"] > 0  # from the evaluation's stretches
    again = reported(made, tmp_path / "r.html", lone / "frozen.evaluation", generations=(made / "rows" / "frozen",))
    assert all(clip["rows"][0] for clip in json.loads(read(again).data)["clips"])
    with pytest.raises(UsageError, match="no evaluation here is of this generation"):
        reported(made, tmp_path / "s.html", lone / "frozen.evaluation", generations=(made / "rows" / "last-frame",))


def test_other_protocols_are_named_and_other_rows_are_no_difference(made, tmp_path):
    paths = [made / f"{row}.evaluation" for row in ROWS]
    assert card_differences(open_evaluations(paths)) == ()
    videos = scored(made / "rows" / "frozen", tmp_path / "videos.evaluation", "eval.average=videos")
    notes = Notes()
    html = reported(made, tmp_path / "r.html", paths[0], videos, reporter=notes)
    assert "The protocol cards differ" in html
    assert any("eval.average" in said and "last-frame" in said for said in notes.said)


def test_seeds_of_a_group_are_one_row_with_their_spread(made, tmp_path):
    """Two sets of videos stand in for two seeds of one sampler: their manifests are made to say so."""
    paths = []
    for row in ROWS:
        shutil.copytree(made / f"{row}.evaluation", tmp_path / f"{row}.evaluation")
        paths.append(tmp_path / f"{row}.evaluation")
        edit(paths[-1] / "manifest.json", lambda of: of["attributes"]["generation"].update({"model_free": ""}))
    table = compare(open_rows(paths[:1], [f"both={path}" for path in paths]))
    assert [row.title for row in table.rows] == ["last-frame", "both (2 seeds)"]
    column = [of.label for of in table.columns].index("psnr-returned")
    cell, values = table.rows[1].cells[column], [per_clip(path, "psnr-returned") for path in paths]
    means = [scores(path)["psnr-returned"]["mean"] for path in paths]
    assert cell.mean == pytest.approx(np.mean(means), rel=1e-12)
    assert cell.spread == pytest.approx(abs(means[0] - means[1]) / np.sqrt(2), rel=1e-12)
    picked = np.random.default_rng(0).integers(len(values[0]), size=(2000, len(values[0])))
    drawn = np.zeros(2000)
    for of in values:
        numbers, frames = np.array(list(of.values())).T
        drawn += (numbers * frames)[picked].sum(1) / frames[picked].sum(1) / 2
    assert (cell.low, cell.high) == pytest.approx(tuple(np.sort(drawn)[[49, 1949]]), rel=1e-9)
    html = reported(made, tmp_path / "r.html", paths[0], groups=[f"both={path}" for path in paths])
    assert "over 2 seeds" in html
    clip = json.loads(read(html).data)["clips"][0]
    assert clip["values"][1][column][0] == pytest.approx(np.mean([of[clip["id"]][0] for of in values]), rel=1e-12)


def test_a_group_of_what_is_no_repeat_is_refused(made, tmp_path):
    frozen, other = made / "frozen.evaluation", made / "last-frame.evaluation"
    videos = scored(made / "rows" / "frozen", tmp_path / "videos.evaluation", "eval.average=videos")
    for groups, why in (
        ([f"a={frozen}", f"a={frozen}"], "no other seed"), ([f"a={frozen}", f"a={other}"], "sampled in one way"),
        ([f"a={frozen}", f"a={videos}"], "no other seed"), ([str(frozen)], "NAME=EVALUATION"), ([], "no evaluation"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            open_rows([], groups)


def test_evaluations_of_one_name_are_told_apart_by_their_folders(made, tmp_path):
    for folder in ("a", "b"):
        shutil.copytree(made / "frozen.evaluation", tmp_path / folder / "x.evaluation")
    names = [one.name for one in open_evaluations([tmp_path / "a" / "x.evaluation", tmp_path / "b" / "x.evaluation"])]
    assert names == ["a/x", "b/x"]


def test_what_is_no_evaluation_and_what_would_be_overwritten_is_refused(made, clips, tmp_path, hm: WarmCommand):
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    evaluation = made / "frozen.evaluation"
    for code, arguments in (
        (3, [clips]), (3, [tmp_path / "none"]), (3, [evaluation, made / "rows" / "frozen"]), (2, []),
        (2, [evaluation, "--out", tmp_path / "mine.html"]), (2, [evaluation, "--bundle", tmp_path]),
        (2, [evaluation, "--out", tmp_path / "r.html", "--bundle", tmp_path / "b"]),
        (2, [evaluation, "--out", tmp_path / "table.md"]),
    ):  # fmt: skip
        done = hm("report", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>"
    with pytest.raises(DataError, match="of kind 'dataset'"):
        open_evaluations([clips])
    assert ok(hm("report", evaluation, "--out", tmp_path / "r.html")) == tmp_path / "r.html"
    assert ok(hm("report", evaluation, "--out", tmp_path / "r.html")) == tmp_path / "r.html"  # its own is replaced
