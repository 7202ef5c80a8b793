"""One sampling job: everything that generating a clip reads, opened and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli import __version__, registry
from hmcli.aligned import tensor_of
from hmcli.contracts import Reporter, VideoCodec
from hmcli.errors import DataError, NotFiniteError, UsageError
from hmcli.recipe.keys import Reader
from hmcli.recipe.readers import reads
from hmcli.recipe.reading import from_dict
from hmcli.recipe.sections import MemoryConfig, Recipe, SampleConfig
from hmcli.runtime import pick_dtype
from hmcli.stages.exporting.layout import clip_shape
from hmcli.stages.exporting.running import RUNS, Exported, check_packages, open_exported
from hmcli.stages.latents.captions import cut_caption
from hmcli.stages.latents.view import LatentClip, LatentsView, open_latents
from hmcli.stages.memory.kept import History, anchor_of, compute_memory, rows_from
from hmcli.stages.memory.layout import SlotDescription
from hmcli.stages.memory.policy_inputs import (
    GEOMETRY,
    after_history,
    chooses_by_chance,
    holds_model,
    open_descriptions,
    reads_geometry,
    recorded_model,
    retrieval_inputs,
)
from hmcli.stages.models.folders import ModelFolder
from hmcli.stages.models.identity import codec_hash, codec_of, open_codec, open_text, text_hash, text_of
from hmcli.stages.sampling.layout import Again, VideoKey
from hmcli.stages.sampling.profile import CONTEXT, DENOISING, LOADING, part
from hmcli.stages.sampling.samples import sample_seed
from hmcli.stages.shared.chance import clip_seed
from hmcli.stages.shared.typed import key_of
from hmcli.store.finite import require_finite
from hmcli.store.hashing import hash_json
from hmcli.store.manifest import read_manifest

if TYPE_CHECKING:
    from hmcli.core.pipeline import HydraPipeline
    from hmcli.core.retrieval import RetrievalInputs
    from hmcli.core.transformer import HydraTransformer3DModel

_CAME_LATER = (  # keys that older videos know nothing of
    "chunk", "frames", "max_history", "anchor_radius", "scheduler", "branches", "cache", "history_level", "compile",
    "batch", "quantize", "offload",
)  # fmt: skip
NO_CACHE = "none"
BLOCKS = "blocks"  # what is compiled
INT8, MEMORY, DISK = "int8", "memory", "disk"  # rounded weights; where weights lie that are fetched
NOTHING = "none"  # the policy that reads local windows alone


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything one `hm generate` works with."""

    recipe: Recipe
    view: LatentsView
    model: ModelFolder
    history: History | None
    described: dict[str, SlotDescription] | None
    device: str
    reporter: Reporter
    remembered: tuple[Path, ...] = ()  # the memory artifacts that were given
    exported: Exported | None = None  # graphs that run instead of the model's steps and its codec's decoder

    @cached_property
    def memory(self) -> MemoryConfig:
        """How the model was trained to remember; what its cameras see may be set anew."""
        trained = recorded_model(self.model.manifest.recipe).memory
        seen = {key: getattr(self.recipe.model.memory, key) for key in GEOMETRY}
        return dataclasses.replace(trained, **seen, policy=policy_of(self.model, self.recipe))

    @property
    def positions(self) -> str:
        """Where the model's tokens sit: screen or rays."""
        return recorded_model(self.model.manifest.recipe).positions

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the transformer is built with when it samples; no weights are read."""
        older = {"max_history": self.sample.max_history} if self.sample.max_history else {}
        return self.model.config() | {"policy": self.memory.policy} | older

    @property
    def sample(self) -> SampleConfig:
        return self.recipe.sample

    def reads(self) -> dict[str, Any]:
        """What of the recipe changes a video: how to sample and, for policies that compare views, what cameras see."""
        views: tuple[Reader, ...] = ("views",) if compares_views(self.model, self.recipe) else ()
        return reads(self.recipe, "generate", *views)

    @property
    def denoising(self) -> dict[str, Any]:
        """How every sample is made: the recipe's section, but for how many there are, and for what came later and is
        as it was before."""
        usual, values = SampleConfig(), dataclasses.asdict(self.sample)
        del values["count"]
        for name in _CAME_LATER:
            if values[name] == getattr(usual, name):
                del values[name]
        return values

    def key(self, clip: str, number: int = 1) -> str:
        """The content key of one of a clip's samples."""
        return key_of(self.made_of(clip, number))

    def made_of(self, clip: str, number: int = 1) -> VideoKey:
        """All that one of a clip's samples is made from."""
        view, about = self.view, self.view.about(clip)
        return VideoKey(
            latents=view.latents_hash(clip), caption=about.caption, text=view.embedding_hash(about.caption),
            negative=self._negative_hash, fps=about.fps, model=self.model.fingerprint, codec=self._codec_hash,
            sample=self.denoising, number=None if number == 1 else number, geometry=self._seen,
            seed=self.recipe.seed, past=self._past(clip), chance=self._chance,
            exported=None if self.exported is None else self.exported.fingerprint,
        )  # fmt: skip

    def again(self, clip: str, number: int, pixels: str, beside: Sequence[tuple[str, int]]) -> Again:
        """What makes the same pixels, whose hash is given, again; `beside`: all clips and samples made at once."""
        import torch

        places: list[Reader] = ["generate", *(["views"] if self._seen else [])]  # type: ignore[list-item]
        places += ["codec path"] if self.model.names_codec else []
        places += ["text path"] if self.model.names_text else []
        return Again(
            made_of=self.made_of(clip, number), pixels=pixels, recipe=reads(self.recipe, *places),
            model=str(self.model.path.absolute()), latents=str(self.view.path.absolute()), device=self.device,
            memory=tuple(str(path.absolute()) for path in self.remembered),
            exported=None if self.exported is None else str(self.exported.path.absolute()),
            versions=self._versions, threads=torch.get_num_threads() if self.device == "cpu" else None,
            beside=tuple(beside) if len(beside) > 1 else None,
        )  # fmt: skip

    @property
    def _versions(self) -> dict[str, str]:
        """Of what computes a video; rounded weights are torchao's."""
        used = ["torch", "diffusers", *(["torchao"] if self.sample.quantize == INT8 else [])]
        used += [] if self.exported is None else RUNS
        return {"hmcli": __version__} | {name: version(name) for name in used}

    @property
    def under(self) -> str:
        """All that the videos of every clip depend on alike."""
        graphs = [] if self.exported is None else [self.exported.fingerprint]
        settings = {**self.reads(), "sample": self.denoising}
        return hash_json([self.model.fingerprint, self._codec_hash, settings, *graphs])

    @cached_property
    def _codec_hash(self) -> str:
        return codec_hash(codec_of(self.model, self.recipe.codec.path))

    @cached_property
    def _negative_hash(self) -> str:
        if self.sample.guidance == 1:
            return ""
        if not self.sample.negative:
            return self.view.embedding_hash("")
        return text_hash(text_of(self.model, self.recipe.text.path))

    @property
    def _seen(self) -> dict[str, Any]:
        """What cameras see, where it is read."""
        views = compares_views(self.model, self.recipe)
        return {key: getattr(self.memory, key) for key in GEOMETRY} if views else {}

    @property
    def _chance(self) -> int | None:
        """Kept memory holds the choices of the seed it was made with."""
        if not chooses_by_chance(self.memory):
            return None
        return self.recipe.seed if self.history is None else self.history.views[-1].manifest.seed

    def _past(self, clip: str) -> tuple[str, ...]:
        """Hashes of the clip's earlier history, of artifacts that hold it."""
        views = [] if self.history is None else self.history.views[:-1]
        return tuple(view.item(clip).hash for view in views if clip in view.manifest.items)

    @cached_property
    def network(self) -> HydraTransformer3DModel:
        from hmcli.core.compiled import compile_blocks

        policy = policy_of(self.model, self.recipe)
        lighter = self.sample.quantize == INT8 or self.sample.offload in (MEMORY, DISK)
        with part(LOADING):
            dtype, max_history = pick_dtype(self.sample.dtype), self.sample.max_history or None
            network = self.model.load(dtype, "cpu" if lighter else self.device, policy, max_history)
            if lighter:
                self._lighten(network)
        self.reporter.note(network.set_attention(self.sample.attention))
        if self.sample.cache != NO_CACHE:
            _enable_cache(network, self.sample.cache)
        if self.sample.compile == BLOCKS:
            compile_blocks(network)
        return network if self.exported is None else self.exported.network(network)

    def _lighten(self, network: Any) -> None:
        """Weights on the CPU as `sample.quantize` or `sample.offload` says."""
        from hmcli.core.lighter import offload_blocks, round_weights

        if self.sample.quantize == INT8:
            round_weights(network)
            network.to(self.device)
        else:
            offload_blocks(network, self.device, to_disk=self.sample.offload == DISK)

    @property
    def pipeline(self) -> HydraPipeline:
        """What samples: the network under the recipe's schedule."""
        from hmcli.core.pipeline import HydraPipeline

        made = HydraPipeline(self.network, registry.find("scheduler", self.sample.scheduler)(self.sample.shift))
        made.set_progress_bar_config(disable=True)
        return made

    @cached_property
    def codec(self) -> VideoCodec:
        with part(LOADING):
            codec = open_codec(codec_of(self.model, self.recipe.codec.path), self.device)
            return codec if self.exported is None else self.exported.codec(codec)

    @cached_property
    def negative(self) -> np.ndarray:
        """(L, D) embedding of the guidance branch; only a caption that says something needs the text encoder."""
        if not self.sample.negative:
            return self.view.text(0)
        config = text_of(self.model, self.recipe.text.path)
        encoder = open_text(config, self.device)
        if cut := cut_caption(encoder, self.sample.negative):
            self.reporter.warn(f"sample.negative is cut: {cut}")
        rows = encoder.encode([self.sample.negative])[0]
        padded = np.zeros(self.view.text_shape, np.float32)
        padded[: len(rows)] = rows
        require_finite({"text": padded}, where={"sample.negative": self.sample.negative})
        return padded


