#!/bin/sh
# Provide pw.x and pseudopotentials: what is on this machine, else Debian's packages, else (without
# root) the pw.x of the Python package qepy and Debian's data package unpacked into .venv.
set -eu

cd "$(dirname "$0")/.."
root=$PWD
data=.venv/share/espresso/pseudo
PATH="$root/.venv/bin:$PATH"
export PATH

say() {
    echo "install: $*"
}

# install.sh refuses such a path in general; this script may be called alone.
case $root in
    *\'*) echo "install: the path of the checkout, $root, has a quote in it: move the checkout." >&2; exit 1 ;;
esac

has_pseudos() {
    for folder in "${ESPRESSO_PSEUDO:-$data}" "$data" /usr/share/espresso/pseudo; do
        if [ -f "$folder/Si.pz-vbc.UPF" ]; then
            return 0
        fi
    done
    return 1
}

is_root_on_debian() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

install_debian() {
    say "installing Debian's $*"
    apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$@" >/dev/null
}

# numpy below 2, which qepy needs, has no wheels for Python 3.13.
qepy_python() {
    for candidate in .venv/bin/python python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c \
            'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))'; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

install_qepy() {
    say "pw.x is not on PATH; installing the one of the Python package qepy into .venv-qepy"
    python=$(qepy_python) || {
        echo "install: qepy needs a Python 3.9 to 3.12, and there is none on PATH." >&2
        return 1
    }
    rm -rf .venv-qepy
    "$python" -m venv .venv-qepy || return 1
    PIP_CONSTRAINT="$root/constraints-qepy.txt" PIP_DISABLE_PIP_VERSION_CHECK=1 \
        .venv-qepy/bin/python -m pip install -q --no-input --only-binary :all: qepy || return 1
    {
        echo '#!/bin/sh'
        # -I: AiiDA's daemon hands its own PYTHONPATH to the jobs, with a numpy qepy cannot use.
        echo "exec '$root/.venv-qepy/bin/python' -I -m qepy --pw.x \"\$@\""
    } >.venv-qepy/bin/pw.x
    chmod +x .venv-qepy/bin/pw.x
    ln -sf "$root/.venv-qepy/bin/pw.x" .venv/bin/pw.x
}

# apt can download for anybody when it keeps its lists in a folder of ours.
unpack_debian_data() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    say "unpacking Debian's pseudopotentials into $data"
    unpack=$(mktemp -d "$root/.venv/apt.XXXXXX")
    mkdir -p "$unpack/lists/partial" "$unpack/cache/archives/partial" "$unpack/out"
    if (
        cd "$unpack"
        set -- -q -o "Dir::State::Lists=$unpack/lists" -o "Dir::Cache=$unpack/cache" \
            -o Debug::NoLocking=1 -o APT::Sandbox::User=
        apt-get "$@" update >/dev/null 2>&1
        apt-get "$@" download quantum-espresso-data >/dev/null 2>&1
        dpkg -x quantum-espresso-data_*.deb out
    ); then
        mkdir -p "$data"
        cp "$unpack"/out/usr/share/espresso/pseudo/* "$data"/
    fi
    rm -rf "$unpack"
    has_pseudos
}

if ! command -v pw.x >/dev/null; then
    if ! { is_root_on_debian && install_debian quantum-espresso quantum-espresso-data libopenblas0-serial; }; then
        install_qepy || {
            rm -rf .venv-qepy
            echo "install: no pw.x: put one on PATH, or install it as root with 'apt-get install quantum-espresso quantum-espresso-data', and run this again." >&2
            exit 1
        }
    fi
fi
# Debian's BLAS without optimisation makes pw.x several times slower.
blas=$(ldd "$(command -v pw.x)" 2>/dev/null | awk '$1 == "libblas.so.3" { print $3 }')
case $(readlink -f "${blas:-/}") in
    */blas/libblas.so*) say "pw.x uses Debian's slow reference BLAS; 'apt-get install libopenblas0-serial' as root makes it faster" ;;
esac
if ! has_pseudos; then
    if ! { is_root_on_debian && install_debian quantum-espresso-data; } && ! unpack_debian_data; then
        # `mlip-auto setup` tries the SSSP family next, and says what to type when that fails too.
        say "Debian's pseudopotentials could not be fetched; 'mlip-auto setup' will look for others"
    fi
fi
