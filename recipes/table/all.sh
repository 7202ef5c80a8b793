#!/usr/bin/env bash
# The paper's table at the size of recipes/nano: every row is trained from one dense base, alike but for what it is named
# after, and scored on the same clips (docs/results.md).
#   bash recipes/table/all.sh OUT                                # all of it, within HOURS (25) of the clock; or: make table
#   ROWS="hydra window-only" SEEDS=2002 bash recipes/table/all.sh OUT     # one row, or some
# Every stage goes on where it stopped: run the same line again. Rows that HOURS left no time for stand in OUT/not-run.txt.
# BASE is what rows start from (rays; BASE_SCREEN likewise), where it is not to be trained here. STAGES="recipes data rows
# report" names what is done; CLIPS, SCORED, BASE_STEPS, ROW_STEPS, BATCH and SAMPLE_STEPS shorten everything. Clips and
# codec are those of recipes/nano/all.sh, which WORLD and CODEC narrow; they are found where it has made them in OUT.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?where to write}
stages=${STAGES:-recipes data rows report}
# shellcheck source=../common.sh
source "$here/../common.sh"
mkdir -p "$out/recipes"

declare -A changes=( # what sets a row apart from nano/hydra
  [hydra]=""
  [window-only]="model.memory.policy=none model.memory.top_k=0"
  [dense]="model.memory.policy=all model.memory.top_k=0" # its tokenizers are there, and read by nobody
  [context-as-memory]="model.memory.policy=frames-fov model.memory.top_k=5"
  [dense-joint]="model.memory.policy=all model.memory.top_k=0 model.memory.context=joint train.draws=1"
  [dfot]="model.memory.policy=recent model.memory.top_k=5 model.memory.context=joint train.draws=1 flow.noise=per-frame flow.loss=all sample.history_guidance=1.5"
  [random]="model.memory.policy=random"
  [oracle]="model.memory.policy=oracle"
  [fov]="model.memory.policy=fov"
  [spatial]="model.memory.affinity=spatial"
  [kernel-1x4x4]="model.memory.kernel=[1,4,4] model.memory.top_k=6" # twice as many slots, of half the time
  [kernel-2x8x8]="model.memory.kernel=[2,8,8]"
  [kernel-2x16x16]="model.memory.kernel=[2,16,16]"
  [top-k-1]="model.memory.top_k=1"
  [top-k-2]="model.memory.top_k=2"
  [top-k-5]="model.memory.top_k=5"
)
main="hydra window-only dense context-as-memory dense-joint dfot"
ablations="random oracle fov spatial kernel-1x4x4 kernel-2x8x8 kernel-2x16x16 top-k-1 top-k-2 top-k-5"
for row in ${ROWS:-}; do
  [[ -v changes[$row] ]] || { echo "no such row: $row; known: ${!changes[*]}" >&2; exit 2; }
done
read -r first others <<< "${SEEDS:-2002 2003 2004}"

order() { # row, seed and positions of every line, what matters most first
  for row in ${ROWS:-$main $ablations}; do echo "$row $first rays"; done
  for seed in $others; do
    for row in ${ROWS:-$main}; do echo "$row $seed rays"; done
  done
  for row in ${ROWS:-$main}; do
    for seed in $first $others; do echo "$row $seed screen"; done
  done
}

lines() { order | while read -r row seed positions; do
  [[ " ${POSITIONS:-rays screen} " != *" $positions "* ]] || echo "$row $seed $positions"
done; }

base_of() { if [ "$1" = rays ]; then echo "${BASE:-$out/base}"; else echo "${BASE_SCREEN:-$out/base-screen}"; fi; }

spent() { awk '{sum += $2} END {print sum + 0}' "$out/seconds.tsv" 2> /dev/null || echo 0; }

if wants recipes; then
  while read -r row seed positions; do
    # shellcheck disable=SC2046
    hm recipes show nano/hydra $(sets "${CODEC:-}") $(sets "${changes[$row]}") $(sets "seed=$seed model.positions=$positions") \
      --set "model.base=$(base_of "$positions")" --set "codec.path=$out/codec" --set train.dtype="$dtype" \
      ${ROW_STEPS:+--set train.steps="$ROW_STEPS" --set train.checkpoint_every="$ROW_STEPS"} \
      ${BATCH:+--set train.batch="$BATCH"} ${SAMPLE_STEPS:+--set sample.steps="$SAMPLE_STEPS"} \
      > "$out/recipes/$row-$seed-$positions.yaml"
  done < <(lines)
fi
if wants data; then
  STAGES="clips codec latents" bash "$here/../nano/all.sh" "$out"
  for positions in ${POSITIONS:-rays screen}; do
    base=$(base_of "$positions")
    [[ "$base" == "$out"/base* ]] || continue
    hm train nano/base --latents "$out/clips.latents" --out "$base" --set "model.positions=$positions" --set train.dtype="$dtype" \
      ${BASE_STEPS:+--set train.steps="$BASE_STEPS" --set train.checkpoint_every="$BASE_STEPS"} ${BATCH:+--set train.batch="$BATCH"}
  done
fi
if wants rows; then
  hm plan "$out/recipes" --latents "$out/clips.latents" >&2
  : > "$out/not-run.txt"
  while read -r row seed positions; do
    name="$row-$seed-$positions"
    if [ "$(spent)" -ge $((${HOURS:-25} * 3600)) ]; then
      echo "$name" >> "$out/not-run.txt"
      continue
    fi
    since=$SECONDS
    hm train "$out/recipes/$name.yaml" --latents "$out/clips.latents" --out "$out/$name"
    for side in ${SIDES:-seen test}; do
      hm generate "$out/$side.latents" --model "$out/$name" --out "$out/$name.$side"
      hm eval "$out/$name.$side" --reference "$out/$side" --out "$out/$name.$side.scores"
    done
    printf '%s\t%s\n' "$name" $((SECONDS - since)) >> "$out/seconds.tsv"
  done < <(lines)
fi
if wants report; then
  for side in ${SIDES:-seen test}; do
    hm bench rows "$out/$side" --row last-frame --row warp --row paste --row truth --row another --out "$out/$side.rows"
    groups=()
    for row in last-frame warp paste truth another; do
      hm eval "$out/$side.rows/$row" --reference "$out/$side" --out "$out/$side.rows.$row.scores"
      groups+=("--group" "$row=$out/$side.rows.$row.scores")
    done
    while read -r row seed positions; do
      scores="$out/$row-$seed-$positions.$side.scores"
      [ ! -f "$scores/manifest.json" ] || groups+=("--group" "$row ($positions)=$scores")
    done < <(lines)
    hm report "${groups[@]}" --out "$out/$side.html" --tables "$out/$side.tables" --title "The table, clips of $side"
  done
fi