def open_job(
    recipe: Recipe,
    folder: ModelFolder,
    source: Path,
    kept: list[Path],
    descriptions: Path | None,
    clips: tuple[str, ...],
    device: str,
    reporter: Reporter,
    exported: Path | None = None,
) -> tuple[Job, list[str]]:
    """Open everything sampling reads, and the ids of the clips asked for; `kept` is the model's own memory, `exported`
    a folder of its graphs."""
    check_settings(recipe.sample, folder, device)
    if exported is not None:
        check_exported(recipe.sample, device, exported)
    view = open_latents(source)
    view.say_left_out(reporter)
    ids = view.ids(clips)
    check_latents(view, folder, recipe.codec.path, reporter)
    if recipe.sample.memory == "off" and (kept or descriptions):
        raise UsageError(
            "--memory has no effect with sample.memory=off: nothing is read of it", where={"recipe": "sample.memory"},
            fix="leave --memory out",
        )  # fmt: skip
    if recipe.sample.batch > 1 and kept:
        raise UsageError(
            f"sample.batch={recipe.sample.batch} with the model's own memory: that lies on disk and is read clip by "
            "clip", where={"memory": kept[0]}, fix="set sample.batch=1, or leave --memory out",
        )  # fmt: skip
    job = Job(
        recipe=recipe, view=view, model=folder, history=History(kept, folder) if kept else None, described=None,
        device=device, reporter=reporter,
        remembered=(*kept, *([] if descriptions is None else [descriptions])),
    )  # fmt: skip
    if descriptions is not None:
        described = open_descriptions(descriptions, view, job.memory, ids, reporter)
        job = dataclasses.replace(job, described=described)
    if exported is not None:
        job = _with_graphs(job, exported, ids)
    if recipe.sample.guidance == 1 and recipe.sample.negative:
        reporter.warn(f"sample.negative ({recipe.sample.negative!r}) is not used: sample.guidance is 1")
    if recipe.sample.negative or recipe.text.path != folder.text().path:
        text_of(folder, recipe.text.path)  # what is wrong with it is said now, not after the first clip is loaded
    return job, ids


