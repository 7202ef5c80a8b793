"""Training a small VAE: what a batch, the loss and a step are."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample

from hmcli.codecs import training
from hmcli.codecs.mini_vae import MINI_VAE, QUIET, new_mini_vae
from hmcli.codecs.video import WanCodec
from hmcli.recipe.sections import TrainConfig
from hmcli.stages.training.muon import VAE_RATE, is_inner_kernel, make_optimizers

TINY = {"base_dim": 4, "decoder_base_dim": 4, "z_dim": 6}
TRAIN = TrainConfig(part="codec", steps=10, batch=2, frames=9, lr=1e-2, warmup=2, decay="cosine")


def clips(count: int = 3, frames: int = 13, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Smooth pictures that drift, so that there is something to learn."""
    y, x = np.mgrid[:height, :width] / 20.0
    waves = [
        np.stack([[np.sin(x * (c + 1) + t / 5 + n), np.cos(y + c), np.sin(x + y + n)] for t in range(frames)])
        for n, c in enumerate(range(count))
    ]
    return [(127.5 + 120 * w).astype(np.uint8).transpose(0, 2, 3, 1) for w in waves]


def footage() -> list[training.Footage]:
    """The same clips; their bright pixels are the subject."""
    return [
        training.Footage(clip=f"wave {n}", frames=clip, subjects=(clip[..., 0] > 150).astype(np.uint8))
        for n, clip in enumerate(clips())
    ]


def test_batches_go_from_many_pictures_to_clips():
    pictures = training.picture_steps(TRAIN, fresh=True)
    first, last = (training.plan_batch(step, TRAIN, pictures, 32, 48) for step in (pictures - 1, pictures))
    assert 0 < pictures < TRAIN.steps
    assert first == training.BatchPlan(clips=8, frames=1, height=16, width=24)
    assert last == training.BatchPlan(clips=2, frames=9, height=16, width=24)


@pytest.mark.parametrize("size", [(8, 24), (24, 40), (72, 104)])
@pytest.mark.parametrize("step", [0, 9])
def test_every_piece_fits_the_latent_grid_and_the_frame(size, step):
    plan = training.plan_batch(step, TRAIN, 6, *size)
    assert plan.height % 8 == plan.width % 8 == 0
    assert 8 <= plan.height <= size[0]
    assert 8 <= plan.width <= size[1]
    assert plan.frames % 4 == 1


def test_a_batch_is_drawn_from_its_generator_alone_and_lies_in_the_codecs_range():
    plan = training.plan_batch(0, TRAIN, 6, 32, 48)
    one, again = (training.draw_batch(footage(), plan, 0.0, np.random.default_rng([5, 3]))[0] for _ in range(2))
    other, *_ = training.draw_batch(footage(), plan, 0.0, np.random.default_rng([5, 4]))
    assert one.shape == (8, 3, 1, 16, 24)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert -1.0 <= float(one.min()) < -0.5
    assert 0.5 < float(one.max()) <= 1.0


def test_pieces_are_cut_from_the_clips_without_resampling():
    marked = np.zeros((5, 8, 16, 3), np.uint8)
    marked[2, 3, 4] = (255, 128, 0)
    plan = training.BatchPlan(clips=6, frames=5, height=8, width=16)
    clip = training.Footage(clip="a", frames=marked, subjects=(marked[..., 0] > 0).astype(np.uint8) * 3)
    batch, weights, _ = training.draw_batch([clip], plan, 2.5, np.random.default_rng(0))
    for piece, weight in zip(batch, weights, strict=True):
        x = int(piece[0, 2, 3].argmax())
        assert (weight[0, 2, 3, x], weight.sum()) == (3.5, weight.numel() + 2.5), "the weight went with the picture"
        assert x in (4, 11), "where it was, or mirrored"
        assert piece[:, 2, 3, x].tolist() == pytest.approx([1.0, 128 / 127.5 - 1, -1.0], abs=1e-6)


def test_a_clip_that_is_too_short_for_a_piece_is_refused():
    plan = training.BatchPlan(clips=1, frames=17, height=8, width=8)
    with pytest.raises(ValueError, match="smaller than the piece"):
        training.draw_batch(footage(), plan, 0.0, np.random.default_rng(0))


