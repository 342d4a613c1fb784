"""How the processes of one run find each other; flags of launch.train.

On Slurm (srun), Open MPI (mpirun), a GKE indexed Job or a TPU pod nothing needs
to be said: JAX knows their variables.  Elsewhere give --coordinator,
--num_processes and --process_id, or the same as JAX_COORDINATOR_ADDRESS,
JAX_NUM_PROCESSES and JAX_PROCESS_ID.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

import jax
from absl import flags

_DISTRIBUTED = flags.DEFINE_enum(
  "distributed",
  "auto",
  ["auto", "on", "off"],
  "Whether this is one of several processes; auto: if its environment says so.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of process 0; a free port."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Of the whole run.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Of this process: 0 to num_processes - 1.", lower_bound=0
)

# What says the same as the flags.
_VARIABLES = {
  "coordinator": "JAX_COORDINATOR_ADDRESS",
  "num_processes": "JAX_NUM_PROCESSES",
  "process_id": "JAX_PROCESS_ID",
}
_OPEN_MPI = {
  "num_processes": "OMPI_COMM_WORLD_SIZE",
  "process_id": "OMPI_COMM_WORLD_RANK",
}
# Seconds without a sign of life after which a process counts as dead and the
# others stop.
_HEARTBEAT_SECONDS = 60


class DistributedError(ValueError):
  """Processes cannot find each other; the message says what is missing."""


def in_a_cluster(environment) -> bool:
  """Whether the environment is of one of several processes that JAX detects.

  Args:
    environment: os.environ or the like.
  """

  def number(name):
    text = environment.get(name, "")
    return int(text) if text.isdigit() else 0

  return (
    # SLURM_STEP_ID: inside srun, not in the batch script itself.
    ("SLURM_STEP_ID" in environment and number("SLURM_NTASKS") > 1)
    or number("OMPI_COMM_WORLD_SIZE") > 1
    or "JOB_COMPLETION_INDEX" in environment
    or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
  )


def explicit(environment) -> dict | None:
  """Returns what flags, or else the environment, say; None if nothing.

  Raises:
    DistributedError: if only some is said.
  """
  by_flag = {
    "coordinator": _COORDINATOR.value,
    "num_processes": _NUM_PROCESSES.value,
    "process_id": _PROCESS_ID.value,
  }
  given = any(value is not None for value in by_flag.values())
  said = {
    name: environment.get(variable) if by_flag[name] is None else by_flag[name]
    for name, variable in _VARIABLES.items()
  }
  if given:
    # Open MPI 5, which JAX does not detect, numbers its processes all the same.
    for name, variable in _OPEN_MPI.items():
      if said[name] is None:
        said[name] = environment.get(variable)
  elif None in said.values() and in_a_cluster(environment):
    return None  # Some of them set one of the variables for their own use.
  missing = [f"--{name}" for name, value in said.items() if value is None]
  if len(missing) == len(said):
    return None
  if missing:
    raise DistributedError(
      f"{', '.join(missing)} missing: give all of --coordinator, "
      "--num_processes and --process_id, or none where the cluster is detected"
    )
  count, index = int(said["num_processes"]), int(said["process_id"])
  if index >= count:
    raise DistributedError(
      f"--process_id is {index}, expected 0 to {count - 1} of "
      f"--num_processes={count}"
    )
  return {
    "coordinator_address": said["coordinator"],
    "num_processes": count,
    "process_id": index,
  }


def initialize() -> None:
  """Joins the other processes, if there are any; before JAX is used.

  Raises:
    DistributedError: if they cannot be found.
  """
  if _DISTRIBUTED.value == "off":
    return
  arguments = explicit(os.environ)
  if arguments is None:
    if _DISTRIBUTED.value == "auto" and not in_a_cluster(os.environ):
      return
    arguments = {}
  try:
    jax.distributed.initialize(
      **arguments, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
    )
  except (ValueError, RuntimeError) as e:
    raise DistributedError(
      "the other processes cannot be joined: "
      f"{' '.join(str(e).split())}. Give --coordinator, --num_processes and "
      "--process_id, or --distributed=off to train in this process alone"
    ) from e


@contextlib.contextmanager
def ending() -> Iterator[None]:
  """Ends a process of several that has failed, at once.

  An ordinary end waits for the others, which wait for this one in the middle of
  a step: minutes pass.  They miss its signs of life, or its socket, instead.
  """
  try:
    yield
  except BaseException as e:
    if jax.process_count() == 1 or (isinstance(e, SystemExit) and not e.code):
      raise
    if isinstance(e, SystemExit) and isinstance(e.code, str):
      print(e.code, file=sys.stderr)
    else:
      traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
