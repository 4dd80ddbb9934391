#!/usr/bin/env bash
# Usage: launch/install-horovod.sh [PYTHON]
#
# Builds Horovod against the torch that is installed in PYTHON (default: $PYTHON, else `python`) and installs it there:
# Gloo always, MPI where mpicxx is found, NCCL where torch is a CUDA build and nvcc and nccl.h are found.
# Says so and returns at once if the installed Horovod was built for exactly this. Ends with `horovodrun --check-build`.
#
# Needs: torch and pip in PYTHON, g++ (or $CXX), cmake, make.
# Environment:
#   HOROVOD_NCCL_HOME   where NCCL lies, if neither in a system folder nor beside torch (as a Python package)
#   HOROVOD_CUDA_HOME   where the CUDA toolkit lies (default: $CUDA_HOME, or where nvcc is, or /usr/local/cuda)
#   HOROVOD_BUILD_CUDA_CC_LIST   compute capabilities to build for, as 80,90 (default: all that nvcc knows)
#   PIP_CONSTRAINT      versions of the packages that Horovod needs (as for every pip)
#   XDG_CACHE_HOME      built wheels are kept below it (default ~/.cache), keyed by what they were built for
set -euo pipefail

readonly VERSION=0.28.1

say() { printf 'install-horovod: %s\n' "$*"; }
die() { printf 'install-horovod: %s\n' "$*" >&2; exit 1; }

case "${1:-}" in
    -h | --help) sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"; exit 0 ;;
esac
[ $# -le 1 ] || die "one argument at most, a Python; got: $*"
python=$(command -v "${1:-${PYTHON:-python}}") || die "no such Python: ${1:-${PYTHON:-python}}"

# --- what there is -----------------------------------------------------------------------------------------------
# One line each: torch's version, its commit, its CUDA, the platform, the environment's root, NCCL's Python package.
# Read from files, without the seconds that `import torch` takes.
facts=$("$python" - <<'PY'
import importlib.util as util, runpy, sys, sysconfig

def folder(name):
    try:
        return util.find_spec(name).submodule_search_locations[0]
    except (ImportError, AttributeError):
        return ""

torch = runpy.run_path(folder("torch") + "/version.py") if folder("torch") else sys.exit(1)
print(torch["__version__"], torch["git_version"], torch["cuda"] or "cpu", sep="\n")
print(sys.implementation.cache_tag, sysconfig.get_platform())
print(sys.prefix, folder("nvidia.nccl") or "none", sep="\n")
PY
) || die "$python has no torch: install the torch you want first, Horovod is built against it"
{
    read -r torch_version
    read -r torch_commit
    read -r torch_cuda
    read -r platform
    read -r prefix
    read -r beside_torch
} <<<"$facts"

mpi=none
if command -v mpicxx >/dev/null; then
    mpi=$(mpicxx --showme:version 2>/dev/null || mpicxx -v 2>&1) # Open MPI's option, else MPICH's
    mpi=${mpi%%$'\n'*}
fi

# NCCL: its header in a system folder, in the CUDA toolkit, or in the Python package that torch brings along.
nccl=none nccl_home='' nvcc='' why_no_nccl=''
if [ "$torch_cuda" = cpu ]; then
    why_no_nccl="torch $torch_version is a CPU build"
else
    nvcc=$(command -v "${HOROVOD_CUDA_HOME:-${CUDA_HOME:-/usr/local/cuda}}/bin/nvcc" || command -v nvcc || true)
    for home in "${HOROVOD_NCCL_HOME:-}" "${nvcc%/bin/nvcc}" /usr /usr/local "$beside_torch"; do
        if [ -n "$home" ] && [ -f "$home/include/nccl.h" ]; then
            nccl_home=$home
            break
        fi
    done
    if [ -z "$nvcc" ]; then
        why_no_nccl="nvcc of CUDA $torch_cuda was not found; set HOROVOD_CUDA_HOME"
    elif [[ "$("$nvcc" --version)" != *"release ${torch_cuda%%.*}."* ]]; then
        why_no_nccl="$nvcc is of another CUDA than torch's $torch_cuda; set HOROVOD_CUDA_HOME"
    elif [ -z "$nccl_home" ]; then
        why_no_nccl="nccl.h was not found; set HOROVOD_NCCL_HOME"
    else
        nccl=$(awk '/#define NCCL_(MAJOR|MINOR|PATCH)/ {v = v s $3; s = "."} END {print v}' "$nccl_home/include/nccl.h")
    fi
fi

# --- is it there already? ----------------------------------------------------------------------------------------
# What makes a build fit: torch to the commit, Python, the machine, MPI, NCCL. pip's own wheel cache knows only
# "horovod==0.28.1", and a wheel built against another torch loads with missing symbols or, worse, wrong layouts.
build="horovod $VERSION, torch $torch_version ($torch_commit, cuda $torch_cuda), $platform, MPI: $mpi, NCCL: $nccl ${HOROVOD_BUILD_CUDA_CC_LIST:-}"

installed() { # what is installed now: the hash of the list of files of Horovod, each with its own hash in it
    "$python" - <<'PY'
import hashlib, importlib.metadata as m
try:
    print(hashlib.sha256((m.distribution("horovod").read_text("RECORD") or "").encode()).hexdigest())
except m.PackageNotFoundError:
    print("none")
PY
}
works() { "$python" -c 'import horovod.torch'; }

stamp=$prefix/.horovod-build
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$build"$'\n'"$(installed)" ] && works 2>/dev/null; then
    say "already built: $build"
    exit 0
fi

# --- build or take from the cache --------------------------------------------------------------------------------
say "Horovod $VERSION for torch $torch_version in $python, with"
say "  Gloo: yes"
if [ "$mpi" = none ]; then say "  MPI:  no (no mpicxx; apt-get install openmpi-bin libopenmpi-dev)"; else say "  MPI:  yes ($mpi)"; fi
if [ "$nccl" = none ]; then say "  NCCL: no ($why_no_nccl)"; else say "  NCCL: yes ($nccl in $nccl_home, $nvcc)"; fi

# Horovod's setup.py imports setuptools from this very Python, and without build isolation pip brings nothing.
"$python" -m pip install --quiet "setuptools<81" wheel packaging cffi cloudpickle psutil pyyaml numpy

key=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.argv[1].encode()).hexdigest()[:16])' "$build")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/disttrain/wheels/horovod-$VERSION-torch$torch_version-$key
wheel=$(find "$cache" -name 'horovod-*.whl' 2>/dev/null | head -n 1 || true)