def test_a_vae_that_was_trained_before_goes_straight_to_clips():
    assert training.picture_steps(TRAIN, fresh=False) == 0
    assert training.plan_batch(0, TRAIN, 0, 32, 48).frames == TRAIN.frames


def test_pictures_and_clips_have_a_warm_up_and_a_decay_each():
    rates = [training.learning_rate(step, TRAIN, 6) for step in range(10)]
    assert rates[0] == pytest.approx(TRAIN.lr / 2)
    assert rates[1] == pytest.approx(TRAIN.lr)
    assert rates[5] < rates[4] < rates[3] < rates[2]
    assert rates[6:8] == pytest.approx([rate * training.CLIP_RATE for rate in rates[:2]])


def test_the_learning_rate_warms_up_and_decays_to_almost_nothing():
    rates = [training.learning_rate(step, TRAIN, 99) for step in range(99)]
    assert rates[0] == pytest.approx(TRAIN.lr / 2)
    assert rates[1] == pytest.approx(TRAIN.lr)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(TRAIN.lr / 100, rel=0.1)
    constant = TrainConfig(steps=10, warmup=2, lr=1e-2)
    assert training.learning_rate(9, constant, 10) == pytest.approx(constant.lr)


def test_the_loss_is_zero_for_a_perfect_picture_and_a_standard_normal_posterior():
    video = torch.rand(2, 3, 5, 8, 16)
    mean = log_variance = torch.zeros(2, 6, 2, 1, 2)
    loss, parts = training.codec_loss(video, video, torch.rand(2, 1, 5, 8, 16), mean, log_variance)
    assert float(loss) == 0.0
    assert parts == {"l1": 0.0, "square": 0.0, "edge": 0.0, "kl": 0.0}


def test_the_loss_adds_up_as_documented():
    video = torch.zeros(1, 1, 1, 2, 2)
    decoded = torch.tensor([[0.4, 0.0], [0.0, 0.0]]).view(1, 1, 1, 2, 2)
    even = torch.ones(1, 1, 1, 2, 2)
    loss, parts = training.codec_loss(video, decoded, even, torch.full((1, 1), 2.0), torch.zeros(1, 1))
    assert parts["l1"] == pytest.approx(0.1)
    assert parts["square"] == pytest.approx(0.04)
    assert parts["edge"] == pytest.approx(0.2)
    assert parts["kl"] == pytest.approx(2.0)
    expected = 0.1 + training.SQUARE_WEIGHT * 0.04 + training.EDGE_WEIGHT * 0.2 + training.KL_WEIGHT * 2.0
    assert float(loss) == pytest.approx(expected)
    heavy = torch.tensor([[5.0, 1.0], [1.0, 1.0]]).view(1, 1, 1, 2, 2)  # on the wrong pixel
    _, parts = training.codec_loss(video, decoded, heavy, torch.zeros(1, 1), torch.zeros(1, 1))
    assert parts["l1"] == pytest.approx(0.4 * 5 / 8)
    assert parts["square"] == pytest.approx(0.16 * 5 / 8)


def test_a_new_vae_depends_on_its_seed_alone_and_starts_quiet():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, again, other = new_mini_vae(3, **TINY), new_mini_vae(3, **TINY), new_mini_vae(4, **TINY)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.encoder.conv_in.weight, other.encoder.conv_in.weight)
    with torch.no_grad():
        posterior = one.encode(torch.zeros(1, 3, 1, 8, 16)).latent_dist
    assert posterior.logvar.mean() == pytest.approx(QUIET, abs=0.5)


def test_the_mini_architecture_keeps_wans_strides_and_channels():
    vae = new_mini_vae(0, base_dim=4, decoder_base_dim=4)
    assert MINI_VAE["z_dim"] == 16
    codec = WanCodec(vae, name="mini", device="cpu", tile=None, chunk=4)
    latents = codec.encode(torch.zeros(1, 3, 9, 16, 40))
    assert latents.shape == (1, 16, 3, 2, 5)
    assert codec.decode(latents).shape == (1, 3, 9, 16, 40)


