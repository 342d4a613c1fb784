"""How the processes of one run find each other; flags of launch.train.

On Slurm (srun), Open MPI (mpirun), a GKE indexed Job or a TPU pod nothing needs
to be said: JAX knows their variables.  Elsewhere give --coordinator,
--num_processes and --process_id, or the same as JAX_COORDINATOR_ADDRESS,
JAX_NUM_PROCESSES and JAX_PROCESS_ID.
"""

import contextlib
import os
import sys
import threading
import time
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
# Where a process that fails says so, and how often the others look.
_FAILED, _LISTEN_SECONDS = "w2l_jax/failed", 0.5


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
  """Ends all processes as soon as one has failed.

  An ordinary end waits for the others, which wait for this one in the middle of
  a step: minutes pass.  So it tells them, by what they found each other by, and
  leaves at once; a process that is told does so, too.
  """
  if jax.process_count() == 1:
    yield
    return
  client = _client()
  ended = threading.Event()
  listener = threading.Thread(target=_listen, args=(client, ended), daemon=True)
  if client is not None:
    listener.start()
  try:
    yield
  except BaseException as e:
    if isinstance(e, SystemExit) and not e.code:
      raise
    if isinstance(e, SystemExit) and isinstance(e.code, str):
      text = e.code
      print(text, file=sys.stderr)
    else:
      text = f"{type(e).__name__}: {e}"
      traceback.print_exc()
    _tell(client, text)
    _leave()
  finally:
    ended.set()
    if listener.is_alive():
      listener.join()


def _client():
  """Returns JAX's client of the service that joins the processes, or None.

  It is not part of JAX's interface: where it is not there, the others miss a
  process by its socket or signs of life, after up to a minute.
  """
  try:
    from jax._src import distributed as internal

    return internal.global_state.client
  except (ImportError, AttributeError):
    return None


def _tell(client, text: str) -> None:
  """Tells the other processes that this one has failed."""
  if client is None:
    return
  said = f"process {jax.process_index()} has failed: {text}"
  # The service may be gone, or another process may have failed before.
  with contextlib.suppress(Exception):
    client.key_value_set(_FAILED, said)
  # The service is in process 0: without it, the others learn that it is gone,
  # and not why.
  if jax.process_index() == 0:
    time.sleep(2 * _LISTEN_SECONDS)


def _listen(client, ended: threading.Event) -> None:
  """Leaves if another process has failed; a thread, for the main one waits."""
  mine = f"process {jax.process_index()} "
  while not ended.wait(_LISTEN_SECONDS):
    try:
      said = client.key_value_try_get(_FAILED)
    except Exception:  # noqa: BLE001 (it is not there; no kind of its own)
      continue
    if not said.startswith(mine):
      print(f"{said}\nall processes leave", file=sys.stderr)
      _leave()


def _leave() -> None:
  """Ends this process here and now, with status 1."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(1)
