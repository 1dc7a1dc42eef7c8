# Sourced by run_all.sh and run_tests.sh: goes to the checkout, cleans what would run other code, and sets $python to the
# environment that is active, else to that of .venv, else to the Python that shall make .venv; see `prepare`.
fail() {
    echo "$*" >&2
    exit 1
}

unset CDPATH PIP_USER PIP_TARGET PIP_PREFIX
for name in BUSI MEDMNIST RADIMAGENET RADIODINO_DATA RADIODINO_FEATURES RADIODINO_RESULTS RADIODINO_SHARED HF_HOME; do
    # folders count from where the user stands
    case "${!name:-}" in "" | /* | "~"*) ;; *) export "$name=$PWD/${!name}" ;; esac
done
for name in $(compgen -e PYTHON); do
    case "$name" in PYTHONDONTWRITEBYTECODE | PYTHONPYCACHEPREFIX) ;; *) unset "$name" ;; esac
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "$PWD" in *:*) fail "$PWD: a path with ':' cannot be given to Python; move the checkout." ;; esac
# this checkout, whichever is installed in the environment
export PYTHONPATH="$PWD" PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 PYTHONUTF8=1

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

make_venv=
if [ -n "${VIRTUAL_ENV:-}" ]; then
    python="$VIRTUAL_ENV/bin/python"
elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then
    python="$CONDA_PREFIX/bin/python"
elif [ -x .venv/bin/python ]; then
    python="$PWD/.venv/bin/python"
else
    make_venv=yes
    for python in python3 python3.13 python3.12 python3.11 ""; do
        [ -n "$python" ] || fail "Python 3.11 or newer is needed and python3 is older or absent; install it, or activate a conda environment."
        ! is_new_enough "$python" || break
    done
fi
if [ -z "$make_venv" ]; then
    [ -x "$python" ] || fail "$python: the active environment has no Python; deactivate it, or install Python 3.11 in it."
    is_new_enough "$python" || fail "$python: Python 3.11 or newer is needed; activate an environment that has it."
fi

installed() {
    [ -z "$make_venv" ] && "$python" - requirements.txt <<'END'
import pathlib, re, sys
from importlib.metadata import PackageNotFoundError, version

def has(line):
    name, wanted = line.split("==")
    try:
        return version(name).partition("+")[0] == wanted  # 2.9.0+cpu is a build of 2.9.0
    except PackageNotFoundError:
        return False

sys.exit(not all(map(has, re.findall(r"^[\w-]+==[\w.]+", pathlib.Path(sys.argv[1]).read_text(), re.M))))
END
}

# Installs the pinned requirements where they are not.
prepare() {
    ! installed || return 0
    if [ -n "$make_venv" ]; then
        echo "no environment is active: making .venv with $("$python" --version)"
        rm -rf .venv.new
        "$python" -m venv .venv.new || fail "$python cannot make a virtual environment; install its venv module (Debian: apt install python3-venv)."
        mv .venv.new .venv # whole or not at all
        python="$PWD/.venv/bin/python" make_venv=
    fi
    echo "installing the pinned requirements into $(dirname "$(dirname "$python")") (about 7 GB, a few minutes)"
    "$python" -m pip install --quiet --disable-pip-version-check -r requirements.txt ||
        fail "the pinned requirements could not be installed; check the network, the disk space and pip's message above."
    if ! PYTHONPATH='' "$python" -c 'import radiodino_utils' 2>/dev/null; then # another checkout's stays
        PYTHONWARNINGS=ignore "$python" -m pip install --quiet --disable-pip-version-check --no-deps --editable . ||
            fail "the package could not be installed; see pip's message above."
    fi
    installed || fail "the environment lacks a pinned requirement although pip reported success; remove .venv and try again."
}
