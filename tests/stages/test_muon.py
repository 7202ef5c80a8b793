"""Muon against torch's own, and which weights it trains."""

from __future__ import annotations

import pytest
import torch

from hmcli.codecs.mini_vae import new_mini_vae
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import TrainConfig
from hmcli.stages.models.folders import build_model
from hmcli.stages.training.muon import Muon, is_block_matrix, is_inner_kernel, make_optimizers, orthogonal


def test_muon_updates_are_orthogonal_and_of_the_documented_size():
    torch.manual_seed(0)
    for shape in ((6, 40), (40, 6)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    kernel = torch.nn.Parameter(torch.zeros(6, 40))
    kernel.grad = torch.randn(6, 40)
    Muon([kernel], lr=0.1, weight_decay=0.0).step()
    assert float(kernel.detach().square().mean().sqrt()) == pytest.approx(0.1 * 0.2, rel=0.3)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (9, 9)])
def test_muon_is_torchs_on_a_matrix(shape, monkeypatch):
    """To the bit, given one orthogonalisation; torch's own works in bfloat16 and takes matrices alone."""
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", lambda update, *_: orthogonal(update))
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().clone())
    settings = {"lr": 0.02, "weight_decay": 0.3}
    both = Muon([ours], **settings), torch.optim.Muon([theirs], **settings, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in both:
            optimizer.step()
        assert torch.equal(ours, theirs)


def test_muon_makes_updates_orthogonal_as_torch_does():
    """Within bfloat16, in which torch computes; on kernels as on the matrices they are flattened to."""
    orthogonal_in_torch = torch.optim._muon._zeropower_via_newtonschulz
    for shape in ((6, 40), (40, 6)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        wanted = orthogonal_in_torch(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7).float()
        torch.testing.assert_close(orthogonal(matrix), wanted, rtol=0, atol=0.02)
    with pytest.raises(ValueError, match="only supports 2D"):
        torch.optim.Muon([torch.nn.Parameter(torch.zeros(2, 3, 1, 1))])
    flat, kernel = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((6, 40), (6, 5, 2, 2, 2)))
    flat.grad = matrix.T.contiguous()
    kernel.grad = flat.grad.view(kernel.shape)
    for parameter in (flat, kernel):
        Muon([parameter], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(kernel.flatten(1), flat)


def test_every_weight_of_a_vae_is_trained_by_exactly_one_optimizer():
    vae = new_mini_vae(0)
    optimizers = make_optimizers(vae, TrainConfig(), is_inner_kernel, 2.0)
    trained = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in vae.parameters())
    assert [type(o).__name__ for o in optimizers] == ["AdamW", "Muon"]
    assert [group["scale"] for o in optimizers for group in o.param_groups] == [1.0, 2.0]


def test_muon_trains_the_matrices_of_a_transformers_blocks_and_adamw_the_rest():
    recipe = load_recipe(None, ["model.layers=2", "model.dim=24", "model.heads=2", "model.ffn_dim=48"])
    model = build_model(recipe, channels=16, text_dim=64)
    model.blocks[1].attn1.to_v.weight.requires_grad_(False)
    adamw, muon = make_optimizers(model, TrainConfig(optimizer="muon"), is_block_matrix)
    names = {id(p): name for name, p in model.named_parameters()}
    by_muon = {names[id(p)] for p in muon.param_groups[0]["params"]}
    layers = {
        f"{attention}.{part}" for attention in ("attn1", "attn2") for part in ("to_q", "to_k", "to_v", "to_out.0")
    }
    layers |= {"ffn.net.0.proj", "ffn.net.2", "projector"}
    wanted = {f"blocks.{n}.{layer}.weight" for n in (0, 1) for layer in layers} - {"blocks.1.attn1.to_v.weight"}
    assert by_muon == wanted
    rest = {names[id(p)] for p in adamw.param_groups[0]["params"]}
    assert rest == set(names.values()) - wanted - {"blocks.1.attn1.to_v.weight"}
    assert [type(o).__name__ for o in make_optimizers(model, TrainConfig(), None)] == ["AdamW"]
