#!/usr/bin/env bash
# Usage: launch/horovodrun.sh [--] [train RECIPE.yaml key=value ...]
#
# Starts `disttrain` with the given arguments under horovodrun: on this machine, or on several that can be reached by ssh
# without a password, with the same paths on all of them. Called once, on one machine.
#
#   launch/horovodrun.sh train recipe.yaml                              # this machine, one rank per GPU
#   HOSTS=host1:8,host2:8 launch/horovodrun.sh train recipe.yaml        # 16 ranks on two machines
#
# Environment:
#   HOSTS            machines and their ranks, as host1:8,host2:8 (default: this machine)
#   NP               ranks in all (default: all of HOSTS; without HOSTS one per visible GPU, without a GPU one)
#   CONTROLLER       gloo (default) or mpi: what starts and coordinates the ranks; mpi needs a Horovod that was built with it
#   IFACE            network interface that all machines have, for example eth0 (default: horovodrun looks for one)
#   SSH_PORT, SSH_KEY    port and private key for ssh, if ~/.ssh/config does not say
#   MAX_RESTARTS     how often to start everything again after a failure (default 0)
#   RESUME           with MAX_RESTARTS: auto (default) adds `--resume auto`, so that each start goes on in the same directory,
#                    runs/NAME or --run-dir; empty adds nothing
#   PROGRAM          what to run in place of `-m disttrain`, for example my_loop.py
#   PYTHON           the Python of the ranks (default: python, as found here)
#   OMP_NUM_THREADS  threads per rank (default: this machine's cores divided by its ranks)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case "${1:-}" in
    -h | --help) help ;;
    --) shift ;;
esac

need horovodrun "activate the environment that Horovod is installed in, or build it with launch/install-horovod.sh"
python=$(find_python)
read -ra program <<<"${PROGRAM:--m disttrain}"
controller=${CONTROLLER:-gloo}
case "$controller" in
    gloo) ;;
    mpi) need mpirun "CONTROLLER=mpi starts the ranks with it; install Open MPI, or unset CONTROLLER" ;;
    *) die "CONTROLLER=$controller: expected gloo or mpi" ;;
esac

options=("--$controller")
if [ -n "${HOSTS:-}" ]; then
    slots=$(hosts_ranks "$HOSTS")
    ranks=${NP:-$slots}
    whole NP "$ranks" 1 "$slots"
    share_cores "$(hosts_ranks "${HOSTS%%,*}")"
    options+=(-np "$ranks" -H "$HOSTS")
else
    ranks=${NP:-$(default_ranks NP)}
    whole NP "$ranks" 1
    share_cores "$ranks"
    options+=(-np "$ranks" -H "localhost:$ranks")
fi
use_interface
whole MAX_RESTARTS "${MAX_RESTARTS:-0}" 0
[ -z "${IFACE:-}" ] || options+=(--network-interfaces "$IFACE")
[ -z "${SSH_PORT:-}" ] || options+=(--ssh-port "$SSH_PORT")
[ -z "${SSH_KEY:-}" ] || options+=(--ssh-identity-file "$SSH_KEY")
if [ "${MAX_RESTARTS:-0}" -gt 0 ]; then restarts=yes; else restarts=no; fi
go_on "$restarts" "$@"
run_again horovodrun "${options[@]}" "$python" "${program[@]}" "${arguments[@]}"
