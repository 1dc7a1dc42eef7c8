#!/usr/bin/env bash
# Runs the linter, the unit tests and the notebooks under nbval; arguments go to the unit tests' pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/.ci/environment.sh"
export PYTHONDONTWRITEBYTECODE=1
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pytest tests -n 2 --dist loadfile "$@"
# the notebooks' tables and figures go to a scratch folder; each compares its committed outputs
RADIODINO_RESULTS="$scratch" "$python" -m pytest notebooks --nbval --nbval-current-env --nbval-cell-timeout 900 \
    --nbval-sanitize-with notebooks/nbval.cfg --timeout 1800