if [ -n "$wheel" ]; then
    say "a wheel built for exactly this is in the cache: $wheel"
else
    compiler=${CXX:-g++}
    for tool in "$compiler" cmake make; do
        command -v "$tool" >/dev/null || die "$tool is missing; Horovod is compiled with a C++17 compiler, cmake and make"
    done
    tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT

    # Horovod asks for C++14, torch's headers need C++17: a wrapper before the compiler replaces the flag.
    cat >"$tmp/c++" <<WRAPPER
#!/usr/bin/env bash
arguments=("\${@/#-std=c++14/-std=c++17}")
exec "$(command -v "$compiler")" "\${arguments[@]/#-std=gnu++14/-std=c++17}"
WRAPPER
    chmod +x "$tmp/c++"
    export CXX=$tmp/c++

    export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1
    export CMAKE_POLICY_VERSION_MINIMUM=3.5 # the bundled Gloo asks for a policy that CMake 4 no longer has
    if [ "$mpi" = none ]; then export HOROVOD_WITHOUT_MPI=1; else export HOROVOD_WITH_MPI=1; fi
    if [ "$nccl" != none ]; then
        # The names by which torch, Horovod's CMake files and its Python find the toolkit.
        cuda_home=${nvcc%/bin/nvcc}
        export CUDA_HOME=$cuda_home HOROVOD_CUDA_HOME=$cuda_home PATH=$cuda_home/bin:$PATH HOROVOD_GPU_OPERATIONS=NCCL
        if [ "$nccl_home" = "$beside_torch" ]; then
            # The Python package has libnccl.so.2 and not the name the linker asks for. At run time torch has loaded it.
            mkdir -p "$tmp/nccl"
            ln -s "$nccl_home/include" "$tmp/nccl/include"
            ln -s "$nccl_home/lib/libnccl.so.2" "$tmp/nccl/libnccl.so"
            export HOROVOD_NCCL_INCLUDE=$tmp/nccl/include HOROVOD_NCCL_LIB=$tmp/nccl HOROVOD_NCCL_LINK=SHARED
        else
            export HOROVOD_NCCL_HOME=$nccl_home
        fi
    fi

    MAKEFLAGS=-j$(nproc) # not those of a make that called us
    export MAKEFLAGS
    say "compiling; this takes some minutes"
    # --no-binary and --no-cache-dir: never a wheel that somebody built against another torch.
    "$python" -m pip wheel --quiet --no-build-isolation --no-deps --no-binary horovod --no-cache-dir \
        --wheel-dir "$tmp/wheel" "horovod==$VERSION" ||
        die "the build failed, see the compiler's messages above"
    mkdir -p "$cache"
    printf '%s\n' "$build" >"$cache/build.txt"
    built=$(find "$tmp/wheel" -name 'horovod-*.whl')
    wheel=$cache/$(basename "$built")
    cp "$built" "$wheel.$$" # the rename comes last: an interrupted copy is never taken for a wheel
    mv "$wheel.$$" "$wheel"
fi

"$python" -m pip install --quiet --no-deps --force-reinstall "$wheel"
works || die "Horovod was built and does not load, see above"
printf '%s\n%s\n' "$build" "$(installed)" >"$stamp"
say "built: $build"
"$python" -c 'import sys; from horovod.runner.launch import run_commandline; sys.argv = ["horovodrun", "--check-build"]; run_commandline()'
