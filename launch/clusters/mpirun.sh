#!/bin/bash
# Open MPI, one process per GPU; hosts from MPI's own configuration:
#   PROCESSES=8 launch/clusters/mpirun.sh --config=... --workdir=...
# mpirun passes SIGTERM on to all processes, which save and leave.
set -eu
exec mpirun -np "${PROCESSES:-2}" --bind-to none \
  "${VENV:-.venv}/bin/python" -m launch.train "$@"
