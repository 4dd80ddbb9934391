#!/usr/bin/env bash
# Usage: tools/install-openmpi.sh
#
# Installs Open MPI with the system's package manager where that is possible: as root, with apt-get. Otherwise it says
# what is missing and what cannot run without it. Does nothing where mpirun and mpicxx are there.
set -euo pipefail

case "${1:-}" in
    -h | --help) sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"; exit 0 ;;
esac

missing=()
for tool in mpirun mpicxx; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing Open MPI (${missing[*]} missing)"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openmpi-bin libopenmpi-dev
    exit 0
fi

cat >&2 <<EOF
Open MPI is not complete: ${missing[*]} not found, and only root can install it here.
  Without it, Horovod is built with Gloo alone, and the tests that start ranks with mpirun are skipped; all others run.
  To run them too, have an administrator do: apt-get install openmpi-bin libopenmpi-dev
EOF