def check_settings(sample: SampleConfig, folder: ModelFolder, device: str) -> None:
    """Raise UsageError or MissingPartError for what this model, device or installation cannot do; no clip is needed."""
    check_history_guidance(sample.history_guidance, folder)
    check_far_memory(sample, folder)
    if sample.cache != NO_CACHE:
        _cache_of(sample.cache)
    if sample.compile == BLOCKS:
        from hmcli.core.compiled import check_compiler

        check_compiler("sample.compile", device)
    if sample.quantize == INT8:
        from hmcli.core.lighter import check_torchao

        check_torchao("sample.quantize")
    if sample.offload == MEMORY and device == "cpu":
        raise UsageError(
            "sample.offload=memory has no effect on a CPU: the weights lie in its memory already",
            where={"recipe": "sample.offload", "device": device}, fix="set sample.offload=disk, or none",
        )  # fmt: skip


def check_exported(sample: SampleConfig, device: str, exported: Path) -> None:
    """Raise UsageError for what exported graphs cannot do, MissingPartError without what runs them."""
    check_packages(RUNS)
    usual = SampleConfig()
    fixed = {"memory": "on", "dtype": "float32"} | {
        name: getattr(usual, name)
        for name in ("attention", "batch", "branches", "cache", "chunk", "compile", "quantize", "offload")
    }
    if other := {f"sample.{name}": getattr(sample, name) for name, of in fixed.items() if getattr(sample, name) != of}:
        raise UsageError(
            f"exported graphs cannot do {', '.join(f'{name}={value}' for name, value in other.items())}",
            where={"exported": exported},
            fix=f"set {', '.join(f'{name}={fixed[name[7:]]}' for name in other)}, or leave --exported out",
        )
    if device != "cpu":
        raise UsageError(f"exported graphs run on the CPU here, not on {device}", fix="--device cpu")


