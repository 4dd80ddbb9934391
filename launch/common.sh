# shellcheck shell=bash
# What torchrun.sh, horovodrun.sh and mpirun.sh have in common. Sourced, not run.

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 2; }
note() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# The comment at the top of the script that was started.
help() { sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"; exit 0; }

# whole NAME VALUE LOWEST [HIGHEST]: VALUE of the variable NAME is a whole number in that range.
whole() {
    if ! [[ $2 =~ ^[0-9]{1,6}$ ]] || ((10#$2 < $3 || 10#$2 > ${4:-999999})); then
        die "$1=$2: expected a whole number of at least $3${4:+ and at most $4}"
    fi
}

# How many GPUs of this machine the ranks may use.
gpus() {
    local -a ids
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        IFS=, read -ra ids <<<"$CUDA_VISIBLE_DEVICES"
        [[ ${ids[0]:-} == -* ]] && ids=() # CUDA's way of saying none
        echo "${#ids[@]}"
    elif command -v nvidia-smi >/dev/null; then
        nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true
    else
        echo 0
    fi
}

# Ranks on this machine unless the user says: one per GPU; without a GPU one, which uses all cores. $1 is the variable to set.
default_ranks() {
    local found
    found=$(gpus)
    if ((found == 0)); then
        note "no GPU is visible: 1 rank (set $1 for more)"
        found=1
    fi
    echo "$found"
}

# hosts_ranks HOSTS: the sum of the slots in host1:8,host2:8; dies if it is not of that form.
hosts_ranks() {
    local total=0 entry
    local -a entries
    IFS=, read -ra entries <<<"$1"
    for entry in "${entries[@]}"; do
        [[ $entry =~ ^[A-Za-z0-9._-]+:([1-9][0-9]{0,4})$ ]] ||
            die "HOSTS=$1: '$entry' is not HOST:RANKS; expected for example HOSTS=host1:8,host2:8"
        total=$((total + BASH_REMATCH[1]))
    done
    ((total > 0)) || die "HOSTS=$1 names no host; expected for example HOSTS=host1:8,host2:8"
    echo "$total"
}

# share_cores RANKS: OMP_NUM_THREADS, unless set, such that the ranks of one machine do not fight for its cores.
share_cores() {
    local threads=$(($(nproc) / $1))
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
}

# use_interface: collectives go over the network interface IFACE, if the user names one.
use_interface() {
    [ -n "${IFACE:-}" ] || return 0
    export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$IFACE} NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$IFACE}
}

# The Python that runs the ranks, with its full path: a remote shell may have another one first in its PATH.
find_python() { command -v "${PYTHON:-python}" || die "${PYTHON:-python} was not found: activate the environment, or set PYTHON"; }

# need TOOL HINT
need() { command -v "$1" >/dev/null || die "$1 was not found: $2"; }

# go_on RESTARTS ARGUMENT...: sets `arguments`. Where the ranks may be started again, `train` continues what it finds in a
# directory that stays the same (runs/NAME, or --run-dir); --resume among the arguments or RESUME= (empty) overrides it.
go_on() {
    local restarts=$1 word
    shift
    arguments=("$@")
    [ "$restarts" = yes ] && [ -z "${PROGRAM:-}" ] && [ "${RESUME-auto}" = auto ] || return 0
    for word in "$@"; do
        case "$word" in --resume | --resume=*) return 0 ;; esac
    done
    case "${1:-train}" in evaluate | show | verify | schema | doctor | data) return 0 ;; esac
    arguments+=(--resume auto)
}

# Shows the command in a form that can be copied.
show() {
    {
        printf '+ OMP_NUM_THREADS=%s' "$OMP_NUM_THREADS"
        printf ' %q' "$@"
        printf '\n'
    } >&2
}

# Shows the command, then becomes it.
run() { show "$@"; exec "$@"; }

# run_again COMMAND: like run, and after a failure up to MAX_RESTARTS times again; not after wrong input (2), without a valid
# checkpoint (3), or when it was asked to stop (75, or a signal to this script, which is handed on).
run_again() {
    local left=${MAX_RESTARTS:-0} code child='' stopping=''
    [ "$left" -gt 0 ] || run "$@"
    trap 'stopping=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM INT
    while :; do
        show "$@"
        "$@" &
        child=$! code=0
        wait "$child" || code=$?
        [ -z "$stopping" ] || { code=0; wait "$child" || code=$?; } # a trapped signal ends the first wait early
        case "$code" in 0 | 2 | 3 | 75) exit "$code" ;; esac
        [ -z "$stopping" ] && [ "$left" -gt 0 ] || exit "$code"
        note "exit code $code; starting again ($left left)"
        left=$((left - 1))
    done
}
