#!/bin/bash
# A TPU slice of several hosts, one process per host, found by JAX itself:
#   TPU=my-slice ZONE=us-central1-a launch/clusters/tpu_pod.sh --config=... \
#     --workdir=/mnt/shared/gan
# The checkout with its environment and the data are at the same paths on all
# hosts; the workdir is on storage that all of them see.
set -eu
directory="${DIRECTORY:-w2l_jax}"
arguments=$(printf ' %q' "$@")
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd $directory && .venv/bin/python -m launch.train --distributed=on$arguments"
