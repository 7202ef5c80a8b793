#!/usr/bin/env bash
# Short trainings of nano/base that differ in one thing each: what they decide stands in docs/results.md.
#   CLIPS=240 SCORED=32 STAGES="clips codec latents" bash recipes/nano/all.sh OUT    # what they are trained and scored on
#   bash recipes/nano/pilots.sh OUT
# Every stage goes on where it stopped. PILOTS="rays adamw" names some of them; SEEDS="2001 2003 2004" repeats them; STEPS,
# SCORED (clips that are generated) and SAMPLE_STEPS shorten everything.
set -euo pipefail
out=${1:?the folder that all.sh wrote to}
declare -A changes=(
  [rays]=""
  [screen]="model.positions=screen"
  [adamw]="train.optimizer=adamw"
  [logit-normal]="flow.density=logit-normal"
  [unweighted]="train.subject_weight=0"
  [patch-2]="model.patch=[1,2,2]"
)
alike=(train.batch=4 train.draws=4 train.warmup=40 train.ema=0.98 train.held_out=24 train.checkpoint_every=100)
alike+=("train.steps=${STEPS:-400}" "train.dtype=${DTYPE:-float32}")

mapfile -t scored < <(find "$out/seen" -mindepth 1 -maxdepth 1 -type d -name 's*' -printf '%f\n' | sort | head -n "${SCORED:-16}")
for seed in ${SEEDS:-2001}; do
  for pilot in ${PILOTS:-rays screen adamw logit-normal unweighted patch-2}; do
    run="$out/pilot-$pilot-$seed"
    # shellcheck disable=SC2086
    hm train nano/base --latents "$out/clips.latents" --out "$run" $(printf -- '--set %s ' "seed=$seed" "${alike[@]}" ${changes[$pilot]})
    # shellcheck disable=SC2046
    hm generate "$out/seen.latents" --model "$run" --out "$run.videos" --set "sample.steps=${SAMPLE_STEPS:-10}" \
      $(printf -- '--clips %s ' "${scored[@]}")
    hm eval "$run.videos" --reference "$out/seen" --metric psnr --metric psnr-returned --out "$run.scores"
  done
done
