#!/usr/bin/env bash
# Usage: launch/mpirun.sh [--] [train RECIPE.yaml key=value ...]
#
# Starts `disttrain` with the given arguments under Open MPI's mpirun: on this machine, or on several that can be reached by
# ssh without a password, with the same paths on all of them. Called once, on one machine. The ranks use torch DDP over a
# rendezvous made with MPI, or Horovod with `--engine horovod`.
#
#   launch/mpirun.sh train recipe.yaml                              # this machine, one rank per GPU
#   HOSTS=host1:8,host2:8 launch/mpirun.sh train recipe.yaml        # 16 ranks on two machines
#
# Environment:
#   HOSTS            machines and their ranks, as host1:8,host2:8 (default: this machine)
#   HOSTFILE         the same as a file in Open MPI's format, in place of HOSTS; needs NP
#   NP               ranks in all (default: all of HOSTS; without HOSTS one per visible GPU, without a GPU one)
#   IFACE            network interface that all machines have, for example eth0 (default: Open MPI tries all)
#   SSH_PORT, SSH_KEY    port and private key for ssh, if ~/.ssh/config does not say
#   MAX_RESTARTS     how often to start everything again after a failure (default 0)
#   RESUME           with MAX_RESTARTS: auto (default) adds `--resume auto`, so that each start goes on in the same directory,
#                    runs/NAME or --run-dir; empty adds nothing
#   PROGRAM          what to run in place of `-m disttrain`, for example my_loop.py
#   PYTHON           the Python of the ranks (default: python, as found here)
#   OMP_NUM_THREADS  threads per rank (default: this machine's cores divided by its ranks)
#
# Handed on to all machines: PATH, PYTHONPATH, LD_LIBRARY_PATH, VIRTUAL_ENV, OMP_NUM_THREADS and everything that is called
# DISTTRAIN_*, NCCL_*, GLOO_*, HOROVOD_* or TORCH_*.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case "${1:-}" in
    -h | --help) help ;;
    --) shift ;;
esac

need mpirun "install Open MPI (Debian, Ubuntu: apt-get install openmpi-bin libopenmpi-dev)"
version=$(mpirun --version 2>&1 || true)
[[ $version == *"Open MPI"* || $version == *"open-mpi"* ]] ||
    die "this mpirun is not Open MPI (${version%%$'\n'*}); with another MPI, start 'python -m disttrain' with its own options"
python=$(find_python)
read -ra program <<<"${PROGRAM:--m disttrain}"

# Ranks are not bound to cores: each has threads of its own.
options=(--bind-to none)
[ "$(id -u)" -ne 0 ] || options+=(--allow-run-as-root)
if [ -n "${HOSTS:-}" ]; then
    [ -z "${HOSTFILE:-}" ] || die "HOSTS and HOSTFILE are both set: set one of them"
    slots=$(hosts_ranks "$HOSTS")
    ranks=${NP:-$slots}
    whole NP "$ranks" 1 "$slots"
    share_cores "$(hosts_ranks "${HOSTS%%,*}")"
    options+=(-np "$ranks" -H "$HOSTS")
elif [ -n "${HOSTFILE:-}" ]; then
    [ -f "$HOSTFILE" ] || die "HOSTFILE=$HOSTFILE: no such file"
    [ -n "${NP:-}" ] || die "HOSTFILE needs NP, the number of ranks in all"
    [ -n "${OMP_NUM_THREADS:-}" ] || die "HOSTFILE needs OMP_NUM_THREADS, the threads per rank"
    whole NP "$NP" 1
    options+=(-np "$NP" --hostfile "$HOSTFILE")
else
    ranks=${NP:-$(default_ranks NP)}
    whole NP "$ranks" 1
    share_cores "$ranks"
    options+=(-np "$ranks" --oversubscribe) # more ranks than cores: then they yield while they wait
fi
use_interface
whole MAX_RESTARTS "${MAX_RESTARTS:-0}" 0
[ -z "${IFACE:-}" ] || options+=(--mca btl_tcp_if_include "$IFACE" --mca oob_tcp_if_include "$IFACE")
ssh_options="${SSH_PORT:+-p $SSH_PORT }${SSH_KEY:+-i $SSH_KEY}"
[ -z "$ssh_options" ] || options+=(--mca plm_rsh_args "$ssh_options")
while IFS= read -r name; do
    options+=(-x "$name")
done < <(compgen -e | grep -E '^(PATH|PYTHONPATH|LD_LIBRARY_PATH|VIRTUAL_ENV|OMP_NUM_THREADS|(DISTTRAIN|NCCL|GLOO|HOROVOD|TORCH)_.*)$')
if [ "${MAX_RESTARTS:-0}" -gt 0 ]; then restarts=yes; else restarts=no; fi
go_on "$restarts" "$@"
run_again mpirun "${options[@]}" "$python" "${program[@]}" "${arguments[@]}"
