#!/usr/bin/env bash
# All that is to be measured on one GPU.
#
#   bash benchmarks/gpu.sh          the tests of CUDA, kills, memory and speed beside diffusers, into docs/performance.md
#   bash benchmarks/gpu.sh train    Ho et al.'s network on 6 million images, and its FID beside the published ones: hours
#
# Both may be killed: `train` goes on where it was, the other begins anew. Everything that is printed is kept in $OUT.
# Needs pip install '.[bench,fid,test]', and for `train` the download of CIFAR-10 and of Inception.
#
# From the environment: BATCH (128; fewer where the memory is too small for several networks at once), OUT (gpu), RUN
# (runs/ho), PYTHON (python), DRY=1 (print the commands alone), and DEVICE=cpu QUICK=1, which takes the same way at tiny
# sizes, writes into $OUT/page.md, and says nothing of speed.
set -euo pipefail
export CUBLAS_WORKSPACE_CONFIG=:4096:8    # which programs of the library need on CUDA
cd "$(dirname "${BASH_SOURCE[0]}")/.."
WHAT=${1:-table} DEVICE=${DEVICE:-cuda} OUT=${OUT:-gpu} RUN=${RUN:-runs/ho} PYTHON=${PYTHON:-python}
BATCH=${BATCH:-128} QUICK=${QUICK:-} DRY=${DRY:-} FAILED=()

die() {
    echo "gpu.sh: $1" >&2
    exit 2
}

# part NAME COMMAND...: run it, keep what it prints in $OUT/NAME.txt, and go on where it fails.
part() {
    local name=$1 began=$SECONDS
    shift
    if [ -n "$DRY" ]; then
        printf '%q ' "$@"
        echo
        return
    fi
    echo "== $name: $*"
    if "$@" 2>&1 | tee "$OUT/$name.txt"; then
        echo "== $name took $((SECONDS - began)) s" | tee -a "$OUT/seconds.txt"
    else
        FAILED+=("$name")
        echo "== $name failed after $((SECONDS - began)) s" | tee -a "$OUT/seconds.txt"
    fi
}

# has MODULE [EXTRA]: refuse a machine without a package.
has() {
    "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" ||
        die "$1 is not installed; pip install '.${2:+[$2]}'"
}

# place NAME PROGRAM: a page of its own for the figures that PROGRAM writes between two comments.
place() {
    [ -n "$DRY" ] || printf '%s\n' "<!-- $1: written by benchmarks/$2 -->" "<!-- $1: end -->" >"$OUT/page.md"
}

# The figures that other commands than against.py printed, as Markdown.
summary() {
    echo "### Memory"
    echo
    sed -n '/^A training step/,$p' "$OUT/memory.txt"
    echo
    echo "### Exactness"
    echo
    echo "\`tests/train/test_cuda.py\`: $(tail -n 1 "$OUT/tests.txt")."
    echo
    echo "\`benchmarks/kill_and_continue.py\`, the real command line: $(tail -n 1 "$OUT/kills.txt")."
}

table() {
    local page=() sizes=(--sizes ho --batch "$BATCH") kills=(--kills 2 --length "3000 steps") how=(--compile)
    local memory=(--size ho --batch "$BATCH" --dtype bfloat16)
    if [ -n "$QUICK" ]; then
        place "$DEVICE" against.py
        page=("$OUT/page.md") sizes=(--sizes tiny) kills=(--kills 1 --length "30 steps") memory=(--size tiny --batch 4) how=(--quick)
    fi
    part tests "$PYTHON" -m pytest -q -n 0 -rs tests/train/test_cuda.py
    part kills "$PYTHON" benchmarks/kill_and_continue.py "${kills[@]}"
    part memory "$PYTHON" benchmarks/peak_memory.py --device "$DEVICE" "${memory[@]}"
    [ -n "$DRY" ] || summary >"$OUT/summary.md"
    part against "$PYTHON" benchmarks/against.py --device "$DEVICE" "${sizes[@]}" "${how[@]}" \
        --parts training settings inference drawing randomness --also "$OUT/summary.md" --write "${page[@]}"
}

train() {
    local train=(cifar10 --train.length "6000000 images" --train.dtype auto) page=()
    local judged=(--fid --num 50000 --seeds 1 --batch-size 512 --no-memorisation) fast=() slow=(--sampler ancestral --steps 1000)
    if [ -n "$QUICK" ]; then
        place "cuda training" published_curve.py
        page=("$OUT/page.md") fast=(--steps 2) slow=(--sampler ancestral --steps 5)
        judged=(--num 16 --seeds 1 --batch-size 8 --no-memorisation)
        train=(digits --train.length "12 steps" --train.warmup "0 steps" --train.batch_size 8 --model.channels 16 --model.groups 8
            --grids.steps 2 --grids.log_spaced 1 --log.held_out_images 0 --data.store "$OUT/digits")
    fi
    part train "$PYTHON" -m unstir train "${train[@]}" --out "$RUN" --train.device "$DEVICE"
    [ "${#FAILED[@]}" -eq 0 ] || return 0 # stopped or failed: nothing is judged before it is trained
    part fid "$PYTHON" -m unstir evaluate "$RUN" "${judged[@]}" "${fast[@]}" --device "$DEVICE"
    part fid-ancestral "$PYTHON" -m unstir evaluate "$RUN" "${judged[@]}" "${slow[@]}" --device "$DEVICE"
    part curve "$PYTHON" benchmarks/published_curve.py "$RUN" --write "${page[@]}"
}

case $WHAT in table | train) ;; *) die "$WHAT is unknown; type nothing more, or train" ;; esac
if [ -z "$DRY" ]; then
    if [ -z "$QUICK" ] && [ "$DEVICE" = cpu ]; then
        die "DEVICE=cpu needs QUICK=1; a CPU is measured by python benchmarks/against.py"
    fi
    has torch
    if [ "$DEVICE" != cpu ] && ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        die "torch sees no CUDA GPU on this machine; DEVICE=cpu QUICK=1 bash benchmarks/gpu.sh tries the script without one"
    fi
    has pytest test
    has torch_fidelity fid
    has denoising_diffusion_pytorch bench
    mkdir -p "$OUT"
    : >"$OUT/seconds.txt"
fi
"$WHAT"
if [ "${#FAILED[@]}" -gt 0 ]; then
    echo "gpu.sh: failed: ${FAILED[*]}; what they printed is in $OUT" >&2
    exit 1
fi