def _with_graphs(job: Job, path: Path, ids: Sequence[str]) -> Job:
    """The job with an exported model. Raises DataError for one of another model, UsageError for clips of another
    shape."""
    codec = codec_hash(codec_of(job.model, job.recipe.codec.path))
    exported = open_exported(path, model=job.model.fingerprint, codec=codec)
    if job.history is not None and len(job.history.views) > 1:
        raise UsageError(
            "exported graphs read the memory of one context, not of several in a row",
            where={"exported": path, "memory": ", ".join(str(view.path) for view in job.history.views)},
            fix="leave --exported out",
        )  # fmt: skip
    for clip in ids:
        found = clip_shape(job.view, clip)
        if found != exported.about.shape:
            raise UsageError(
                "the model was exported for clips of another shape",
                where={"exported": f"{path}: {exported.about.shape}", "clip": f"{clip}: {found}"},
                fix=f"hm export MODEL --to onnx --latents {job.view.path} --clips {clip}",
            )  # fmt: skip
    return dataclasses.replace(job, exported=exported)


def _cache_of(name: str) -> Any:
    """diffusers' configuration of a cache. Raises UsageError for one that is not known."""
    from hmcli.core.caching import named_config

    try:
        return named_config(name)
    except ValueError as error:
        raise UsageError(str(error), where={"recipe": f"sample.cache={name}"}, fix="set sample.cache=none") from error


def _enable_cache(network: HydraTransformer3DModel, name: str) -> None:
    """Raises UsageError for a cache that is not known, or cannot be right with this model."""
    config = _cache_of(name)
    try:
        network.enable_cache(config)
    except ValueError as error:
        raise UsageError(str(error), where={"recipe": f"sample.cache={name}"}, fix="set sample.cache=none") from error


def inputs_read(job: Job, descriptions: Path | None) -> dict[str, str]:
    """Fingerprints of what sampling reads, by name, as a manifest records them."""
    inputs = {"latents": job.view.fingerprint, "model": job.model.fingerprint}
    inputs |= {} if descriptions is None else {"memory": read_manifest(descriptions).fingerprint}
    inputs |= {} if job.exported is None else {"exported": job.exported.fingerprint}
    earlier = [] if job.history is None else job.history.views[:-1]
    return inputs | {f"history {number}": part.manifest.fingerprint for number, part in enumerate(earlier)}


