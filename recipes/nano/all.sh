#!/usr/bin/env bash
# The smallest model with hybrid memory, from nothing: clips, codec, latents, one dense base, four rows, videos, scores.
#   bash recipes/nano/all.sh OUT
# Every stage goes on where it stopped: run the same line again. `seen` are clips of unseen seeds of the training side,
# `test` of other places and subjects. CLIPS, BASE_STEPS, ROW_STEPS, SCORED and SAMPLE_STEPS shorten everything;
# STAGES="clips codec latents base rows videos scores" and ROWS="window-only dense hydra oracle" name what is done.
# WORLD and CODEC are --set of the clips of the training side and of the codec, for a narrower world for example:
#   WORLD="world.places=1 world.subjects=[walker,robot,dog,ostrich]" CODEC="codec.channels=24 codec.whitening=0"
set -euo pipefail
out=${1:?where to write}
stages=${STAGES:-clips codec latents base rows videos scores}
rows=${ROWS:-window-only dense hydra oracle}
processes=${PROCESSES:-$(nproc)}
# shellcheck source=../common.sh
source "$(dirname "$0")/../common.sh"
mkdir -p "$out"

steps() { # --set train.steps of a stage, where it was asked for, with one checkpoint at the end
  [ -z "$1" ] || printf -- '--set train.steps=%s --set train.checkpoint_every=%s' "$1" "$1"
}

if wants clips; then
  # shellcheck disable=SC2046
  hm render nano/clips $(sets "${WORLD:-}") ${CLIPS:+--clips "$CLIPS"} --num-processes "$processes" --out "$out/clips"
  # shellcheck disable=SC2046
  hm render nano/clips $(sets "${WORLD:-}") --set seed=2500 --clips "${SCORED:-64}" --num-processes "$processes" --out "$out/seen"
  hm render nano/test --clips "${SCORED:-64}" --num-processes "$processes" --out "$out/test"
fi
if wants codec; then
  # shellcheck disable=SC2046
  hm train nano/blocks --latents "$out/clips" --out "$out/codec" $(sets "${CODEC:-}")
fi
codec=(--set "codec.path=$out/codec")
if wants latents; then
  for side in clips seen test; do
    hm encode "$out/$side" --recipe nano/hydra "${codec[@]}" --num-processes "${ENCODERS:-1}" --out "$out/$side.latents"
  done
fi
if wants base; then
  # shellcheck disable=SC2046
  hm train nano/base --latents "$out/clips.latents" --out "$out/base" --set train.dtype="$dtype" $(steps "${BASE_STEPS:-}")
fi
if wants rows; then
  jobs=()
  for row in $rows; do
    # shellcheck disable=SC2046
    hm train "nano/$row" --latents "$out/clips.latents" --out "$out/$row" --set train.dtype="$dtype" \
      --set model.base="$out/base" $(steps "${ROW_STEPS:-}") &
    jobs+=($!)
    [ "$dtype" = bfloat16 ] || wait "${jobs[-1]}" # side by side on a GPU that one row does not fill
  done
  for job in "${jobs[@]}"; do wait "$job"; done
fi
if wants videos; then
  for side in seen test; do
    for row in $rows; do
      hm generate "$out/$side.latents" --model "$out/$row" --out "$out/$side-$row" \
        ${SAMPLE_STEPS:+--set sample.steps="$SAMPLE_STEPS"}
    done
  done
fi
if wants scores; then
  for side in seen test; do
    for row in $rows; do
      hm eval "$out/$side-$row" --reference "$out/$side" --metric psnr --metric ssim --metric psnr-returned \
        --out "$out/$side-$row.scores"
    done
  done
fi
