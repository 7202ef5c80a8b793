"""Frozen memory: slots fetched when chosen, histories joined, and the same numbers wherever keys and values lie."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from hmcli.core.memory import BlockMemory, ContextMemory, Held, Joined, MemorySlots, join
from hmcli.core.transformer import HydraTransformer3DModel


def small(**changes: object) -> HydraTransformer3DModel:
    """A frozen model whose every parameter is random."""
    torch.manual_seed(0)
    model = HydraTransformer3DModel(
        **{
            "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 10, "ffn_dim": 24, "freq_dim": 16,
            "text_dim": 6, "in_channels": 3, "out_channels": 3, "top_k": 1, "window": 3, "context": "frozen",
        }
        | changes
    )  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def clip(frames: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(2, 3, frames, 6, 8, generator=generator),
        "timestep": torch.tensor([300.0, 700.0]),
        "encoder_hidden_states": torch.randn(2, 7, 6, generator=generator),
        "camera": torch.randn(2, frames, 12, generator=generator),
    }


def target_of(inputs: dict[str, Tensor], n: int) -> dict[str, Tensor]:
    return inputs | {"hidden_states": inputs["hidden_states"][:, :, n:], "camera": inputs["camera"][:, n:]}


@dataclass(kw_only=True)
class Elsewhere:
    """Keys and values that have to be asked for; remembers what was."""

    held: Held
    asked: list[int] = field(default_factory=list)
    keys_asked: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.held.count

    def read(self, numbers_U: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += numbers_U.tolist()
        return self.held.read(numbers_U)

    def read_keys(self, start: int, stop: int) -> Tensor:
        self.keys_asked += range(start, stop)
        return self.held.read_keys(start, stop)


def elsewhere(memory: ContextMemory) -> ContextMemory:
    """The same memory with all keys and values out of it."""
    blocks = tuple(
        BlockMemory(slots=Elsewhere(held=b.slots), descriptors_BMC=b.descriptors_BMC, tail=Elsewhere(held=b.tail))
        for b in memory.blocks
    )
    return replace(memory, blocks=blocks)


def rows(count: int, seed: int = 0, batch: int = 2) -> Held:
    generator = torch.Generator().manual_seed(seed)
    return Held(
        keys_BNQC=torch.randn(batch, count, 3, 5, generator=generator),
        values_BNQC=torch.randn(batch, count, 3, 5, generator=generator),
    )


def slots(held: Held, earlier: Elsewhere | None = None) -> MemorySlots:
    whole = held if earlier is None else join(earlier.held, held)
    return MemorySlots(
        keys_BMQC=held.keys_BNQC, values_BMQC=held.values_BNQC, descriptors_BMC=whole.keys_BNQC.mean(dim=2),
        grid=(3, 1), earlier=earlier,
    )  # fmt: skip


def test_only_what_was_chosen_is_fetched_from_elsewhere_and_the_index_points_at_it():
    chosen, held, earlier = torch.tensor([[[7, 1]], [[9, 7]]]), rows(2, 1), Elsewhere(held=rows(8))
    whole = join(earlier.held, held)
    keys, values, index, numbers = slots(held, earlier).fetch(chosen)
    assert numbers.tolist() == [1, 7, 9]
    assert torch.equal(numbers[index], chosen)
    assert torch.equal(keys, whole.keys_BNQC[:, numbers])
    assert torch.equal(values, whole.values_BNQC[:, numbers])
    assert earlier.asked == [1, 7]


def test_every_sample_gets_its_own_choices_of_many_slots_in_memory():
    chosen, held = torch.tensor([[[7, 1]], [[9, 7]]]), rows(10)
    keys, values, index, numbers = slots(held).fetch(chosen)
    assert keys.shape[1] == 2
    for b in range(2):
        assert torch.equal(numbers[b][index[b]], chosen[b])
        assert torch.equal(keys[b], held.keys_BNQC[b, numbers[b]])
        assert torch.equal(values[b], held.values_BNQC[b, numbers[b]])


def test_few_slots_in_memory_are_handed_over_as_they_are():
    held = rows(4)
    keys, values, index, numbers = slots(held).fetch(torch.tensor([[[3, 0], [1, 2]], [[0, 1], [0, 1]]]))
    assert keys is held.keys_BNQC
    assert values is held.values_BNQC
    assert numbers is None
    assert index.tolist() == [[[3, 0], [1, 2]], [[0, 1], [0, 1]]]


def test_all_keys_come_in_the_same_bounded_pieces_wherever_they_lie():
    held, earlier = rows(3, 1), Elsewhere(held=rows(7))
    together = join(earlier.held, held)
    bound = 4 * together.keys_BNQC[:, :1].nbytes
    mixed, whole = (list(s.key_pieces(bound)) for s in (slots(held, earlier), slots(together)))
    assert [piece.shape[1] for piece in mixed] == [4, 4, 2]
    assert all(torch.equal(a, b) for a, b in zip(mixed, whole, strict=True))
    assert earlier.asked == []
    assert earlier.keys_asked == list(range(7))


def test_parts_in_memory_are_joined_there_and_others_stay_apart():
    a, b = rows(3), rows(2, 1)
    assert isinstance(join(a, b), Held)
    apart = join(Elsewhere(held=a), b)
    assert isinstance(apart, Joined)
    for numbers in ([0, 2, 3, 4], [0, 1], [4], []):
        wanted = join(a, b).read(torch.tensor(numbers, dtype=torch.int64))
        found = apart.read(torch.tensor(numbers, dtype=torch.int64))
        assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True)), numbers


def test_many_parts_are_read_as_one_and_only_those_that_are_asked_for():
    held = rows(9)
    spans = [slice(*span) for span in ((0, 3), (3, 3), (3, 4), (4, 9))]
    parts = [Elsewhere(held=Held(keys_BNQC=held.keys_BNQC[:, s], values_BNQC=held.values_BNQC[:, s])) for s in spans]
    joined = join(join(parts[0], parts[1]), join(parts[2], parts[3]))
    assert joined.count == 9
    for numbers in ([0, 2, 3, 4, 8], [3], [7, 8], [], list(range(9))):
        for part in parts:
            part.asked.clear()
        found = joined.read(torch.tensor(numbers, dtype=torch.int64))
        wanted = held.read(torch.tensor(numbers, dtype=torch.int64))
        assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True)), numbers
        assert sum(len(part.asked) for part in parts) == len(numbers)
    for span in ((0, 9), (2, 5), (4, 4), (8, 9)):
        assert torch.equal(joined.read_keys(*span), held.keys_BNQC[:, slice(*span)])


@pytest.mark.parametrize("policy", ["affinity", "all", "none", "recent"])
@pytest.mark.parametrize("affinity", ["pooled", "spatial"])
def test_memory_elsewhere_gives_the_very_same_flow(policy: str, affinity: str):
    inputs, model = clip(17), small(policy=policy, affinity=affinity, top_k=2)
    with torch.no_grad():
        memory = model.encode_context(inputs["hidden_states"][:, :, :12], inputs["camera"][:, :12])
        away, target = elsewhere(memory), target_of(inputs, 12)
        held = model(**target, num_context_frames=0, memory=memory).sample
        assert torch.equal(model(**target, num_context_frames=0, memory=away).sample, held)
    slot_reads, tail_reads = (sorted(set(getattr(away.blocks[0], part).asked)) for part in ("slots", "tail"))
    wanted_tail = {"affinity": [1], "none": [1], "all": list(range(12)), "recent": [10, 11]}
    assert tail_reads == wanted_tail[policy]  # a window of 3 reaches one frame back, though the tail keeps two
    assert bool(slot_reads) == (policy == "affinity")
    assert len(slot_reads) <= 6


def test_two_stretches_joined_are_one_history():
    """Frames, slots and cameras are numbered on; the tail reaches back where the last stretch is short."""
    inputs, model = clip(20), small(window=5)
    first, second = (
        model.encode_context(inputs["hidden_states"][:, :, part], inputs["camera"][:, part])
        for part in (slice(0, 6), slice(6, 9))
    )
    both = first.then(second.starting_at(6))
    assert both.num_context_frames == 9
    assert both.span_M2.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert both.time_M.tolist() == [0.5, 2.5, 4.5, 6.5]
    assert torch.equal(both.frame_camera_BAR, inputs["camera"][:, :9].to(both.frame_camera_BAR))
    assert both.tail_frames == 4 + 3  # the second stretch is shorter than a window
    assert both.slots_of(1).count == 4
    with torch.no_grad():
        flow = model(**target_of(inputs, 9), num_context_frames=0, memory=both).sample
        parts = elsewhere(first).then(elsewhere(second).starting_at(6))
        assert torch.equal(model(**target_of(inputs, 9), num_context_frames=0, memory=parts).sample, flow)
        assert not torch.equal(model(**target_of(inputs, 9), num_context_frames=0, memory=second).sample, flow)


def test_what_does_not_follow_is_refused_by_name():
    inputs, model = clip(14), small()

    def made(frames: slice, rows: int = 6, batch: int = 2, maker=model) -> ContextMemory:
        return maker.encode_context(inputs["hidden_states"][:batch, :, frames, :rows], inputs["camera"][:batch, frames])

    first, second = made(slice(0, 6)), made(slice(6, 10))
    with pytest.raises(ValueError, match="ends before frame 6 cannot be followed by one from 0"):
        first.then(second)
    with pytest.raises(ValueError, match="grid"):
        first.then(made(slice(6, 10), rows=4).starting_at(6))
    with pytest.raises(ValueError, match="batch 2"):
        first.then(made(slice(6, 10), batch=1).starting_at(6))
    with pytest.raises(ValueError, match="2 blocks cannot be followed by one of 3"):
        first.then(made(slice(6, 10), maker=small(num_layers=3)).starting_at(6))
    with pytest.raises(ValueError, match="starts at frame 6 is read joined"):
        model(**target_of(inputs, 10), num_context_frames=0, memory=second.starting_at(6))


def test_blocks_are_put_away_as_soon_as_they_have_run():
    inputs, model = clip(9), small()
    seen: list[int] = []

    def put_away(number: int, kept: BlockMemory) -> BlockMemory:
        seen.append(number)
        gone = Held(keys_BNQC=torch.empty(2, 0, 0, 0), values_BNQC=torch.empty(2, 0, 0, 0))
        return replace(kept, slots=gone, tail=gone)

    whole = model.encode_context(inputs["hidden_states"], inputs["camera"])
    light = model.encode_context(inputs["hidden_states"], inputs["camera"], None, put_away)
    assert seen == [0, 1]
    assert torch.equal(light.span_M2, whole.span_M2)
    assert light.blocks[1].slots.count == 0
