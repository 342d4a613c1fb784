#!/bin/bash
# Open MPI, one process per GPU; hosts from MPI's own configuration:
#   PROCESSES=8 launch/clusters/mpirun.sh --config=... --workdir=...
# mpirun passes SIGTERM on to all processes, which save and leave; it kills them
# a second later unless it is told to wait.  Open MPI 5 is not detected by JAX:
# add --coordinator=HOST:PORT, HOST being that of process 0.
set -eu
exec mpirun -np "${PROCESSES:-2}" --bind-to none \
  --mca odls_base_sigkill_timeout 120 \
  "${VENV:-.venv}/bin/python" -m launch.train "$@"
