#!/usr/bin/env bash
# Usage: launch/torchrun.sh [--] [train RECIPE.yaml key=value ...]
#
# Starts `disttrain` with the given arguments under torchrun: on one machine, or, called once on each of them, on several.
#
#   launch/torchrun.sh train recipe.yaml                                           # this machine, one rank per GPU
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host1 launch/torchrun.sh train recipe.yaml    # on host1
#   NNODES=2 NODE_RANK=1 MASTER_ADDR=host1 launch/torchrun.sh train recipe.yaml    # on host2
#
# Environment:
#   NPROC_PER_NODE   ranks on this machine (default: one per visible GPU; without a GPU one)
#   NNODES           machines (default 1), or a range MIN:MAX for elastic runs
#   MASTER_ADDR      for several machines: host name or address of the first, as all others reach it
#   MASTER_PORT      for several machines: a free port there (default 29500)
#   NODE_RANK        for several machines: number of this one, from 0; without it they find their order by themselves (c10d)
#   RDZV_ID          without NODE_RANK: name of the job, the same on all machines (default disttrain)
#   MAX_RESTARTS     how often torchrun starts the ranks again after a failure (default 0)
#   RESUME           with MAX_RESTARTS, or where machines come and go: auto (default) adds `--resume auto`, so that each start
#                    goes on in the same directory, runs/NAME or --run-dir; empty adds nothing
#   IFACE            network interface for Gloo and NCCL, for example eth0 (default: theirs)
#   PROGRAM          what to run in place of `-m disttrain`, for example my_loop.py
#   OMP_NUM_THREADS  threads per rank (default: this machine's cores divided by its ranks)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case "${1:-}" in
    -h | --help) help ;;
    --) shift ;;
esac

need torchrun "activate the environment that torch is installed in"
read -ra program <<<"${PROGRAM:--m disttrain}"
ranks=${NPROC_PER_NODE:-$(default_ranks NPROC_PER_NODE)}
nodes=${NNODES:-1}
port=${MASTER_PORT:-29500}
whole NPROC_PER_NODE "$ranks" 1
whole MASTER_PORT "$port" 1 65535
whole MAX_RESTARTS "${MAX_RESTARTS:-0}" 0
share_cores "$ranks"
use_interface

options=(--nproc_per_node="$ranks" --max_restarts="${MAX_RESTARTS:-0}")
if [ "$nodes" = 1 ]; then
    [ "${NODE_RANK:-0}" = 0 ] || die "NODE_RANK=$NODE_RANK of one machine: set NNODES to the number of machines"
    options+=(--standalone)
else
    [ -n "${MASTER_ADDR:-}" ] || die "NNODES=$nodes: set MASTER_ADDR to the first machine's name or address, the same on all machines"
    options+=(--nnodes="$nodes")
    case "$nodes" in
        *:*)
            whole "NNODES (least)" "${nodes%%:*}" 1
            whole "NNODES (most)" "${nodes#*:}" "${nodes%%:*}"
            [ -z "${NODE_RANK:-}" ] || die "NNODES=$nodes is elastic, machines come and go: unset NODE_RANK"
            # Otherwise a machine that joins later waits for an address that the first one never writes (torch 2.13).
            export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=${TORCH_DISABLE_SHARE_RDZV_TCP_STORE:-1}
            ;;
        *) whole NNODES "$nodes" 1 ;;
    esac
    if [ -n "${NODE_RANK:-}" ]; then
        whole NODE_RANK "$NODE_RANK" 0 $((nodes - 1))
        options+=(--node_rank="$NODE_RANK" --master_addr="$MASTER_ADDR" --master_port="$port")
    else
        options+=(--rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:$port" --rdzv_id="${RDZV_ID:-disttrain}")
    fi
fi
case "$nodes:${MAX_RESTARTS:-0}" in *:*:* | *:*[1-9]*) restarts=yes ;; *) restarts=no ;; esac
go_on "$restarts" "$@"
run torchrun "${options[@]}" "${program[@]}" "${arguments[@]}"
