#!/usr/bin/env bash
# Usage: tools/make-venv.sh VENV
#
# Makes the virtual environment VENV with $PYTHON (default python3, 3.11 or newer) and installs $TORCH into it (default:
# the version in constraints.txt). Torch comes first and alone: everything else is then resolved, and Horovod is built,
# against that torch. Writes VENV/constraints.txt, constraints.txt with the version of torch that was installed.
#
# $TORCH is what pip understands: torch==2.11.0, a wheel, or options too, as "torch --index-url URL".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { printf '%s\n' "$@" >&2; exit 1; }

case "${1:-}" in
    -h | --help) sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"; exit 0 ;;
    '') die "tools/make-venv.sh: name the folder of the virtual environment" ;;
esac
venv=$1
python=${PYTHON:-python3}

command -v "$python" >/dev/null || die "$python was not found; name a Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$python is $("$python" --version); disttrain needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python ($("$python" --version)) cannot make virtual environments: its ensurepip module is missing." \
            "On Debian and Ubuntu it is a package of its own: apt-get install python3-venv" \
            "Or use another Python: make PYTHON=/path/to/python3.11 ..."
    "$python" -m venv "$venv"
fi

# Once asked for, a torch stays until another one is asked for.
pin=$(grep '^torch==' constraints.txt)
request=${TORCH:-$(cat "$venv/torch-request" 2>/dev/null || echo "$pin")}
read -ra torch <<<"$request"
grep -v '^torch==' constraints.txt >"$venv/constraints.txt"
"$venv/bin/python" -m pip install --constraint "$venv/constraints.txt" "${torch[@]}"
installed=$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))')
[ -z "${TORCH:-}" ] || printf '%s\n' "$TORCH" >"$venv/torch-request"
echo "torch==$installed" >>"$venv/constraints.txt"
