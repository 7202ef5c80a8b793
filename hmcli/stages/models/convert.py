"""`hm convert`: weights from anywhere into a checkpoint of hm, and back into released names or a diffusers folder.

Everything is checked before anything is written: names, shapes, settings. Tensors stay in their files until they are
written. What a plain Wan transformer lacks starts as published and is listed in the checkpoint's manifest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hmcli.codecs.places import VAE
from hmcli.contracts import Reporter, StageResult
from hmcli.errors import NotFiniteError, UsageError
from hmcli.hub import fetch_hint
from hmcli.recipe.readers import Readers
from hmcli.recipe.reading import check_overrides, to_dict
from hmcli.recipe.sections import Recipe
from hmcli.runtime import pick_dtype
from hmcli.stages.models.checkpoint_folder import write_diffusers_folder
from hmcli.stages.models.folders import model_arguments
from hmcli.stages.models.identity import codec_hash, text_hash
from hmcli.stages.models.layout import (
    CHECKPOINT,
    CODEC,
    WEIGHTS,
    CheckpointAttributes,
    ConvertedAttributes,
    TrainedWith,
)
from hmcli.stages.models.settings import settle
from hmcli.stages.models.sources import Source, look
from hmcli.stages.shared.outcome import planned, result_of
from hmcli.stages.shared.typed import to_json
from hmcli.store.adapters import Adapter, changed, read_adapter
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.finite import require_finite_weights
from hmcli.store.hashing import HashCache, hash_file, hash_json
from hmcli.store.names import ADDED_TO_WAN, listed, to_released
from hmcli.store.weights import about_weights, check_keys, check_target, map_state_dict, save_weights, shapes_of

if TYPE_CHECKING:
    from torch import Tensor

    from hmcli.core.transformer import HydraTransformer3DModel

Target = Literal["checkpoint", "released", "diffusers"]
_MADE_FROM = "hmcli.made_from"
_RELEASED = {
    "policy": "affinity", "affinity": "pooled", "context": "joint", "top_k": 10, "window": 5, "kernel": (2, 4, 4),
    "spans": "released", "flow_target": "noise_minus_clean", "positions": "screen",
}  # fmt: skip  # what the released code does with any weights


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A transformer that fits its recipe, ready to be written."""

    source: Source
    recipe: Recipe
    arguments: dict[str, Any]  # of HydraTransformer3DModel
    dtype: str | None  # None: as in the source
    lora: Path | None

    @cached_property
    def fresh(self) -> list[str]:
        """Names of the weights the source lacks because it is plain Wan."""
        return sorted(set(shapes_of(self._skeleton().state_dict())) - set(self.source.state))

    @cached_property
    def adapter(self) -> Adapter | None:
        """What `lora` changes, layer by layer."""
        return None if self.lora is None else read_adapter(self.lora, shapes_of(self._skeleton().state_dict()))

    def check(self) -> None:
        """Raise DataError listing everything that does not fit."""
        expected = shapes_of(self._skeleton().state_dict())
        may_lack = () if self.source.has_memory else ADDED_TO_WAN
        check_keys(expected, shapes_of(self.source.state), where=self.source.path, may_lack=may_lack)

    @property
    def form(self) -> str:
        """What the written weights are made of, for people."""
        return self.source.form + (f", with the adapter {self.lora}: {self.adapter.told}" if self.adapter else "")

    def key(self) -> str:
        """Hash of all that the written weights depend on but the recipe."""
        cache = HashCache()
        files = [hash_file(file, cache=cache) for file in self.source.files]
        adapted = () if self.adapter is None else self.adapter.files
        lora = [hash_file(file, cache=cache) for file in adapted]
        taken = {"taken": self.source.taken} if self.source.others else {}  # otherwise the files say it
        return hash_json({"files": sorted(files), "dtype": self.dtype, "lora": lora or None} | taken)

    def parts(self) -> TrainedWith:
        """Hashes of codec and text encoder, where they are known."""
        codec, text = self.recipe.codec, self.recipe.text
        return TrainedWith(
            codec=codec_hash(codec) if codec.path or codec.name == "mini" else None,
            text=text_hash(text) if text.path or text.name == "mini" else None,
        )

    def inputs(self) -> dict[str, str]:
        codec = self.parts().codec
        return {"weights": self.key()} | ({} if codec is None else {"codec": codec})

    def model(self, *, upgrade: bool = True) -> HydraTransformer3DModel:
        """The model with its weights; without `upgrade` what a plain Wan source lacks has no values."""
        state = dict(self.source.state)
        if upgrade and self.fresh:
            like = state["proj_out.weight"].dtype
            state |= {name: part.to(like) for name, part in fresh_parts(self.arguments, self.recipe.seed).items()}
        if self.dtype is not None:
            state = {name: tensor.to(pick_dtype(self.dtype)) for name, tensor in state.items()}
        model: Any = self._skeleton()
        model.load_state_dict(state, assign=True, strict=False)
        if self.adapter is not None:
            fused = {name: changed(name, weight, self.adapter) for name, weight in model.state_dict().items()}
            model.load_state_dict(fused, assign=True)
        return model

    def state(self) -> dict[str, Tensor]:
        """The weights without any that the source lacks, under our names."""
        changes = {} if self.adapter is None else self.adapter.changes
        if on := sorted(set(changes) & {name.rpartition(".")[0] for name in self.fresh}):
            raise UsageError(
                "the adapter changes parts that plain Wan has not",
                where={"lora": self.lora, "source": self.source.path, f"layers ({len(on)})": listed(on)},
                fix="make a checkpoint of it (--to checkpoint), or give the HyDRA weights it was trained on",
            )
        weights = self.model(upgrade=False).state_dict()
        return {name: tensor for name, tensor in weights.items() if not tensor.is_meta}

    def _skeleton(self) -> HydraTransformer3DModel:
        import torch

        from hmcli.core.transformer import HydraTransformer3DModel

        try:
            with torch.device("meta"):
                return HydraTransformer3DModel(**self.arguments)
        except ValueError as error:
            raise UsageError(str(error), where={"source": self.source.path}, fix="--set other values") from error


