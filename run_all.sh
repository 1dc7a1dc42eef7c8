#!/usr/bin/env bash
# Runs the notebooks of a profile and makes results/PROFILE/report.html; see ./run_all.sh --help.
set -euo pipefail
start=$PWD # from which paths in the options count
source "$(dirname "${BASH_SOURCE[0]}")/.ci/environment.sh"
if ! installed; then
    # --help, --list and a wrong name need no 7 GB: exit code 3 says that the rest does
    (cd "$start" && "$python" -m radiodino_utils.workflow.command "$@") && exit 0 || [ $? -eq 3 ] || exit 2
    prepare
fi
cd "$start"
exec "$python" -m radiodino_utils.cli run "$@"