def check_history_guidance(weight: float, folder: ModelFolder) -> None:
    """Only a joint model that was trained with noise per frame has seen context masked by noise."""
    made = from_dict({key: folder.manifest.recipe[key] for key in ("model", "flow")})
    context, noise = made.model.memory.context, made.flow.noise
    if weight != 1 and (context, noise) != ("joint", "per-frame"):
        raise UsageError(
            f"sample.history_guidance={weight} needs a joint model trained with flow.noise=per-frame",
            where={"model": folder.path, "model.memory.context": context, "flow.noise": noise},
            fix="set sample.history_guidance=1, or train with ablations/dfot",
        )


def check_far_memory(sample: SampleConfig, folder: ModelFolder) -> None:
    """Raise UsageError for keys of old or far memory where there is none."""
    for name in ("max_history", "anchor_radius"):
        if (value := getattr(sample, name)) and recorded_model(folder.manifest.recipe).memory.context != "frozen":
            raise UsageError(
                f"sample.{name}={value:g} is for memory of frozen context, and this model's context is joint",
                where={"model": folder.path}, fix=f"set sample.{name}=0",
            )  # fmt: skip
    if sample.anchor_radius and not sample.chunk:
        raise UsageError(
            f"sample.anchor_radius={sample.anchor_radius:g} has no effect: a target made at once has one anchor",
            fix="set sample.chunk too",
        )


def sorted_memory(paths: tuple[Path, ...], folder: ModelFolder) -> tuple[list[Path], Path | None]:
    """Which of the artifacts are history of the model, in order of time, and which one describes slots only."""
    described = [path for path in paths if not holds_model(path)]
    kept = [path for path in paths if path not in described]
    if kept and folder.manifest.recipe["model"]["memory"]["context"] != "frozen":
        raise UsageError(
            "this model's context is joint: it sees the target and changes at every step, so no memory is kept for it",
            where={"model": folder.path, "memory": kept[0]}, fix="leave --memory out",
        )  # fmt: skip
    if len(described) > 1:
        raise UsageError(
            "two memory artifacts were made without a model: each describes the same slots",
            where={"memory": ", ".join(map(str, described))}, fix="give one of them",
        )  # fmt: skip
    return kept, described[0] if described else None


def policy_of(model: ModelFolder, recipe: Recipe) -> str:
    """The memory policy that samples: the model's own, or none where memory is turned off."""
    return recorded_model(model.manifest.recipe).memory.policy if recipe.sample.memory == "on" else NOTHING


def compares_views(model: ModelFolder, recipe: Recipe) -> bool:
    """Does what is read depend on what cameras see, and so on the recipe's GEOMETRY?"""
    made = recorded_model(model.manifest.recipe)
    return reads_geometry(dataclasses.replace(made.memory, policy=policy_of(model, recipe)), made.positions)


def check_latents(view: LatentsView, folder: ModelFolder, codec_path: str, reporter: Reporter) -> None:
    """The model must read what the latents hold: same codec, same text encoder; another size is said."""
    made_with, trained_with = view.manifest.recipe, folder.manifest.recipe
    for section in ("codec", "text"):
        wanted, found = trained_with[section]["name"], made_with[section]["name"]
        same = wanted == found
        if same and section == "codec":
            same = view.manifest.inputs["codec"] == codec_hash(codec_of(folder, codec_path))
        if not same:
            weights = "" if wanted != found else " with other weights"
            raise DataError(
                f"latents were encoded with {section} {found!r}{weights}, the model was trained with {wanted!r}",
                where={"latents": view.path, "model": folder.path}, fix="encode again with the model's recipe",
            )  # fmt: skip
    for key, here, there in (
        ("pixels", list(view.size), list(trained_with["data"]["size"])),
        ("rows of text", view.text_shape[0], trained_with["text"]["length"]),
    ):
        if here != there:
            reporter.warn(f"the latents have {here} {key}, the model was trained with {there}")


def generate_latents(job: Job, clip: LatentClip, number: int = 1) -> np.ndarray:
    """Target latents (C, Ft, h, w) float32 of one sample of a clip, all at once. Raises NotFiniteError."""
    return finite(generate_together(job, [(clip, number)])[0], clip, number)


