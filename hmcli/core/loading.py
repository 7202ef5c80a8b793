"""How weights come into a model of diffusers: by its own ways, and then into aligned memory (hmcli.aligned).

Known are weights of a folder, adapters, and groups of weights that stay on disk until a forward needs them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusers.hooks.group_offloading import ModuleGroup
from safetensors import safe_open
from torch import nn

from hmcli.aligned import own, own_weights


class AlignedLoading:
    """What a model does beside `ModelMixin` and `PeftAdapterMixin`, which come after it among its bases."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """diffusers' own; on the CPU the weights end in memory of their own."""
        loaded = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        own_weights(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    def load_lora_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """diffusers' own; the adapter ends in memory of its own, weights that lie in a file stay there.

        Raises ValueError for a half of a pair alone: peft would fill the other with random numbers.
        """
        refuse_half_pairs(_names_of(*args, **kwargs))
        loaded = super().load_lora_adapter(*args, **kwargs)  # type: ignore[misc]
        own_weights(self, ".lora_")  # type: ignore[arg-type]
        return loaded

    def enable_group_offload(self, *args: Any, **kwargs: Any) -> None:
        """diffusers' own; what a group fetches from disk ends in memory of its own."""
        super().enable_group_offload(*args, **kwargs)  # type: ignore[misc]
        own_fetched_weights(self)  # type: ignore[arg-type]


def _names_of(source: Any, *_: Any, weight_name: str | None = None, **__: Any) -> list[str]:
    """Names of an adapter's weights, where they lie here (`load_lora_adapter` takes a dict, a file or a folder)."""
    if isinstance(source, dict):
        return list(source)
    file = Path(source) / weight_name if weight_name is not None and Path(source).is_dir() else Path(source)
    if file.suffix != ".safetensors" or not file.is_file():
        return []  # diffusers says what it can read
    with safe_open(str(file), framework="pt") as opened:
        return list(opened.keys())


def refuse_half_pairs(names: Iterable[str]) -> None:
    """Raise ValueError naming the weights of an adapter whose other half is not there."""
    known = set(names)
    halves = [
        name
        for name in sorted(known)
        for mine, other in ((".lora_A", ".lora_B"), (".lora_B", ".lora_A"))
        if mine in name and name.endswith("weight") and name.replace(mine, other) not in known
    ]
    if halves:
        raise ValueError(f"{len(halves)} weights of the adapter have no other half: {', '.join(halves[:6])}")


class _OwningGroup(ModuleGroup):
    """Weights that come and go together; fetched ones are no views into their mapped file."""

    def _onload_from_disk(self) -> None:
        super()._onload_from_disk()
        for tensor in self.key_to_tensor.values():
            if tensor.device.type == "cpu":
                tensor.data = own(tensor.data)


def own_fetched_weights(model: nn.Module) -> None:
    """After diffusers has divided a model into groups: whatever they fetch from disk ends in memory of its own."""
    for module in model.modules():
        registry: Any = getattr(module, "_diffusers_hook", None)
        hook = None if registry is None else registry.get_hook("group_offloading")
        if hook is not None and hook.group.offload_to_disk_path is not None:
            hook.group.__class__ = _OwningGroup
