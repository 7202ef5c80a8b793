"""What a result is made from, stage by stage: a change of it makes the item anew, a change of anything else keeps it.

One table: each row changes one thing, and names every stage whose content key must change. What a run of training is
made from stands in test_train_keys.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from warm import WarmCommand, ok

from hmcli import registry
from hmcli.metrics.contract import Metric
from hmcli.recipe.keys import keys_of
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import CodecConfig, DataConfig, Recipe, SplitConfig
from hmcli.runtime import Silent
from hmcli.stages.bench.definition import Chosen
from hmcli.stages.data.opening import Dataset, open_dataset
from hmcli.stages.inspecting.memory import look_key
from hmcli.stages.latents.encode import caption_key, clip_key
from hmcli.stages.latents.layout import caption_item, clip_item
from hmcli.stages.latents.view import LatentsView, open_latents
from hmcli.stages.memory import tokenize
from hmcli.stages.memory.kept import History, MemoryView
from hmcli.stages.memory.policy_inputs import GEOMETRY, LAYS_OUT
from hmcli.stages.models.folders import PACKAGED, ModelFolder, find_model
from hmcli.stages.models.identity import codec_hash, text_hash
from hmcli.stages.models.layout import TrainedWith
from hmcli.stages.rendering import render
from hmcli.stages.sampling import job as sampling
from hmcli.stages.sampling.generations import Generated, open_generation
from hmcli.stages.scoring.clip import Clip
from hmcli.stages.scoring.plan import Plan, columns_of
from hmcli.stages.shared.typed import to_json
from hmcli.store.hashing import HashCache, hash_file

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer")  # a text in the place of a number
RENDER, CLIP, CAPTION, SLOTS, MEMORY, GENERATE, INSPECT, EVAL = (
    "render", "encode clip", "encode caption", "slots", "memory", "generate", "inspect", "eval",
)  # fmt: skip
ENCODED, VIDEO = {CLIP, CAPTION}, {GENERATE, INSPECT}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that stages read, opened: one world for all of them."""

    place: Path  # for files that a change writes
    recipe: Recipe
    data: Path
    view: LatentsView
    model: ModelFolder
    memory: MemoryView
    after: bool = False  # does memory follow that of another artifact?
    history: int = 0  # how many memory artifacts are given to `hm generate`
    chosen: tuple[Chosen, ...] | None = None
    generated: Generated
    metric: Metric
    versions: dict[str, str]
    features: dict[str, str] | None = None  # what the backbone says of itself, where not its own


Change = Callable[[Inputs], Inputs]


# --- the key of one item, by stage, as the stage makes it ------------------------------------------------------------


def keys(of: Inputs) -> dict[str, str]:
    recipe, view, silent = of.recipe, of.view, Silent()
    clip = view.ids()[0]
    dataset = open_dataset(of.data, recipe.poses)
    source = next(one for one in dataset.clips if one.id == clip)
    about = tokenize.Job(recipe=recipe, view=view, model=None, after=None, device="cpu", reporter=silent)
    kept = replace(about, model=of.model, after=of.memory if of.after else None)
    history = None
    if of.history:
        history = History([], of.model)
        history.views = [of.memory] * of.history
    job = sampling.Job(
        recipe=recipe, view=view, model=of.model, history=history, described=None, device="cpu", reporter=silent
    )
    return {
        RENDER: next(iter(render.clip_keys(recipe, of.chosen).values())),
        CLIP: clip_key(source, recipe, codec_hash(recipe.codec)),
        CAPTION: caption_key(source.caption, recipe, text_hash(recipe.text)),
        SLOTS: about.key(clip), MEMORY: kept.key(clip),
        GENERATE: job.key(clip), INSPECT: look_key(job, clip),
        EVAL: _eval_key(plan_of(of, dataset), clip),
    }  # fmt: skip


def _eval_key(plan: Plan, clip: str) -> str:
    (column,) = plan.columns
    return Clip(plan, clip, HashCache()).key(column)


def plan_of(of: Inputs, dataset: Dataset) -> Plan:
    settings = replace(of.recipe.eval, backbone=("hog",), backbone_path=())
    plan = Plan(
        generated=of.generated, clips=(), reference=dataset, columns=columns_of((of.metric,), settings, (32, 48)),
        settings=settings, device="cpu", versions=of.versions,
    )  # fmt: skip
    if of.features is not None and plan.backbones:
        plan.backbones["hog"].about = of.features
    return plan


# --- changes ---------------------------------------------------------------------------------------------------------


def key(path: str, value: Any = "another") -> Change:
    """Another value under one key of the recipe."""
    return lambda of: replace(of, recipe=_with(of.recipe, path, value))


