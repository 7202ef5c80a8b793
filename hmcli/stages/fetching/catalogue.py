"""What `hm fetch` knows by a short name: where it is published, which of its files are needed, what to do with them.

Revisions are not pinned here: no commit could be verified when this was written. The first fetch resolves `main` to a
commit and records it with the hash of every file; later fetches hold to the record (docs/weights.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from hmcli.hub import Repository

_VISION = ("config.json", "preprocessor_config.json", "model*.safetensors*", "pytorch_model*.bin*", "README.md")
_PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name."""

    repository: Repository
    what: str
    then: str  # what to do next
    licence: str  # as its makers state it; another one on the hub is said
    include: tuple[str, ...] = ("*",)  # patterns of files that are needed
    exclude: tuple[str, ...] = ()


CATALOGUE: dict[str, Entry] = {
    "wan2.1-1.3b": Entry(
        repository=Repository(kind="model", id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        what="Wan2.1 text-to-video 1.3B as a diffusers pipeline: transformer, VAE, UMT5",
        then="hm convert PATH --out wan; codec.path=PATH/vae, text.path=PATH",
        licence="apache-2.0",
        include=(*(f"{part}/*" for part in _PARTS), "model_index.json", "README.md", "LICENSE*"),
    ),
    "hydra": Entry(
        repository=Repository(kind="model", id="H-EmbodVis/HyDRA"),
        what="the released HyDRA weights (on Wan2.1 1.3B)",
        then="hm convert PATH --recipe wan1.3b/hydra --out hydra",
        licence="apache-2.0",
        exclude=("*.mp4", "*.gif", "*.png", "*.jpg"),
    ),
    "hm-world": Entry(
        repository=Repository(kind="dataset", id="KlingTeam/HM-World"),
        what="the HM-World data set: split archives, large (--dry-run says how large, --include takes a part)",
        then="hm dataset unpack PATH --out data",
        licence="apache-2.0",
    ),
    "clip": Entry(
        repository=Repository(kind="model", id="openai/clip-vit-base-patch32"),
        what="CLIP ViT-B/32, for background consistency",
        then="--set eval.backbone=clip --set eval.backbone_path=PATH",
        licence="",
        include=_VISION,
    ),
    "dino": Entry(
        repository=Repository(kind="model", id="facebook/dino-vitb16"),
        what="DINO ViT-B/16, for subject consistency",
        then="--set eval.backbone=dino --set eval.backbone_path=PATH",
        licence="apache-2.0",
        include=_VISION,
    ),
    "lpips": Entry(
        repository=Repository(kind="model", id="timm/vgg16.tv_in1k"),
        what="VGG16 of torchvision (IMAGENET1K_V1) as safetensors: the trunk of LPIPS (vgg), but not all of LPIPS",
        then="eval.lpips_path wants the published files, which are on no hub: alexnet-owt-7be5be79.pth or "
        "vgg16-397923af.pth from https://download.pytorch.org/models/ (the sha256 of each begins as its name says) and "
        "alex.pth or vgg.pth from the package lpips (docs/metrics.md)",
        licence="bsd-3-clause",
        include=("config.json", "model*.safetensors*", "pytorch_model*.bin*", "README.md"),
    ),
}
