#!/usr/bin/env bash
# Runs the linter, the unit tests, verify and the notebooks under nbval; arguments go to the unit tests' pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/.ci/environment.sh"
prepare
export PYTHONDONTWRITEBYTECODE=1
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
# with the environment variables and the kernel of run_all.sh
pytest=("$python" -m radiodino_utils.workflow.processes with "$scratch/jupyter" pytest)

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy radiodino_utils
# a worker that dies is not replaced: xdist would wait for ever for the rest of its file
"${pytest[@]}" tests -n 2 --dist loadfile --max-worker-restart 0 "$@"
# every committed number again from results/*/predictions
"$python" -m radiodino_utils.cli verify
# the notebooks' tables and figures go to a scratch folder; each compares its committed outputs
export RADIODINO_RESULTS="$scratch/results"
nbval=("${pytest[@]}" --nbval --nbval-kernel-name radiodino --nbval-cell-timeout 7200 --nbval-sanitize-with notebooks/nbval.cfg --timeout 7200)
# two at a time, each with half of the processors; the last one collects what the others wrote
OMP_NUM_THREADS="$("$python" -c 'import os; print(max(1, os.cpu_count() // 2))')" \
    "${nbval[@]}" notebooks/0[0-8]*.ipynb notebooks/1*.ipynb -n 2 --dist loadfile --max-worker-restart 0
"${nbval[@]}" notebooks/09*.ipynb