@pytest.mark.parametrize("frames", [1, 5])
def test_skipping_the_frames_of_zeros_before_the_first_one_changes_nothing(frames):
    vae = tiny_vae_with_a_past()
    video = training.whole_frames(clips()[0], frames)
    plain = vae.decode(vae.encode(video).latent_dist.mode()).sample
    with training.single_frame_convolutions():
        quick = vae.decode(vae.encode(video).latent_dist.mode()).sample
    torch.testing.assert_close(quick, plain, rtol=0, atol=1e-5)


def tiny_vae_with_a_past() -> AutoencoderKLWan:
    """Random everywhere, so that every frame before counts."""
    torch.manual_seed(0)
    shape = {**MINI_VAE, **TINY}
    return AutoencoderKLWan(**shape)


def test_a_new_vae_codes_the_pictures_of_a_clip_without_looking_back():
    vae = new_mini_vae(0, **TINY)
    for module in vae.modules():
        if isinstance(module, WanResample) and hasattr(module, "time_conv"):
            module.time_conv.weight.data[:, :, :-1] = 0.0
    with torch.no_grad():
        still, other = (torch.randn(1, 6, 3, 2, 3, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
        other[:, :, 2] = still[:, :, 2]
        assert torch.equal(vae.decode(still).sample[:, :, 5:], vae.decode(other).sample[:, :, 5:])


def test_training_lowers_the_reconstruction_error():
    vae, videos = new_mini_vae(0, base_dim=8, decoder_base_dim=8), clips()
    shown = [training.whole_frames(clip, 9) for clip in videos]
    before = training.mean_psnr(partial(training.reconstructed, vae), shown)
    train = TrainConfig(part="codec", steps=40, batch=2, frames=5, lr=3e-3, warmup=5, decay="cosine")
    optimizers = make_optimizers(vae, train, is_inner_kernel, VAE_RATE)
    for step in range(40):
        plan = training.plan_batch(step, train, 24, 32, 48)
        video, weight, _ = training.draw_batch(footage(), plan, 1.0, np.random.default_rng([0, step]))
        noise, lr = torch.Generator().manual_seed(step), training.learning_rate(step, train, 24)
        training.train_step(vae, optimizers, video, weight, lr=lr, clip_norm=1.0, generator=noise)
    assert training.mean_psnr(partial(training.reconstructed, vae), shown) > before + 1.0


def test_psnr_is_that_of_the_pixel_range():
    video = torch.zeros(1, 3, 1, 8, 8)
    psnr = training.mean_psnr(lambda video: video + 0.2, [video])
    assert psnr == pytest.approx(10 * math.log10(4 / 0.04), abs=1e-3)


def test_psnr_inside_boxes_counts_nothing_else():
    def wrong(video: torch.Tensor) -> torch.Tensor:
        """The left half 0.2 too bright, the right half 0.4."""
        off = torch.full_like(video, 0.2)
        off[..., 4:] = 0.4
        return video + off

    labels = np.zeros((2, 1, 8, 8), np.uint8)
    labels[0, 0, [1, 5], [0, 3]] = 7  # two corners of a box in the left half; nobody in the other video
    boxes = [training.subject_boxes(clip) for clip in labels]
    assert int(boxes[0].sum()) == 5 * 4
    videos = [torch.zeros(1, 3, 1, 8, 8)] * 2
    assert training.mean_psnr(wrong, videos, boxes) == pytest.approx(10 * math.log10(4 / 0.04), abs=1e-3)
    assert math.isnan(training.mean_psnr(wrong, videos[1:], boxes[1:]))


def test_latents_normalised_by_the_statistics_have_unit_variance():
    vae, shown = new_mini_vae(0, **TINY), [training.whole_frames(clip, 13) for clip in clips()]
    mean, std = training.latent_statistics(partial(training.latents_of, vae), shown)
    vae.register_to_config(latents_mean=mean, latents_std=std)
    codec = WanCodec(vae, name="mini", device="cpu", tile=None, chunk=1)
    latents = torch.cat([codec.encode(video) for video in shown]).movedim(1, 0).flatten(1)
    torch.testing.assert_close(latents.mean(dim=1), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std(dim=1), torch.ones(6), atol=1e-4, rtol=0)
