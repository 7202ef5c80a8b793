"""What clips of a recipe, or of a latents artifact, are like: the numbers that memory and time follow from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmcli.codecs.places import VAE
from hmcli.contracts import TIME_STRIDE
from hmcli.errors import UsageError
from hmcli.recipe.sections import Recipe
from hmcli.stages.latents.view import open_latents
from hmcli.store.files import read_json

UMT5 = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "d_kv": 64, "vocab_size": 256384}  # of Wan
_CHANNELS = 16  # of Wan's VAE and of the packaged one


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """One clip as latents, and how many there are."""

    context: int  # latent frames
    target: int
    height: int  # latent pixels
    width: int
    stride: int  # pixels of a latent pixel
    channels: int
    text_rows: int
    text_dim: int
    clips: int

    @property
    def frames(self) -> int:
        return self.context + self.target

    @property
    def values(self) -> int:
        """Numbers in the latents of a clip."""
        return self.channels * self.frames * self.height * self.width

    @property
    def video_frames(self) -> tuple[int, int]:
        """Frames of the context's and the target's video."""
        return (self.context - 1) * TIME_STRIDE + 1, (self.target - 1) * TIME_STRIDE + 1

    @property
    def pixels(self) -> tuple[int, int]:
        return self.height * self.stride, self.width * self.stride


def shape_of(recipe: Recipe) -> ClipShape:
    """Clips as the recipe renders (or cuts) and encodes them."""
    cut, codec = recipe.data.split, recipe.codec
    context, target = (cut.context, cut.target) if cut else (recipe.world.context_frames, recipe.world.target_frames)
    height, width = (side // codec.stride for side in recipe.data.size)
    return ClipShape(
        context=1 + (context - 1) // TIME_STRIDE, target=1 + (target - 1) // TIME_STRIDE, height=height, width=width,
        stride=codec.stride, channels=codec.channels if codec.name == "blocks" else _CHANNELS,
        text_rows=recipe.text.length, text_dim=text_config(recipe)["d_model"], clips=recipe.world.clips,
    )  # fmt: skip


def shape_of_latents(path: Path) -> ClipShape:
    """Clips as they lie in a latents artifact; of several shapes the largest."""
    view = open_latents(path)
    whole = [group.shape for group in view.groups if group.shape.has_target]
    if not whole:
        raise UsageError("no clip has target frames to learn from", where={"latents": path})
    largest = max(whole, key=lambda shape: shape.context + shape.target)
    rows, width = view.text_shape
    return ClipShape(
        context=largest.context, target=largest.target, height=view.latent_size[0], width=view.latent_size[1],
        stride=view.attributes.stride, channels=view.channels, text_rows=rows, text_dim=width, clips=len(view.ids()),
    )  # fmt: skip


def text_config(recipe: Recipe) -> dict[str, int]:
    """Sizes of the text encoder: those in its folder, else of Wan's UMT5; `mini` has nothing but a width."""
    if recipe.text.name == "mini":
        from hmcli.codecs.text import MINI_DIM

        return {"d_model": MINI_DIM}
    file = Path(recipe.text.path) / "text_encoder" / "config.json"
    return {name: int(value) for name, value in read_json(file).items() if name in UMT5} if file.is_file() else UMT5


def text_parameters(recipe: Recipe) -> int:
    """Weights of the text encoder; `mini` has none."""
    if recipe.text.name == "mini":
        return 0
    of = text_config(recipe)
    inner = of["num_heads"] * of["d_kv"]
    block = 4 * of["d_model"] * inner + 3 * of["d_model"] * of["d_ff"] + 2 * of["d_model"] + 32 * of["num_heads"]
    return of["vocab_size"] * of["d_model"] + of["num_layers"] * block + of["d_model"]


def vae_config(recipe: Recipe) -> dict[str, Any] | None:
    """Settings of the VAE: those in its folder; {} is Wan2.1's own; None: the codec has no network."""
    if recipe.codec.name == "blocks":
        return None
    from hmcli.stages.models.folders import PACKAGED

    packaged = str(PACKAGED / VAE) if recipe.codec.name == "mini" else ""
    file = Path(recipe.codec.path or packaged) / "config.json"
    return dict(read_json(file)) if file.is_file() else {}
