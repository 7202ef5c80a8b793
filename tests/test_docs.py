"""Every command and every piece of code shown in README.md and docs/ runs as shown."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from random_lpips import write_random_lpips
from ray_here import ray_here, with_ray
from small_clip import write_random_clip
from warm import WarmCommand

from hmcli.recipe.reading import load_recipe, recipe_names

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
NEEDS = re.compile(r"\$\{?(HM_WORLD|WEIGHTS)")
RAY = "--on ray"


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language; for bash also the indented lines that are hm commands."""
    text = page.read_text(encoding="utf-8")
    found = [body for kind, body in BLOCK.findall(text) if kind == language]
    if language == "bash":
        plain = BLOCK.sub("", text)
        found += [line.strip().split("  #")[0] for line in plain.splitlines() if line.startswith("    hm ")]
    return found


@pytest.fixture(scope="module")
def shell(hm: WarmCommand, tmp_path_factory: pytest.TempPathFactory):
    """Runs bash text in one workspace, where the README's chain has run already."""
    place = tmp_path_factory.mktemp("docs")
    (place / "bin").mkdir()
    hm.shim(place / "bin")
    (place / "work").mkdir()
    env = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(place / "cache")}

    def run(text: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=place / "work", env=env | more, capture_output=True,
            text=True, check=False, timeout=1500,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    _tiny_networks(place / "work" / "weights")
    for text in blocks(PROJECT / "README.md", "bash"):
        run(text)
    return run


def _tiny_networks(folder: Path) -> None:
    """Random models in the formats, and the places, of the weights that docs/metrics.md names."""
    from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    picture = {"image_size": 32, "patch_size": 16}
    ViTModel(ViTConfig(**picture, **sizes)).save_pretrained(folder / "dino-vitb16")
    text = {"vocab_size": 20, "max_position_embeddings": 7, "projection_dim": 8, **sizes}
    vision = {"projection_dim": 8, **picture, **sizes}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(
        folder / "clip-vit-b32"
    )
    write_random_clip(folder / "clip-vit-b16")
    write_random_lpips(folder / "lpips", "alex")


def _tiny_hydra(file: Path) -> None:
    """A random checkpoint under the released names."""
    import torch

    from hmcli.core.transformer import HydraTransformer3DModel
    from hmcli.store.names import to_released

    sizes = {"attention_head_dim": 128, "ffn_dim": 8, "freq_dim": 8, "text_dim": 8}
    model = HydraTransformer3DModel(num_layers=1, num_attention_heads=1, **sizes)
    torch.save({"state_dict": to_released(model.state_dict())}, file)


@pytest.mark.timeout(900)
def test_the_chain_of_the_readme_runs(shell):
    assert "subject-consistency" in shell("cat gen.evaluation/scores.json").stdout


@pytest.mark.timeout(900)
def test_the_ten_lines_of_python_make_a_video(shell, monkeypatch: pytest.MonkeyPatch):
    from hmcli.store.video import probe_video

    (lines,) = blocks(PROJECT / "README.md", "python")
    assert len([line for line in lines.splitlines() if line.strip()]) <= 10
    work = Path(shell("pwd").stdout.strip())
    monkeypatch.chdir(work)
    exec(lines, {})
    assert probe_video(work / "after.mp4").frames == 17


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "README.md"], ids=lambda p: p.stem)
@pytest.mark.timeout(900)
def test_the_commands_of_a_page_run(page: Path, shell):
    for text in blocks(page, "bash"):
        if not NEEDS.search(text) and RAY not in text:
            shell(text)


@pytest.mark.slow
@with_ray
def test_the_commands_for_ray_run_on_this_machine(shell):
    commands = [text for page in PAGES for text in blocks(page, "bash") if RAY in text]
    assert commands
    with ray_here() as env:
        for text in commands:
            shell(text, **env)


@pytest.mark.slow
def test_the_commands_for_hm_world_run_on_the_example_clips(shell, shared: Path, tmp_path: Path):
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(b"a dry run only looks for it")
    _tiny_hydra(tmp_path / "hydra.ckpt")
    for page in PAGES:
        for text in blocks(page, "bash"):
            if NEEDS.search(text):
                shell(text, HM_WORLD=str(shared / "data" / "hm-world-examples"), WEIGHTS=str(tmp_path))


def test_a_new_policy_takes_as_little_as_extending_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The page's own code, as an installed foreign package with the page's own entry point."""
    import torch

    from hmcli.core.transformer import HydraTransformer3DModel

    policy, metric = blocks(PROJECT / "docs" / "extending.md", "python")
    assert len(policy.strip().splitlines()) < 40
    (points,) = blocks(PROJECT / "docs" / "extending.md", "toml")
    about = tmp_path / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(_entry_points(points))
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "evenly.py").write_text(policy)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_recipe(None, ["model.memory.policy=evenly"]).model.memory.policy == "evenly"
    model = HydraTransformer3DModel(
        num_layers=2, num_attention_heads=2, attention_head_dim=12, ffn_dim=20, freq_dim=8, text_dim=6, policy="evenly",
        top_k=2, window=3, context="joint",
    )  # fmt: skip
    flow = model(
        torch.randn(1, 16, 7, 8, 12), torch.tensor([3.0]), torch.randn(1, 4, 6), torch.randn(1, 7, 12), 3
    ).sample
    assert flow.isfinite().all()

    import numpy as np

    exec(metric, namespace := {})
    video = np.zeros((3, 8, 10, 3), np.uint8)
    video[:, :, ::2] = 90
    np.testing.assert_allclose(namespace["sharpness"](prediction=video), [90, 90, 90])


def _entry_points(pyproject: str) -> str:
    """What an installer makes of the entry points of a pyproject.toml."""
    groups = tomllib.loads(pyproject)["project"]["entry-points"]
    return "\n".join(
        f"[{group}]\n" + "\n".join(f"{name} = {place}" for name, place in points.items())
        for group, points in groups.items()
    )


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_recipes_named_in_the_docs_exist():
    known = recipe_names()
    pattern = re.compile(r"`((?:mini|wan1\.3b|ablations)/[\w.-]+)`")
    for page in PAGES:
        for name in pattern.findall(page.read_text(encoding="utf-8")):
            assert name.removesuffix(".yaml") in known, f"{page.name} names {name}"
            load_recipe(name)