def _with(section: Any, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    if rest and getattr(section, name) is None:
        section = replace(section, **{name: SplitConfig(context=5, target=5)})
    return replace(section, **{name: _with(getattr(section, name), rest, value) if rest else value})


def file(pattern: str, text: str) -> Change:
    """A file of the first clip, or of the folder of clips, with something added."""

    def change(of: Inputs) -> Inputs:
        data = of.place / "clips"
        shutil.copytree(of.data, data)
        found = data / pattern.format(clip=of.view.ids()[0])
        found.write_bytes(found.read_bytes() + text.encode())
        return replace(of, data=data)

    return change


def caption(of: Inputs) -> Inputs:
    data = of.place / "clips"
    shutil.copytree(of.data, data)
    lines = (data / "caption.txt").read_text(encoding="utf-8").splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith(f"{of.view.ids()[0]}\t"))
    lines[index] += " in the rain"
    (data / "caption.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return replace(of, data=data)


def row(**says: Any) -> Change:
    """Another value in what the latents say of the first clip; its embedding goes with its caption."""

    def change(of: Inputs) -> Inputs:
        view = open_latents(of.view.path)
        record = view.manifest.items[clip_item(view.ids()[0])]
        if "caption" in says:
            view.manifest.items[caption_item(says["caption"])] = view.manifest.items[caption_item(view_caption(view))]
        record["meta"] = record["meta"] | says
        return replace(of, view=view)

    return change


def view_caption(view: LatentsView) -> str:
    return view.about(view.ids()[0]).caption


def counts(of: Inputs) -> Inputs:
    """One frame more of context, one less of target."""
    view = open_latents(of.view.path)
    first = view.groups[0].shape
    shape = replace(first, context=first.context + 1, target=first.target - 1)
    view.groups = tuple(replace(group, shape=shape) for group in view.groups)
    del view.where  # made of the groups
    return replace(of, view=view)


def pixels(of: Inputs) -> Inputs:
    view = open_latents(of.view.path)
    view.attributes = replace(view.attributes, size=(64, 64))
    return replace(of, view=view)


def item(name: Callable[[LatentsView], str]) -> Change:
    """Another content of an item of the latents."""

    def change(of: Inputs) -> Inputs:
        view = open_latents(of.view.path)
        view.manifest.items[name(view)]["hash"] = "sha256:other"
        return replace(of, view=view)

    return change


def with_model(of: Inputs, **says: Any) -> Inputs:
    return replace(of, model=replace(of.model, manifest=replace(of.model.manifest, **says)))


def weights(of: Inputs) -> Inputs:
    return with_model(of, fingerprint="sha256:other")


def model_codec(of: Inputs) -> Inputs:
    """Other weights decode."""
    recipe = of.model.manifest.recipe
    codec = recipe["codec"] | {"path": str(_packaged_codec(of, "\n"))}
    folder = of.place / "model without vae"
    folder.mkdir()
    moved = replace(of, model=replace(of.model, path=folder))
    made_with = to_json(TrainedWith(codec=codec_hash(CodecConfig(**codec))))
    about = of.model.manifest.attributes | {"trained_with": made_with}
    return with_model(moved, recipe=recipe | {"codec": codec}, attributes=about)


def _packaged_codec(of: Inputs, added: str = "") -> Path:
    shutil.copytree(PACKAGED / "vae", of.place / "vae")
    config = of.place / "vae" / "config.json"
    config.write_text(config.read_text() + added)
    return of.place / "vae"


def codec_path(added: str) -> Change:
    return lambda of: key("codec.path", str(_packaged_codec(of, added)))(of)


def text_weights(of: Inputs) -> Inputs:
    (of.place / "text").mkdir()
    (of.place / "text" / "config.json").write_text("{}")
    return key("text.path", str(of.place / "text"))(of)


def captioner(content: str) -> Change:
    def change(of: Inputs) -> Inputs:
        (of.place / "captioner").mkdir(exist_ok=True)
        (of.place / "captioner" / "config.json").write_text(content)
        return key("world.captioner", str(of.place / "captioner"))(of)

    return change


def chosen(caption: str) -> Change:
    one = Chosen(draw=0, size=(32, 48), caption=caption, caption_plain="")
    return lambda of: replace(of, chosen=(one,) * of.recipe.world.clips)


def policy(name: str) -> Change:
    """Recipe and model with another memory policy."""

    def change(of: Inputs) -> Inputs:
        recipe = of.model.manifest.recipe
        memory = recipe["model"]["memory"] | {"policy": name}
        changed = with_model(of, recipe=recipe | {"model": recipe["model"] | {"memory": memory}})
        return key("model.memory.policy", name)(changed)

    return change


def kept_memory(**says: Any) -> Change:
    """Another manifest of the memory artifact."""

    def change(of: Inputs) -> Inputs:
        memory = MemoryView(of.memory.path, of.model)
        memory.manifest = replace(memory.manifest, **says)
        return replace(of, memory=memory)

    return change


def kept_item(of: Inputs) -> Inputs:
    memory = MemoryView(of.memory.path, of.model)
    memory.manifest.items[of.view.ids()[0]]["hash"] = "sha256:other"
    return replace(of, memory=memory)


def parts(after: bool = False, history: int = 0) -> Change:
    return lambda of: replace(of, after=after, history=history)


def video(of: Inputs) -> Inputs:
    """Another video, and a manifest that says so."""
    folder = of.place / "generation"
    shutil.copytree(of.generated.path, folder)
    clip = of.view.ids()[0]
    place = folder / of.generated.rows[clip].video
    place.write_bytes(place.read_bytes() + b"\0")
    record = of.generated.manifest.items[clip]
    items = of.generated.manifest.items | {clip: record | {"files": {"": {"hash": hash_file(place), "bytes": 1}}}}
    return replace(
        of, generated=replace(of.generated, path=folder, manifest=replace(of.generated.manifest, items=items))
    )


def generated_data(path: str) -> Change:
    return lambda of: replace(of, generated=replace(of.generated, data=_with(of.generated.data, path, "another")))


def metric(**says: Any) -> Change:
    return lambda of: replace(of, metric=replace(of.metric, **says))


def of_returned(of: Inputs) -> Inputs:
    """A metric that sees where subjects are."""
    return replace(of, metric=registry.find("metric", "psnr-returned"))


def features_alone(of: Inputs) -> Inputs:
    """A metric that sees the prediction and features of it, but no reference."""
    return replace(of, metric=registry.find("metric", "subject-consistency"))


def features(of: Inputs) -> Inputs:
    return replace(of, features={"features": "others"})


def unchanged(of: Inputs) -> Inputs:
    return of


def patched(module: Any, name: str) -> Change:
    """Another version of what a stage writes; undone when its keys are made."""

    def change(of: Inputs) -> Inputs:
        setattr(module, name, -1)
        return of

    return change


# --- the table -------------------------------------------------------------------------------------------------------


def of_recipe() -> Iterator[tuple[str, Change, Change, set[str]]]:
    """Every key of a recipe; those of training are in test_train_keys.py."""
    own = {
        "world.clips": set[str](), "codec.channels": set[str](), "codec.stride": set[str](),
        "data.compressor": set[str](),
        "sample.count": set[str](),  # further samples are items of their own
        "sample.dtype": {MEMORY, *VIDEO}, "sample.attention": {MEMORY, *VIDEO},
    }  # fmt: skip
    own |= {f"model.memory.{name}": {SLOTS, MEMORY} for name in GEOMETRY}
    own |= {f"model.memory.{name}": {SLOTS} for name in LAYS_OUT}  # with a model they are the model's own
    sections = {
        "world": {RENDER}, "data": {CLIP}, "poses": {CLIP}, "codec": {CLIP}, "text": {CAPTION}, "sample": VIDEO,
        "model": set[str](), "flow": set[str](), "train": set[str](), "eval": set[str](),
    }  # fmt: skip
    told = {"codec.name", "codec.path", "text.path", "world.captioner"}  # of files: they have rows of their own
    values: dict[str, Any] = {"world.clips": 2, "model.memory.policy": "fov"}
    for one in keys_of(Recipe):
        section = one.path.split(".")[0]
        if section not in sections or one.path in told or one.path.startswith("train.lora."):
            continue
        base: Change = key("data.split", SplitConfig(context=5, target=5)) if "split." in one.path else unchanged
        yield one.path, base, key(one.path, values.get(one.path, "another")), own.get(one.path, sections[section])


ROWS: list[tuple[str, Change, Change, set[str]]] = [
    *of_recipe(),
    ("seed", unchanged, key("seed", 6), {RENDER, *VIDEO}),
    ("seed where chance chooses", policy("random"), key("seed", 6), {RENDER, MEMORY, *VIDEO}),
    ("version of pictures", unchanged, patched(render, "PICTURES"), {RENDER}),
    ("what a benchmark chose", chosen("a"), chosen("b"), {RENDER}),
    ("weights of the captioner", captioner("{}"), captioner("{ }"), {RENDER}),
    ("caption of a clip", unchanged, caption, {*ENCODED}),
    ("video of a clip", unchanged, file("{clip}/tgt.mp4", "\0"), {CLIP, EVAL}),
    ("cameras of a clip", unchanged, file("{clip}/camera.json", " "), {CLIP}),
    ("name of the codec", codec_path(""), key("codec.name", "wan"), {CLIP}),
    ("where codec weights lie", unchanged, codec_path(""), set()),
    ("weights of the codec", unchanged, codec_path("\n"), {CLIP}),
    ("weights of the text encoder", unchanged, text_weights, {CAPTION}),
    ("caption in the latents", unchanged, row(caption="another"), VIDEO),
    ("fps in the latents", unchanged, row(fps=7.5), VIDEO),
    ("notes in the latents", unchanged, row(notes=["seen"]), set()),
    ("counts of frames", unchanged, counts, {SLOTS, MEMORY, *VIDEO}),
    ("size of the videos", unchanged, pixels, {SLOTS, MEMORY, *VIDEO}),
    ("latents", unchanged, item(lambda view: clip_item(view.ids()[0])), {SLOTS, MEMORY, *VIDEO}),
    ("latents of another clip", unchanged, item(lambda view: clip_item(view.ids()[1])), set()),
    ("embedding of the caption", unchanged, item(lambda view: caption_item(view_caption(view))), VIDEO),
    ("embedding of nothing", unchanged, item(lambda view: caption_item("")), VIDEO),
    ("embedding of nothing, unguided", key("sample.guidance", 1.0), item(lambda view: caption_item("")), set()),
    ("embedding of nothing, with a negative", key("sample.negative", "dark"), item(lambda _: caption_item("")), set()),
    ("weights of the model", unchanged, weights, {MEMORY, *VIDEO}),
    ("weights that decode", unchanged, model_codec, VIDEO),
    *((f"{name} where views are compared", policy("fov"), key(f"model.memory.{name}"), {SLOTS, MEMORY, *VIDEO})
      for name in GEOMETRY),
    ("memory before", unchanged, parts(after=True), {MEMORY}),
    ("memory before, otherwise", parts(after=True), kept_item, {MEMORY}),
    ("memory of the context alone", unchanged, parts(history=1), set()),
    ("memory of the context alone, otherwise", parts(history=1), kept_item, set()),
    ("history", unchanged, parts(history=2), VIDEO),
    ("history, otherwise", parts(history=2), kept_item, VIDEO),
    ("seed of kept memory", parts(history=1), kept_memory(seed=9), set()),
    ("video", unchanged, video, {EVAL}),
    *((f"{one.path} of the generation", unchanged, generated_data(one.path), {EVAL}) for one in keys_of(DataConfig)),
    ("name of the metric", unchanged, metric(name="other"), {EVAL}),
    ("definition of the metric", unchanged, metric(definition="other"), {EVAL}),
    ("unit of the metric", unchanged, metric(unit="other"), {EVAL}),
    ("subjects' states without a metric of them", unchanged, file("{clip}/subjects.json", " "), set()),
    ("subjects' states", of_returned, file("{clip}/subjects.json", " "), {EVAL}),
    ("versions", unchanged, lambda of: replace(of, versions={"numpy": "0"}), {EVAL}),
    ("features without a metric of them", unchanged, features, set()),
    ("features", features_alone, features, {EVAL}),
    ("reference without a metric of it", features_alone, file("{clip}/tgt.mp4", "\0"), {CLIP}),
]  # fmt: skip


@pytest.fixture(scope="module")
def start(
    hm: WarmCommand, nano: Path, clips: Path, latents: Path, run: Path, generation: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Inputs:  # fmt: skip
    place = tmp_path_factory.mktemp("keys")
    memory = ok(hm("tokenize-memory", latents, "--model", run, "--out", place / "memory"))
    recipe, model = load_recipe(str(nano)), find_model(run)
    return Inputs(
        place=place, recipe=recipe, data=clips, view=open_latents(latents), model=model,
        memory=MemoryView(memory, model), generated=open_generation(generation, recipe.poses),
        metric=registry.find("metric", "psnr"), versions={"numpy": "2"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def start_keys(start: Inputs) -> dict[str, str]:
    return keys(start)


@pytest.mark.parametrize(("base", "change", "anew"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_stage_makes_anew_what_was_made_from_something_else_and_nothing_more(
    start: Inputs, start_keys: dict[str, str], base: Change, change: Change, anew: set[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(render, "PICTURES", render.PICTURES)  # set back at the end
    before = base(replace(start, place=tmp_path))
    known = start_keys if base is unchanged else keys(before)
    found = keys(change(before))
    assert {stage for stage in known if known[stage] != found[stage]} == anew
