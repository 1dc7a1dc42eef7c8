#!/usr/bin/env bash
# Runs the notebooks of a profile and makes results/PROFILE/report.html; see ./run_all.sh --help.
set -euo pipefail
case " $* " in *" --help "* | *" -h "*)
    cd "$(dirname "${BASH_SOURCE[0]}")" && exec python3 -m radiodino_utils.runner --help ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/.ci/environment.sh"
exec "$python" -m radiodino_utils.runner "$@"