def generate_together(job: Job, videos: Sequence[tuple[LatentClip, int]]) -> list[np.ndarray]:
    """Target latents of samples of clips of one shape, (C, Ft, h, w) float32 each: one run of the model for all.

    Each has the noise that it has alone; sums may round otherwise. Numbers that are not finite are left to the caller.
    """
    of_clip = frozen_past if job.network.config.context == "frozen" else joint_past
    past = _abreast([of_clip(job, clip) for clip, _ in videos])
    seeds = [sample_seed(job.recipe.seed, clip.id, number) for clip, number in videos]
    return _denoised(job, [clip for clip, _ in videos], seeds, videos[0][0].target, past)


def denoised(
    job: Job, clip: LatentClip, number: int, seed: int, frames: int, past: dict[str, Any]
) -> np.ndarray:  # fmt: skip
    """Latents (C, `frames`, h, w) float32 from the noise of `seed`; `past` are the arguments of the pipeline that
    bring context, memory and cameras. Raises NotFiniteError."""
    return finite(_denoised(job, [clip], [seed], frames, past)[0], clip, number)


def _denoised(
    job: Job, clips: Sequence[LatentClip], seeds: Sequence[int], frames: int, past: dict[str, Any]
) -> list[np.ndarray]:
    import torch

    pipeline, negative = job.pipeline, None
    if job.sample.guidance != 1:
        negative = tensor_of(job.negative)[None].repeat(len(clips), 1, 1)
    with part(DENOISING):
        made: Any = pipeline(
            generator=[torch.Generator().manual_seed(seed) for seed in seeds], num_frames=frames,
            size=job.view.latent_size, num_inference_steps=job.sample.steps, guidance_scale=job.sample.guidance,
            together=job.sample.branches == "together",
            prompt_embeds=torch.stack([tensor_of(clip.text) for clip in clips]), negative_prompt_embeds=negative,
            **past,
        )  # fmt: skip
    return [latents.float().cpu().numpy() for latents in made.frames]


def _abreast(pasts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the pipeline is given of several samples."""
    import torch

    first, *others = pasts
    if not others:
        return first
    joined = {**first, "camera": torch.cat([past["camera"] for past in pasts])}
    if "context_latents" in first:
        joined["context_latents"] = torch.cat([past["context_latents"] for past in pasts])
    for name in ("memory", "retrieval"):
        if first.get(name) is not None:
            joined[name] = first[name].abreast([past[name] for past in others])
    return joined


def finite(latents: np.ndarray, clip: LatentClip, number: int) -> np.ndarray:
    """The same latents. Raises NotFiniteError."""
    if not np.isfinite(latents).all():
        where = {"clip": clip.id} if number == 1 else {"clip": clip.id, "sample": number}
        raise NotFiniteError("the model produced numbers that are not finite", where=where)
    return latents


def inputs_of(job: Job, clip: LatentClip, chunk: int = 0) -> RetrievalInputs | None:
    """What the model's policy needs for this clip, or for a chunk of its target."""
    seed = clip_seed(job.recipe.seed, f"{clip.id} retrieval" + (f" {chunk}" if chunk else ""))
    return retrieval_inputs(
        [clip], job.view, job.memory, seed=seed, device=job.device, described=job.described, positions=job.positions
    )


def joint_past(job: Job, clip: LatentClip) -> dict[str, Any]:
    """Arguments of the pipeline for a model that reads context latents at every step."""
    return {
        "context_latents": tensor_of(clip.context_latents)[None].to(job.device),
        "camera": tensor_of(clip.camera)[None].to(job.device),
        "history_guidance_scale": job.sample.history_guidance, "history_level": job.sample.history_level,
        "retrieval": inputs_of(job, clip),
    }  # fmt: skip


def frozen_past(job: Job, clip: LatentClip) -> dict[str, Any]:
    """Arguments of the pipeline for a model that reads memory: of the artifacts, else of the clip's context latents."""
    inputs = inputs_of(job, clip)
    if job.history is None:
        anchor = anchor_of(clip)
        network = job.network
        with part(CONTEXT):
            memory = compute_memory(network, clip, anchor, inputs, job.device)
    else:
        memory, anchor = job.history.load(clip.id, job.view.latents_hash(clip.id), job.device, job.network.dtype)
        inputs = after_history(inputs, job.memory, clip.id, job.history.descriptions(clip.id))
    cameras = rows_from(clip.world_poses()[clip.context :], anchor, job.device)
    return {"memory": memory, "camera": cameras, "retrieval": inputs}
