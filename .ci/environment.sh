# Sourced by run_all.sh and run_tests.sh: sets $python to an environment that has the pinned requirements.
# An active virtual or conda environment (not conda's base) is used; else .venv is made here.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "$*" >&2
    exit 1
}

if [ -n "${VIRTUAL_ENV:-}" ]; then
    python="$VIRTUAL_ENV/bin/python"
elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then
    python="$CONDA_PREFIX/bin/python"
else
    python=.venv/bin/python
    if [ ! -x "$python" ]; then
        for candidate in python3 python3.13 python3.12 python3.11; do
            if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
                base="$candidate"
                break
            fi
        done
        [ -n "${base:-}" ] || fail "Python 3.11 or newer is needed and python3 is older or absent; install it, or activate a conda environment."
        echo "no environment is active: making .venv with $("$base" --version)"
        rm -rf .venv.new
        "$base" -m venv .venv.new || fail "$base cannot make a virtual environment; install its venv module (Debian: apt install python3-venv)."
        mv .venv.new .venv # whole or not at all
    fi
fi
[ -x "$python" ] || fail "$python: the active environment has no Python; deactivate it, or install Python 3.11 in it."
python="$(cd "$(dirname "$python")" && pwd)/$(basename "$python")"

installed() {
    "$python" -I - requirements.txt "$PWD" <<'END'
import importlib.util, pathlib, re, sys
from importlib.metadata import PackageNotFoundError, version

def has(line):
    name, wanted = line.split("==")
    try:
        return version(name) == wanted
    except PackageNotFoundError:
        return False

pins = re.findall(r"^[\w-]+==[\w.]+", pathlib.Path(sys.argv[1]).read_text(), re.M)
spec = importlib.util.find_spec("radiodino_utils")
here = spec is not None and pathlib.Path(spec.origin).parents[1] == pathlib.Path(sys.argv[2]).resolve()
sys.exit(not (here and all(map(has, pins))))
END
}

if ! installed; then
    echo "installing the pinned requirements into $(dirname "$(dirname "$python")") (about 7 GB, a few minutes)"
    { "$python" -m pip install --quiet --disable-pip-version-check -r requirements.txt &&
        PYTHONWARNINGS=ignore "$python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .; } ||
        fail "the pinned requirements could not be installed; check the network, the disk space and pip's message above."
    installed || fail "the environment lacks a pinned requirement although pip reported success; remove .venv and try again."
fi
