"""Where a codec's files lie: `codec.path` names its VAE's own folder, or one that holds vae/, or the original file.

A codec artifact, a checkpoint and a diffusers pipeline all hold vae/.
"""

from __future__ import annotations

from pathlib import Path

VAE = "vae"
CONFIG = "config.json"


def vae_folder(path: Path) -> Path:
    """The VAE's own folder in the one at `path`, or `path` itself."""
    return path / VAE if (path / VAE / CONFIG).is_file() else path
