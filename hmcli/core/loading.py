"""How weights come into a model of diffusers: by its own ways, and then into aligned memory (hmcli.aligned).

Known are weights of a folder, adapters, and groups of weights that stay on disk until a forward needs them.
"""

from __future__ import annotations

from typing import Any

from diffusers.hooks.group_offloading import ModuleGroup
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
        """diffusers' own; the adapter ends in memory of its own, weights that lie in a file stay there."""
        loaded = super().load_lora_adapter(*args, **kwargs)  # type: ignore[misc]
        own_weights(self, ".lora_")  # type: ignore[arg-type]
        return loaded

    def enable_group_offload(self, *args: Any, **kwargs: Any) -> None:
        """diffusers' own; what a group fetches from disk ends in memory of its own."""
        super().enable_group_offload(*args, **kwargs)  # type: ignore[misc]
        own_fetched_weights(self)  # type: ignore[arg-type]


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
