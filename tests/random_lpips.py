"""LPIPS's two files of a network, under their published names, with random weights."""

from __future__ import annotations

from pathlib import Path


def write_random_lpips(folder: Path, network: str) -> Path:
    import torch

    from hmcli.metrics.lpips import FILES, WIDTHS, Trunk

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    trunk, heads = FILES[network]
    torch.save(Trunk(network).state_dict(), folder / trunk)
    torch.save(
        {f"lin{number}.model.1.weight": torch.rand(1, width, 1, 1) for number, width in enumerate(WIDTHS[network])},
        folder / heads,
    )
    return folder