def run(
    source: Path,
    *,
    to: Target | None,
    out: Path,
    recipe: str | None,
    overrides: list[str],
    dtype: str | None,
    lora: Path | None,
    force: bool,
    reporter: Reporter,
    dry_run: bool = False,
    part: str = "",
) -> StageResult:
    """Convert `source`; see `hm convert --help`. Nothing is written unless everything fits."""
    if lora is not None and not lora.exists():
        raise UsageError(
            "there is no such adapter", where={"lora": lora}, fix=f"name a file or a folder{fetch_hint(lora)}"
        )
    found = look(source, part)
    reporter.note(f"{source} is {found.form}")
    for told in found.left_out:
        reporter.warn(told)
    if found.part == "vae":
        if to not in (None, "diffusers") or lora is not None or recipe is not None or overrides:
            raise UsageError(
                "of a VAE a diffusers folder is made, with no other setting than --dtype", where={"source": source},
                fix="leave out --to, --lora, --recipe and --set",
            )  # fmt: skip
        with _naming(found):
            return _to_codec(found, out, dtype, force, reporter, dry_run)
    target = to or "checkpoint"
    if target != "released" or found.has_memory:  # the released code's settings matter to weights that have memory
        readers: Readers = {"convert": None, target: None}
    else:
        readers = {"convert": None}
    check_overrides(overrides, readers, f"hm convert --to {target}")
    settled, channels, text_dim = settle(found, recipe, overrides, reporter)
    arguments = model_arguments(settled, channels=channels, text_dim=text_dim)
    if "eps" in found.config:
        arguments["eps"] = float(found.config["eps"])
    plan = Plan(source=found, recipe=settled, arguments=arguments, dtype=dtype, lora=lora)
    plan.check()
    if plan.adapter is not None:
        reporter.note(f"{lora}: {plan.adapter.told}")
    with _naming(found):
        return _WRITERS[target](plan, out, force, reporter, dry_run)


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Say of weights that are not finite where they came from."""
    try:
        yield
    except NotFiniteError as error:
        error.where = {"source": source.path, **error.where}
        error.fix = "use other weights; with --dtype float16, another type: it ends at 65504"
        raise


def fresh_parts(arguments: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """What HyDRA adds to plain Wan, initialised as a new model initialises it; drawn from `seed`, block by block."""
    import torch

    from hmcli.core.transformer import HydraTransformer3DModel

    small = {"num_layers": 1, "ffn_dim": 1, "freq_dim": 2, "text_dim": 1}  # parts that are not looked at
    made: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for block in range(arguments["num_layers"]):
            state = HydraTransformer3DModel(**arguments | small).blocks[0].state_dict()
            made |= {f"blocks.{block}.{n}": part for n, part in state.items() if n.startswith(ADDED_TO_WAN)}
    return made


# --- a checkpoint of hm ----------------------------------------------------------------------------------------------


def _to_checkpoint(plan: Plan, out: Path, force: bool, reporter: Reporter, dry_run: bool) -> StageResult:
    settled = plan.recipe
    if not (plan.recipe.codec.path or plan.recipe.codec.name == "mini"):
        reporter.note("no VAE goes with it: --set codec.path=... (generating videos needs one)")
    if plan.fresh:
        reporter.note(f"{len(plan.fresh)} weights that plain Wan has not start fresh, from seed {settled.seed}")

    def write(folder: Path) -> CheckpointAttributes:
        model = plan.model()
        write_diffusers_folder(folder, model, settled)
        return CheckpointAttributes(
            parameters=sum(p.numel() for p in model.parameters()), size=settled.data.size,
            source=plan.form, fresh=tuple(plan.fresh), trained_with=plan.parts(),
        )  # fmt: skip

    return _write_artifact(
        CHECKPOINT, out, write, recipe=to_dict(settled), inputs=plan.inputs(), seed=settled.seed, force=force,
        reporter=reporter, dry_run=dry_run,
    )  # fmt: skip


def _write_artifact(
    kind: str,
    out: Path,
    write: Callable[[Path], CheckpointAttributes | ConvertedAttributes],
    *,
    recipe: dict[str, Any],
    inputs: dict[str, str],
    seed: int,
    force: bool,
    reporter: Reporter,
    dry_run: bool,
) -> StageResult:
    """Fill an artifact by `write`, which returns its attributes; one that is there already, and whole, is kept."""
    if dry_run:
        return planned(out, kind, f"a {kind}", reporter)
    with ArtifactWriter(out, kind, recipe=recipe, inputs=inputs, seed=seed, reporter=reporter, force=force) as writer:
        if not force and writer.unchanged([]):
            reporter.note("converted already: kept")
            return result_of(writer, writer.finish([]))
        attributes = write(writer.emptied())
        counts = {"parameters": attributes.parameters}
        return result_of(writer, writer.finish([], counts=counts, attributes=to_json(attributes)))


# --- released names --------------------------------------------------------------------------------------------------


def _to_released(plan: Plan, out: Path, force: bool, reporter: Reporter, dry_run: bool) -> StageResult:
    """One file under the released names. It has no manifest; what it was made from is noted in the file."""
    check_target(out)
    if plan.source.has_memory:
        _say_other_settings(plan, reporter)
    key = hash_json([plan.key(), "released"])
    result = StageResult(path=out.resolve(), kind="weights")
    if out.is_file() and not force:
        if about_weights(out).get(_MADE_FROM) != key:
            raise UsageError("the file is there already, made from something else", where={"file": out},
                             fix="choose another --out, or --force to replace it")  # fmt: skip
        reporter.note("converted already: kept")
        return result
    if dry_run:
        return dataclasses.replace(result, details={"dry_run": True})
    save_weights(out, to_released(plan.state()), {_MADE_FROM: key})
    return result


def _say_other_settings(plan: Plan, reporter: Reporter) -> None:
    """The released code has its settings written into it; weights trained under others behave differently there."""
    other = [
        f"{name} {_shown(wanted)} (here {_shown(plan.arguments[name])})"
        for name, wanted in _RELEASED.items()
        if _shown(plan.arguments[name]) != _shown(wanted)
    ]
    if other:
        reporter.warn(f"the released code runs any weights with its own settings: {', '.join(other)}")


def _shown(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


# --- a diffusers folder of plain Wan ---------------------------------------------------------------------------------


def _to_diffusers(plan: Plan, out: Path, force: bool, reporter: Reporter, dry_run: bool) -> StageResult:
    """A folder that diffusers loads as its own Wan transformer; refused where that would lose something."""
    state = plan.state()
    if plan.source.has_memory:
        _refuse_losses(plan, state)
        state = {name: tensor for name, tensor in state.items() if not any(part in name for part in ADDED_TO_WAN)}

    def write(folder: Path) -> ConvertedAttributes:
        model = _plain_wan(plan.arguments, state)
        model.save_pretrained(folder)
        return ConvertedAttributes(parameters=sum(p.numel() for p in model.parameters()), source=plan.form)

    return _write_artifact(
        WEIGHTS, out, write, recipe={}, inputs={"weights": plan.key()}, seed=0, force=force, reporter=reporter,
        dry_run=dry_run,
    )  # fmt: skip


def _refuse_losses(plan: Plan, state: dict[str, Tensor]) -> None:
    """Raise UsageError naming what a plain Wan transformer cannot do that this model does."""
    import torch

    wanted = {"policy": "all", "context": "joint", "flow_target": "noise_minus_clean", "positions": "screen"}
    lost = {
        f"{name}={plan.arguments[name]}": f"plain Wan has {value}"
        for name, value in wanted.items()
        if plan.arguments[name] != value
    }
    trained = []
    for name, tensor in state.items():
        if ".projector." in name and name.endswith("weight"):
            same = torch.equal(tensor, torch.eye(len(tensor), dtype=tensor.dtype))
        else:
            same = not (".camera." in name or ".projector." in name) or not tensor.any()
        if not same:
            trained.append(name)
    if trained:
        lost[f"trained ({len(trained)})"] = listed(trained)
    if lost:
        raise UsageError(
            "as a plain Wan transformer this model would lose something", where=lost,
            fix="convert it --to released, or keep it as it is; --set model.memory.policy=all makes it dense",
        )  # fmt: skip


def _plain_wan(arguments: dict[str, Any], state: dict[str, Tensor]) -> Any:
    import torch
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    shared = (
        "num_layers", "num_attention_heads", "attention_head_dim", "ffn_dim", "freq_dim", "text_dim", "in_channels",
        "out_channels", "patch_size", "eps",
    )  # fmt: skip
    with torch.device("meta"):
        model: Any = WanTransformer3DModel(**{name: arguments[name] for name in shared if name in arguments})
    check_keys(shapes_of(model.state_dict()), shapes_of(state))
    model.load_state_dict(state, assign=True)
    require_finite_weights(state)
    return model


# --- a VAE -----------------------------------------------------------------------------------------------------------


def _to_codec(
    source: Source, out: Path, dtype: str | None, force: bool, reporter: Reporter, dry_run: bool
) -> StageResult:
    """A codec artifact with vae/, a diffusers folder: `codec.path` takes it."""
    from hmcli.codecs.wan_files import load_wan_vae

    kept = next(iter(map_state_dict(source.path).values())).dtype
    vae = load_wan_vae(source.path, kept if dtype is None else pick_dtype(dtype))

    def write(folder: Path) -> ConvertedAttributes:
        require_finite_weights(vae.state_dict())
        vae.save_pretrained(folder / VAE)
        return ConvertedAttributes(parameters=sum(p.numel() for p in vae.parameters()), source=source.form)

    cache = HashCache()
    key = hash_json({"files": sorted(hash_file(file, cache=cache) for file in source.files), "dtype": dtype})
    return _write_artifact(
        CODEC, out, write, recipe={}, inputs={"weights": key}, seed=0, force=force, reporter=reporter,
        dry_run=dry_run,
    )  # fmt: skip


_WRITERS = {"checkpoint": _to_checkpoint, "released": _to_released, "diffusers": _to_diffusers}
