"""hm fetch: published files into the hub's cache, whole or not at all; names of the hub wherever a path is taken."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_hub import Repo, SmallHub, serving
from warm import WarmCommand, ok, wait_for

from hmcli import hub as names
from hmcli.errors import MissingPartError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.stages.fetching.catalogue import CATALOGUE
from hmcli.stages.models.folders import PACKAGED
from hmcli.store.manifest import read_manifest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
BIG = random.Random(3).randbytes(300_000)
WEIGHTS = "hydra/model.ckpt"
FILES = {"README.md": b"---\nlicense: apache-2.0\n---\n", "config.json": b"{}", WEIGHTS: BIG}
HYDRA = "H-EmbodVis/HyDRA"


@pytest.fixture
def small_hub() -> Iterator[SmallHub]:
    with serving(SmallHub(repos={HYDRA: Repo(files=dict(FILES))})) as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def fetch(hm: WarmCommand, small_hub: SmallHub, cache: Path, tmp_path: Path) -> Run:
    env = {"HF_ENDPOINT": small_hub.url, "NO_PROXY": "127.0.0.1", "HF_HOME": str(tmp_path / "home")}

    def run(*args: object, **more: str) -> subprocess.CompletedProcess[str]:
        return hm("fetch", *args, cwd=tmp_path, env=env | {"HF_HUB_CACHE": str(cache)} | more)

    return run


def contents(snapshot: Path) -> dict[str, bytes]:
    return {f.relative_to(snapshot).as_posix(): f.read_bytes() for f in snapshot.rglob("*") if f.is_file()}


def got(small_hub: SmallHub) -> list[str]:
    """Files whose bytes were asked for, with their ranges."""
    paths = [line.removeprefix("GET ") for line in small_hub.asked if "/resolve/" in line]
    first = [path for path in paths if not (path.startswith("/H") and WEIGHTS in path)]  # that one is redirected
    return [path.partition(f"/resolve/{'a' * 40}/")[2] for path in first]


def test_a_known_name_is_fetched_whole_into_the_hub_s_own_cache(fetch: Run, small_hub: SmallHub, cache: Path):
    done = fetch("hydra")
    snapshot = ok(done)
    assert snapshot == cache / "models--H-EmbodVis--HyDRA" / "snapshots" / ("a" * 40)
    assert contents(snapshot) == FILES
    assert "licence: apache-2.0" in done.stderr
    assert f"hm convert {snapshot}" in done.stderr
    from huggingface_hub import hf_hub_download, scan_cache_dir

    found = hf_hub_download(HYDRA, WEIGHTS, cache_dir=cache, local_files_only=True)  # by main
    assert Path(found).read_bytes() == BIG
    (repo,) = scan_cache_dir(cache).repos
    assert (repo.repo_id, repo.nb_files, list(repo.refs)) == (HYDRA, 3, ["main"])


def test_json_says_the_commit_the_licence_and_every_hash(fetch: Run):
    import hashlib

    said = json.loads(fetch("hydra", "--json").stdout)
    assert (said["kind"], said["exit_code"], said["counts"]["files"]) == ("weights", 0, 3)
    assert said["details"]["commit"] == "a" * 40
    assert said["details"]["licence"] == "apache-2.0"
    assert said["details"]["files"][WEIGHTS] == {
        "bytes": len(BIG), "hash": f"sha256:{hashlib.sha256(BIG).hexdigest()}"
    }  # fmt: skip
    assert said["details"]["files"]["config.json"]["hash"].startswith("git:")


def test_a_later_fetch_holds_to_the_commit_and_needs_no_network(fetch: Run, small_hub: SmallHub):
    ok(fetch("hydra"))
    small_hub.repos[HYDRA] = Repo(files=FILES | {"config.json": b"[]"}, commit="b" * 40)
    before = len(small_hub.asked)
    assert contents(ok(fetch("hydra", HF_ENDPOINT="http://127.0.0.1:9"))) == FILES
    assert len(small_hub.asked) == before
    newer = ok(fetch("hydra", "--update"))
    assert newer.name == "b" * 40
    assert contents(newer)["config.json"] == b"[]"
    assert [
        line for line in small_hub.asked[before:] if "model.ckpt" in line
    ] == []  # the same bytes are not fetched again
    assert ok(fetch("hydra")) == newer
    assert ok(fetch("hydra", "--revision", "a" * 40)).name == "a" * 40


def test_a_file_that_is_damaged_on_disk_is_noticed_and_fetched_again(fetch: Run, small_hub: SmallHub):
    snapshot = ok(fetch("hydra"))
    damaged = (snapshot / WEIGHTS).resolve()
    damaged.write_bytes(BIG[:-1] + bytes([BIG[-1] ^ 1]))
    (snapshot / "config.json").unlink()
    small_hub.asked.clear()
    done = fetch("hydra")
    assert contents(ok(done)) == FILES
    assert f"{WEIGHTS} is not as it was published" in done.stderr
    assert got(small_hub) == [WEIGHTS]


MB = 1 << 20
CHUNK = 10 * MB  # what the hub's library writes at once
LARGE = random.Random(4).randbytes(26 * MB)


def test_a_cut_transfer_goes_on_where_it_stopped(fetch: Run, small_hub: SmallHub):
    small_hub.repos[HYDRA].files[WEIGHTS] = LARGE
    small_hub.cuts[WEIGHTS] = [11 * MB, 12 * MB]
    assert contents(ok(fetch("hydra"))) == FILES | {WEIGHTS: LARGE}
    ranges = [name for name in got(small_hub) if WEIGHTS in name]
    assert ranges == [WEIGHTS, f"{WEIGHTS} bytes={CHUNK}-", f"{WEIGHTS} bytes={2 * CHUNK}-"]


def test_a_fetch_that_ended_in_the_middle_is_known_as_such_and_the_next_one_goes_on(
    fetch: Run, small_hub: SmallHub, cache: Path
):
    small_hub.repos[HYDRA].files[WEIGHTS] = LARGE
    small_hub.cuts[WEIGHTS] = [11 * MB]
    small_hub.status[WEIGHTS] = [0, 0, 500]
    done = fetch("hydra")
    assert done.returncode == 75, done.stderr
    assert "it goes on" in done.stderr
    assert not (cache / "models--H-EmbodVis--HyDRA" / "refs").exists()
    with pytest.raises(MissingPartError, match=r"not fetched to its end: 1 of 3(.|\n)*hm fetch H-EmbodVis/HyDRA"):
        names.local(f"hf://{HYDRA}@{'a' * 40}")
    small_hub.status.clear()
    small_hub.asked.clear()
    assert contents(ok(fetch("hydra"))) == FILES | {WEIGHTS: LARGE}
    assert got(small_hub)[0] == f"{WEIGHTS} bytes={CHUNK}-"


@pytest.mark.parametrize(
    ("sent", "kept", "damaged"),
    [(0, 0, False), (11 * MB, CHUNK, False), (25 * MB, 2 * CHUNK, False), (11 * MB, CHUNK, True)],
)
def test_a_fetch_that_was_killed_goes_on_and_nothing_of_it_is_taken_for_whole(
    hm: WarmCommand, fetch: Run, small_hub: SmallHub, cache: Path, tmp_path: Path, sent: int, kept: int, damaged: bool
):
    small_hub.repos[HYDRA].files[WEIGHTS] = LARGE
    small_hub.stalls[WEIGHTS] = sent
    env = {"HF_ENDPOINT": small_hub.url, "NO_PROXY": "127.0.0.1", "HF_HOME": str(tmp_path / "home")}
    running = hm.start("fetch", "hydra", cwd=tmp_path, env=env | {"HF_HUB_CACHE": str(cache)})
    wait_for(lambda: not small_hub.stalls and sum(map(size_of, cache.rglob("*.hm-part"))) >= kept)
    running.send_signal(signal.SIGKILL)
    assert running.wait().returncode == -signal.SIGKILL
    small_hub.released.set()
    assert not list(cache.rglob("model.ckpt"))
    with pytest.raises(MissingPartError):
        names.local(f"hf://{HYDRA}")
    if damaged:
        for file in cache.rglob("*.hm-part"):
            file.write_bytes(bytes(size_of(file)))
    small_hub.asked.clear()
    done = fetch("hydra")
    if damaged:  # what goes on from damage is noticed at its end, and thrown away
        assert done.returncode == 3, done.stderr
        assert "did not arrive as the hub states it" in done.stderr
        assert not list(cache.rglob("model.ckpt"))
        done = fetch("hydra")
    else:
        assert [name for name in got(small_hub) if WEIGHTS in name] == [WEIGHTS + (f" bytes={kept}-" if kept else "")]
    assert contents(ok(done)) == FILES | {WEIGHTS: LARGE}


def size_of(file: Path) -> int:
    return file.stat().st_size


def test_a_server_that_knows_no_ranges_sends_the_whole_file_again(fetch: Run, small_hub: SmallHub):
    small_hub.repos[HYDRA].files[WEIGHTS] = LARGE
    small_hub.cuts[WEIGHTS], small_hub.ranges = [11 * MB], False
    assert contents(ok(fetch("hydra"))) == FILES | {WEIGHTS: LARGE}


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_bytes_of_another_hash_are_refused_and_never_used(fetch: Run, small_hub: SmallHub, cache: Path, name: str):
    data = FILES[name]
    small_hub.altered[name] = data[:-1] + b"?"
    done = fetch("hydra")
    assert done.returncode == 3, done.stderr
    assert "did not arrive as the hub states it" in done.stderr
    assert name in done.stderr
    assert not any(data[:-1] + b"?" == f.read_bytes() for f in cache.rglob("*") if f.is_file())
    small_hub.altered.clear()
    assert contents(ok(fetch("hydra"))) == FILES


def test_a_commit_whose_hashes_change_is_not_trusted(fetch: Run, small_hub: SmallHub):
    ok(fetch("hydra"))
    small_hub.repos[HYDRA].files["config.json"] = b"{ }"
    done = fetch("hydra", "--include", "*.json")
    assert done.returncode == 3
    assert "other hashes for a commit" in done.stderr


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, 5, "hf auth login"),
        (403, 5, "does not let you read"),
        (404, 2, "no such repository"),
        (500, 75, "status 500"),
    ],
)
def test_answers_of_the_hub_end_with_what_to_do(fetch: Run, small_hub: SmallHub, status: int, code: int, message: str):
    small_hub.status[HYDRA] = [status]
    done = fetch("hydra")
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stdout == ""


def test_without_a_network_it_says_so(fetch: Run):
    done = fetch("hydra", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 5
    assert "the hub cannot be reached" in done.stderr
    offline = fetch("hydra", HF_HUB_OFFLINE="1")
    assert offline.returncode == 2
    assert "HF_HUB_OFFLINE" in offline.stderr
    ok(fetch("hydra"))
    assert contents(ok(fetch("hydra", HF_HUB_OFFLINE="1"))) == FILES


@pytest.mark.parametrize("answer", [b"<html>sign in to the airport</html>", b"[]", b'{"id": "x"}'])
def test_an_answer_that_is_none_of_the_hub_is_said(fetch: Run, small_hub: SmallHub, answer: bytes):
    small_hub.answers[HYDRA] = answer
    done = fetch("hydra")
    assert done.returncode == 3, done.stderr
    assert "hub" in done.stderr


def test_a_part_is_fetched_by_patterns_and_the_rest_later(fetch: Run, small_hub: SmallHub):
    assert contents(ok(fetch("hydra", "--include", "*.json"))).keys() == {"config.json"}
    both = json.loads(fetch("hydra", "--include", "*.ckpt", "--json").stdout)
    assert both["details"]["files"].keys() == {"config.json", WEIGHTS}  # an earlier part stays a part of it
    none = fetch("hydra", "--include", "*.tar")
    assert none.returncode == 2
    assert "no file of the repository is asked for" in none.stderr
    assert contents(ok(fetch("hydra"))) == FILES
    small_hub.asked.clear()
    assert contents(ok(fetch("hydra", "--include", "*.json"))) == FILES
    assert small_hub.asked == []


def test_a_dry_run_says_what_it_would_fetch_and_fetches_nothing(fetch: Run, cache: Path):
    done = fetch("hydra", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    assert "3 files, 300 kB" in done.stderr
    assert not cache.exists()


def test_any_repository_and_data_sets_are_fetched_by_the_hub_s_names(fetch: Run, small_hub: SmallHub, cache: Path):
    small_hub.repos["datasets/KlingTeam/HM-World"] = Repo(files={"part.tar.000": BIG}, licence=None)
    small_hub.repos["some/one"] = Repo(files={"a.bin": b"x"})
    for name in ("hm-world", "hf://datasets/KlingTeam/HM-World"):
        done = fetch(name)
        assert ok(done) == cache / "datasets--KlingTeam--HM-World" / "snapshots" / ("a" * 40)
        assert "states no licence" in done.stderr
    assert contents(ok(fetch("some/one"))) == {"a.bin": b"x"}
    unknown = fetch("nothing")
    assert unknown.returncode == 2
    assert "wan2.1-1.3b, hydra, hm-world, clip, dino, lpips" in unknown.stderr
    assert fetch("no/such").returncode == 2


def test_pickled_twins_and_what_is_not_needed_stay_on_the_hub(fetch: Run, small_hub: SmallHub):
    both = {"config.json": b"{}", "model.safetensors": BIG, "pytorch_model.bin": BIG + b"1", "tf_model.h5": BIG + b"2"}
    small_hub.repos["facebook/dino-vitb16"] = Repo(files=both)
    assert contents(ok(fetch("dino"))).keys() == {"config.json", "model.safetensors"}
    small_hub.repos["openai/clip-vit-base-patch32"] = Repo(files={n: b for n, b in both.items() if n[:5] != "model"})
    assert contents(ok(fetch("clip"))).keys() == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_names_that_lead_out_of_the_cache_are_refused(fetch: Run, small_hub: SmallHub, name: str):
    small_hub.repos[HYDRA].files[name] = b"x"
    done = fetch("hydra")
    assert done.returncode == 3
    assert "in an odd way" in done.stderr


def test_without_a_name_the_known_ones_are_listed(fetch: Run):
    said = json.loads(fetch("--json").stdout)["names"]
    assert [row["name"] for row in said] == list(CATALOGUE)
    assert "H-EmbodVis/HyDRA" in fetch().stdout
    assert fetch("--update").returncode == 2


# --- names of the hub where a path is taken --------------------------------------------------------------------------


def test_a_name_is_a_place_in_the_cache_and_an_existing_path_comes_first(
    fetch: Run, small_hub: SmallHub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    snapshot = ok(fetch("hydra"))
    monkeypatch.chdir(tmp_path)
    at = "a" * 40
    for text in (HYDRA, f"hf://{HYDRA}", f"hf:/{HYDRA}", f"hf://{HYDRA}@main", f"hf://{HYDRA}@{at}"):
        assert names.local(text) == str(snapshot)
    assert names.local(f"hf://{HYDRA}/{WEIGHTS}") == str(snapshot / WEIGHTS)
    (tmp_path / HYDRA).mkdir(parents=True)
    assert names.local(HYDRA) == HYDRA
    for text in ("mini", "runs/x", "a/b/c", "/a/b", "./a/b", "../a", "~/x", ""):
        assert names.local(text) == text


@pytest.mark.parametrize("text", ["hf://no/such", f"hf://{HYDRA}@dev", f"hf://datasets/{HYDRA}", f"hf://{HYDRA}/none"])
def test_what_is_not_in_the_cache_is_named_with_its_fetch_command(fetch: Run, text: str):
    ok(fetch("hydra"))
    with pytest.raises(MissingPartError, match="hm fetch "):
        names.local(text)
    with pytest.raises(UsageError):
        names.local("hf://only-one")
    with pytest.raises(MissingPartError):
        names.local(f"hf://{HYDRA}/../../refs/main")  # which is there


def test_recipes_take_names_of_the_hub(fetch: Run, cache: Path):
    snapshot = ok(fetch("hydra"))
    found = load_recipe(
        None, ["codec.name=wan2.1", f"codec.path=hf://{HYDRA}/hydra", f"text.path={HYDRA}", "text.name=umt5"]
    )
    assert found.codec.path == str(snapshot / "hydra")
    assert found.text.path == str(snapshot)
    several = load_recipe(
        None, ["eval.backbone=[dino,clip]", f"eval.backbone_path=[{HYDRA},/elsewhere]", f"eval.lpips_path={HYDRA}"]
    )
    assert several.eval.backbone_path == (str(snapshot), "/elsewhere")
    assert several.eval.lpips_path == str(snapshot)
    with pytest.raises(MissingPartError, match="hm fetch Wan-AI/Wan"):
        load_recipe(None, ["codec.name=wan2.1", "codec.path=hf://Wan-AI/Wan/vae"])


def test_a_model_is_converted_by_its_name_without_a_network(
    fetch: Run, hm: WarmCommand, small_hub: SmallHub, cache: Path, tmp_path: Path
):
    released = ok(hm("convert", "mini", "--to", "released", "--out", tmp_path / "mini.safetensors"))
    small_hub.repos["some/model"] = Repo(files={"mini.safetensors": released.read_bytes()})
    env = {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": small_hub.url}
    settings = ["--recipe", "mini/hydra", "--set", "model.memory.top_k=2"]
    missing = hm("convert", "some/model", *settings, cwd=tmp_path, env=env)
    assert missing.returncode == 2
    assert "hm fetch some/model" in missing.stderr
    surely = hm("convert", "hf://some/model", *settings, cwd=tmp_path, env=env)
    assert surely.returncode == 5
    assert "hm fetch some/model" in surely.stderr
    assert small_hub.asked == []
    assert not cache.exists()
    ok(fetch("some/model"))
    small_hub.asked.clear()
    made = ok(hm("convert", "some/model", *settings, cwd=tmp_path, env=env))
    assert made == tmp_path / "model.checkpoint"
    assert read_manifest(made).counts["parameters"] > 1000
    assert small_hub.asked == []


def test_a_model_of_hm_on_the_hub_is_used_by_its_name(
    fetch: Run, hm: WarmCommand, small_hub: SmallHub, cache: Path, tmp_path: Path
):
    small_hub.repos["some/mini"] = Repo(files=contents(PACKAGED))
    snapshot = ok(fetch("some/mini"))
    env = {"HF_HUB_CACHE": str(cache)}
    seen = hm("inspect", "some/mini", "--verify", "--json", cwd=tmp_path, env=env)
    assert json.loads(seen.stdout)["fingerprint"] == read_manifest(PACKAGED).fingerprint, seen.stderr
    made = ok(hm("convert", "some/mini", "--out", tmp_path / "made", cwd=tmp_path, env=env))
    again = ok(hm("convert", PACKAGED, "--out", tmp_path / "again", cwd=tmp_path, env=env))
    assert [f.read_bytes() for f in sorted(made.rglob("*.safetensors"))] == [
        f.read_bytes() for f in sorted(again.rglob("*.safetensors"))
    ]
    weights = snapshot / "transformer" / "diffusion_pytorch_model.safetensors"
    (tmp_path / "elsewhere").write_bytes(weights.read_bytes())
    weights.unlink()
    weights.symlink_to(tmp_path / "elsewhere")
    led_out = hm("convert", "some/mini", "--out", tmp_path / "no", cwd=tmp_path, env=env)
    assert led_out.returncode == 3
    assert "leads out of the folder" in led_out.stderr
