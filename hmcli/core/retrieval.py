"""Retrieval: which frames and memory slots may each query frame attend to?

Paper: Eq. 4 and 5, docs/paper-map.md row "retrieval". Known differences: docs/parity.md, "affinity" and "mask".
Policies are in hmcli.core.policies, one to a file; here is what they share: question and answer, windows, scores.
Shape letters here: B batch, F query frames, A all frames so far, N frames read, P tokens of a frame, M memory slots,
Q tokens of a slot, C channels (all heads together), W frames of a window, K slots (or frames) kept, R entries of a
camera row. Frame numbers are absolute latent frames: context starts at 0.

A policy is a function from `RetrievalRequest` to `Reading`, found by name through `hmcli.registry`; other packages
may bring their own. `@needs(...)` says what a policy uses, so that nothing else is computed or kept for it, and what of
its work is alike for all blocks: that is done once, before they run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from hmcli.core.camera import Lens
from hmcli.core.memory import MemorySlots
from hmcli.core.precision import without_autocast
from hmcli.core.reading import FramesRead, frames_read, inside_window, local_window, window_frames

MASKED = float("-inf")  # score of a slot that lies wholly inside the window, below all others in every type
Made = TypeVar("Made")
SLOTS = "slots"  # a need: memory slots are made and offered
ALL_FRAMES = "all frames"  # a need: frozen context keeps every full-resolution frame, not only the tail
NEAR_SLOTS = "slots inside the window"  # what of a run's memo says which slots lie wholly inside a window
CONTEXT_FRAMES = "context frames"  # a need: `top_k` counts full-resolution context frames, so many must exist


@dataclass(frozen=True, kw_only=True)
class RetrievalInputs:
    """What a policy may need beyond queries and slots; a policy names the fields it uses in `@needs`."""

    intrinsics_B4: Tensor | None = None  # fx, fy, cx, cy in pixels
    image_size: tuple[int, int] | None = None  # height, width in pixels
    near: float | None = None  # metres
    far: float | None = None  # metres
    overlap_BAM: Tensor | None = None  # share of what frame a sees that slot m saw; NaN or beyond it: not known yet
    visibility_BM: Tensor | None = None  # slots that show a subject which is hidden later; slots beyond M show none
    generator: torch.Generator | Sequence[torch.Generator] | None = None  # on the CPU; or one for each sample

    def repeated(self, times: int) -> RetrievalInputs:
        """The inputs of the same samples `times` over, one after the other."""

        def again(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.repeat(times, *[1] * (values.ndim - 1))

        chance = self.generator
        return replace(
            self, intrinsics_B4=again(self.intrinsics_B4), overlap_BAM=again(self.overlap_BAM),
            visibility_BM=again(self.visibility_BM),
            generator=[*chance] * times if isinstance(chance, Sequence) else chance,
        )  # fmt: skip

    def abreast(self, others: Sequence[RetrievalInputs]) -> RetrievalInputs:
        """The inputs of these samples and of others, one after the other; each chooses by chance as it would alone."""
        every = (self, *others)

        def all_of(name: str) -> Tensor | None:
            values = [getattr(inputs, name) for inputs in every]
            return None if values[0] is None else torch.cat(values)

        chances = [[inputs.generator] if isinstance(inputs.generator, torch.Generator) else inputs.generator
                   for inputs in every]  # fmt: skip
        return replace(
            self, intrinsics_B4=all_of("intrinsics_B4"), overlap_BAM=all_of("overlap_BAM"),
            visibility_BM=all_of("visibility_BM"),
            generator=None if chances[0] is None else [one for of in chances for one in of or ()],
        )  # fmt: skip

    def share(self, part: slice) -> RetrievalInputs:
        """The inputs of some samples. Chance must be each sample's own, or their choices would be others."""

        def of(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[part]

        chance = self.generator
        if isinstance(chance, torch.Generator):
            raise ValueError("one generator for all samples cannot be divided among them: give one for each")
        return replace(
            self, intrinsics_B4=of(self.intrinsics_B4), overlap_BAM=of(self.overlap_BAM),
            visibility_BM=of(self.visibility_BM), generator=None if chance is None else chance[part],
        )  # fmt: skip

    def lens(self) -> Lens:
        """What the clips' cameras see. Raises ValueError when a part of it was not given."""
        if self.intrinsics_B4 is None or self.image_size is None or self.near is None or self.far is None:
            raise ValueError("fields of view need retrieval inputs intrinsics_B4, image_size, near and far")
        return Lens(intrinsics_B4=self.intrinsics_B4, size=self.image_size, near=self.near, far=self.far)


@dataclass(frozen=True, kw_only=True)
class RetrievalRun:
    """One run of all blocks over a stretch of frames: what a policy is told that is alike for all of them."""

    part: str  # which run of the blocks: joint, context or target
    first_frame: int  # number of the first query frame
    total_frames: int  # frames that exist so far: windows end before this number
    num_context: int  # the first frames, which are context
    window: int
    top_k: int
    affinity: str
    grid: tuple[int, int]  # rows and columns of a query frame, in tokens
    kernel: tuple[int, int, int]  # of the tokenizer, in tokens
    camera_BAR: Tensor  # camera rows of all frames so far (A = total_frames), float32 at least
    device: torch.device  # where queries and keys lie
    span_M2: Tensor | None = None  # first and last frame a slot stands for, int64 on CPU; None: no slots
    slot_camera_BMR: Tensor | None = None  # mean camera row of the frames of each slot
    tail_frames: int = 0  # frames before the first query frame that memory keeps at full resolution
    inputs: RetrievalInputs | None = None
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        return self.total_frames - self.first_frame

    @property
    def given(self) -> RetrievalInputs:
        """The inputs; without any, every field is None."""
        return self.inputs or RetrievalInputs()

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What `make` returns, made for the first who asks in this run and kept under `name` for all others."""
        if name not in self.memo:
            self.memo[name] = make()
        made: Made = self.memo[name]
        return made


@dataclass(frozen=True, kw_only=True)
class RetrievalRequest(RetrievalRun):
    """One block asks what its query frames shall read."""

    query_BFPC: Tensor  # normalised, before rotary positions, all heads together
    slots: MemorySlots | None  # None when the policy does not need slots


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What each query frame reads: frames at full resolution, and slots."""

    frames: FramesRead
    slots_BFK: Tensor | None = None  # indices into the slots, best first
    scores_BFM: Tensor | None = None  # before masking; for inspection


Policy = Callable[[RetrievalRequest], Reading]
Plan = Callable[[RetrievalRun], object]


def needs(*parts: str, plan: Plan | None = None) -> Callable[[Policy], Policy]:
    """Say what a policy uses: `SLOTS`, `ALL_FRAMES`, `CONTEXT_FRAMES`, or names of fields of RetrievalInputs.

    `plan` does, before the blocks run, what is alike for all of them, by `RetrievalRun.once`: all that waits for the
    device or copies to it. What it leaves out is done by the first block.
    """

    def mark(policy: Policy) -> Policy:
        policy.needs = frozenset(parts)  # type: ignore[attr-defined]
        policy.plan = plan  # type: ignore[attr-defined]
        return policy

    return mark


def needs_of(policy: Policy) -> frozenset[str]:
    """What a policy uses; one that does not say so gets slots."""
    return getattr(policy, "needs", frozenset({SLOTS}))


def plan_run(policy: Policy, run: RetrievalRun) -> None:
    """Do what the policy does once for all blocks, and place the local windows."""
    if (plan := getattr(policy, "plan", None)) is not None:
        plan(run)
    elif SLOTS in needs_of(policy):
        slots_near(run)


def check_inputs(policy: Policy, inputs: RetrievalInputs | None) -> None:
    """Raise ValueError when the caller did not hand over what the policy uses."""
    wanted = needs_of(policy) - {SLOTS, ALL_FRAMES, CONTEXT_FRAMES}
    if missing := sorted(name for name in wanted if inputs is None or getattr(inputs, name) is None):
        raise ValueError(f"memory policy {policy.__name__} needs retrieval inputs {', '.join(missing)}")


# --- alike for all blocks ------------------------------------------------------------------------------------------


def all_frames(run: RetrievalRun) -> FramesRead:
    """Every full-resolution frame there is."""
    return run.once("all frames", lambda: frames_read(run.first_frame, run.frames, run.tail_frames, run.device))


def windows(run: RetrievalRun) -> FramesRead:
    """The local window of every query frame."""

    def make() -> FramesRead:
        windows_FW = window_frames(*local_window(run.first_frame, run.frames, run.total_frames, run.window))
        return frames_read(run.first_frame, run.frames, run.tail_frames, run.device, windows_FW=windows_FW)

    return run.once("windows", make)


def slots_near(run: RetrievalRun) -> Tensor:
    """(F, M) bool: slots that lie wholly inside a query frame's window; places the windows too."""

    def make() -> Tensor:
        if run.span_M2 is None:
            raise ValueError("this policy chooses among memory slots, and none were given")
        windows(run)
        first_F, last_F = local_window(run.first_frame, run.frames, run.total_frames, run.window)
        return inside_window(run.span_M2, first_F, last_F).to(run.device)

    return run.once(NEAR_SLOTS, make)


def context_frames(run: RetrievalRun, choose: Callable[[], Tensor]) -> FramesRead:
    """For every query frame alike: all target frames and the context frames (B, K) chosen, in any order."""

    def make() -> FramesRead:
        frames_BK = choose().cpu()
        target = torch.arange(run.num_context, run.total_frames).expand(len(frames_BK), -1)
        frames_BN = torch.cat([frames_BK.sort(dim=1).values, target], dim=1)
        return frames_read(run.first_frame, run.frames, run.tail_frames, run.device, everywhere_BN=frames_BN)

    return run.once("context frames", make)


# --- scores and choice ---------------------------------------------------------------------------------------------


def pooled_affinity(query_BFPC: Tensor, descriptors_BMC: Tensor) -> Tensor:
    """Dot product of whole-frame means, unscaled, before rotary positions (released weights): (B, F, M)."""
    precise = torch.promote_types(query_BFPC.dtype, torch.float32)
    return query_BFPC.to(precise).mean(dim=2) @ descriptors_BMC.to(precise).mT


def spatial_affinity(
    query_BFPC: Tensor, keys_BMQC: Tensor, grid: tuple[int, int], kernel: tuple[int, int, int]
) -> Tensor:
    """Eq. 4: queries averaged to the slot's grid, summed dot products over it, divided by sqrt(C): (B, F, M)."""
    precise = torch.promote_types(query_BFPC.dtype, torch.float32)
    rows, columns = grid[0] // kernel[1], grid[1] // kernel[2]
    tiles = query_BFPC.to(precise).unflatten(2, grid)[:, :, : rows * kernel[1], : columns * kernel[2]]
    tiles = tiles.unflatten(3, (columns, kernel[2])).unflatten(2, (rows, kernel[1]))
    pooled_BFQC = tiles.mean(dim=(3, 5)).flatten(2, 3)
    return pooled_BFQC.flatten(2) @ keys_BMQC.to(precise).flatten(2).mT / query_BFPC.shape[-1] ** 0.5


def topk_slots(scores_BFM: Tensor, near_FM: Tensor, top_k: int) -> Tensor:
    """The `top_k` best slots of each query frame, best first, the earlier slot first on a tie: (B, F, K) int64.

    Slots inside the window are taken only when fewer than `top_k` others are left, as released.
    """
    slots = scores_BFM.shape[-1]
    if top_k > slots:
        raise ValueError(f"model.memory.top_k={top_k}, but there are only {slots} memory slots to choose from")
    masked = scores_BFM.masked_fill(near_FM, MASKED)
    return masked.sort(dim=-1, descending=True, stable=True).indices[..., :top_k]


def affinity_scores(asked: RetrievalRequest) -> Tensor:
    """How well each slot's keys answer each frame's queries, by the affinity the model was built with: (B, F, M).

    The choice made from it carries no gradient: queries and keys learn through what is read. It is made in float32 at
    least, under autocast too.
    """
    slots = slots_of(asked)
    with torch.no_grad(), without_autocast(asked.device):
        if asked.affinity == "spatial" and slots.count:
            pieces = [spatial_affinity(asked.query_BFPC, keys, asked.grid, asked.kernel) for keys in slots.key_pieces()]
            return torch.cat(pieces, dim=-1)
        return pooled_affinity(asked.query_BFPC, slots.descriptors_BMC)


def slots_of(asked: RetrievalRequest) -> MemorySlots:
    """The slots a policy chooses from. Raises ValueError when none were given."""
    if asked.slots is None:
        raise ValueError("this policy chooses among memory slots, and none were given")
    return asked.slots


# --- readings ------------------------------------------------------------------------------------------------------


def read_window(asked: RetrievalRequest) -> Reading:
    """Each frame's local window and nothing else."""
    return Reading(frames=windows(asked))


def read_best_slots(asked: RetrievalRequest, scores_BFM: Tensor) -> Reading:
    """Each frame's local window and its `top_k` slots of highest score."""
    slots_BFK = topk_slots(scores_BFM, slots_near(asked), asked.top_k)
    return Reading(frames=windows(asked), slots_BFK=slots_BFK, scores_BFM=scores_BFM)


def check_frames_to_choose(run: RetrievalRun) -> None:
    """Raise ValueError unless `top_k` context frames can be chosen."""
    if not 1 <= run.top_k <= run.num_context:
        raise ValueError(
            f"model.memory.top_k={run.top_k}, but the policy reads from 1 to all {run.num_context} context frames"
        )
