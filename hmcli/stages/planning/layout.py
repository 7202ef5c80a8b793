"""What `hm plan` says of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from hmcli.stages.planning.disk import Disk
from hmcli.stages.planning.remedies import Remedy
from hmcli.stages.planning.shapes import ClipShape
from hmcli.stages.planning.times import Times


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one rank during a step, by part, and what it may take."""

    weights: float
    gradients: float
    optimizer: float
    average: float
    activations: float
    activations_with_checkpointing: float
    activations_without_checkpointing: float
    attention_at_work: float  # of one layer, beyond what it leaves
    peak: float
    peak_with_sharding: float  # weights, gradients, optimizer and average spread over all ranks
    room: float
    fits: bool
    vae_weights: float
    vae_encode_peak: float
    vae_decode_peak: float
    text_encoder_weights: float
    sampling_peak: float
    offloaded: float = 0.0  # shares of a rank in the machine's memory instead (train.offload)
    videos: float = 0.0  # clips that lie in the machine's memory meanwhile; on a CPU the peak counts them


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one recipe takes. Numbers of what a part does not have are 0."""

    recipe: str
    part: str  # train.part
    clip: ClipShape
    device: str
    world: int
    clips_at_once: int  # of a rank: a piece of its share of the batch
    parameters: int
    parameters_trained: int
    memory: Memory
    disk: Disk
    times: Times
    remedies: tuple[Remedy, ...]
