"""What a run saves: steps in Orbax's folders, each array with a checksum."""

import contextlib
import json
import math
import os
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers

from w2l_jax.sharding import all_agree, same_everywhere

STEPS = "checkpoints"
# Where checkpoints that cannot be read are moved: nothing is deleted.
_DAMAGED = "damaged"

# Orbax's, at every checkpoint that was not evaluated, and where a part of a
# step is read without the rest: as it should be.
_NO_NEWS = ("did not provide metrics", "Metadata file does not exist")
logging.get_absl_logger().addFilter(
  lambda record: not any(text in str(record.msg) for text in _NO_NEWS)
)


class CheckpointError(ValueError):
  """A checkpoint cannot be used; the message names it and says what to do."""


class CheckpointStore:
  """Saves a run's states in the background and restores the newest."""

  def __init__(self, workdir: str, keep: int, best: tuple | None = None):
    """Opens the store.

    Args:
      workdir: of the run.
      keep: how many of the newest checkpoints to keep.
      best: (name of a metric, "min" or "max"): the best checkpoint by it is
        kept too, of those that were saved with their metrics.

    Raises:
      ValueError: if `best` has another word.
    """
    self._workdir = workdir
    self._best = best
    self._told: set[str] = set()
    policies = [checkpoint_managers.LatestN(keep)]
    if best:
      name, mode = best
      factor = sign(mode)
      policies.append(
        checkpoint_managers.BestN(
          # best_metric may be another than in the run's beginning.
          get_metric_fn=lambda metrics: (
            factor * metrics.get(name, -factor * float("inf"))
          ),
          n=1,
          keep_checkpoints_without_metrics=False,
        )
      )
    self._options = ocp.CheckpointManagerOptions(
      # Not max_to_keep with best_fn, which deletes the newest where it is not
      # the best; but without best_fn no metrics are written.
      best_fn=(lambda metrics: metrics.get(best[0], 0.0)) if best else None,
      best_mode=best[1] if best else "max",
      preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
      create=True,
      cleanup_tmp_directories=True,  # What kills have left.
    )
    self._set_unreadable_aside()
    self._manager = self._open()

  def _set_unreadable_aside(self) -> None:
    """Moves steps away beside which Orbax would open none."""
    if jax.process_index() == 0:
      for step in saved_steps(epath.Path(self._workdir)):
        folder = step_folder(self._workdir, step)
        for path in (
          folder / "metrics" / "metrics",
          folder / "config/metadata",
        ):
          try:
            if path.exists():
              json.loads(path.read_text())
          except ValueError as e:  # Of bytes that are no UTF-8, too.
            problem = f"{path} is no JSON: {e}"
            logging.warning("%s", self._move(step, problem))
            break
    ocp.multihost.sync_global_processes("unreadable checkpoints moved")

  def _open(self):
    return ocp.CheckpointManager(
      os.path.abspath(os.path.join(self._workdir, STEPS)),
      options=self._options,
    )

  def _tell_once(self, text: str) -> None:
    if jax.process_index() == 0 and text not in self._told:
      logging.warning("%s", text)
    self._told.add(text)

  def latest_step(self) -> int | None:
    """Returns the newest checkpoint's step, None if there is none.

    Raises:
      CheckpointError: if processes do not see the same checkpoints.
    """
    return max(self._agreed_steps(), default=None)

  def _agreed_steps(self) -> list[int]:
    """Returns the steps that are there, after asking all processes.

    A process that sees others would begin elsewhere, and all would hang.
    """
    steps = sorted(self._manager.all_steps())
    names = zlib.crc32(json.dumps(steps).encode())
    if not same_everywhere(names):
      raise CheckpointError(
        f"{os.path.abspath(self._workdir)}: not all processes see the same "
        f"checkpoints there; process {jax.process_index()} sees steps {steps}. "
        "--workdir must be the same folder, on storage that all of them see"
      )
    return steps

  def save(self, step: int, state, config: dict, metrics=None) -> None:
    """Starts saving.

    Args:
      step: of the state.
      state: to be saved, with a checksum of every array.
      config: of the run.
      metrics: of an evaluation of this state, if there was one.
    """
    if metrics and self._best and self._best[0] not in metrics:
      self._tell_once(
        f"config.train.best_metric is {self._best[0]!r}, which no evaluation "
        "gives: no best checkpoint is kept. Evaluation gives "
        f"{', '.join(sorted(metrics))}"
      )
      metrics = None
    if metrics and self._best:
      metrics = {name: float(value) for name, value in metrics.items()}
      if not math.isfinite(metrics[self._best[0]]):
        metrics = None  # Neither better nor worse than any other.
    else:
      metrics = None
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        config=ocp.args.JsonSave(config),
        checksums=ocp.args.JsonSave(_checksums(state)),
      ),
      metrics=metrics,
    )

  def restore(self, state, sharding):
    """Restores the newest checkpoint that can be read.

    Newer ones are moved to WORKDIR/damaged, and that is told.  What one process
    cannot read, none takes.

    Args:
      state: a state of the same structure; its values do not matter.
      sharding: where the arrays go.

    Raises:
      CheckpointError: if none can be read.
    """
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state
    )
    problems: dict[int, str] = {}
    for step in sorted(self._agreed_steps(), reverse=True):
      problem = ""
      try:
        restored = _read_alone(step_folder(self._workdir, step), abstract)
      except (MemoryError, jax.errors.JaxRuntimeError):
        raise  # The machine's fault, not the checkpoint's.
      # Damaged bytes make Orbax and TensorStore raise anything at all.
      except Exception as e:  # noqa: BLE001
        problem = " ".join(f"{type(e).__name__}: {e}".split())[:300]
      if not all_agree(not problem):
        problems[step] = problem or "another process could not read it"
        continue
      if problems:
        self._move_away(problems, step)
      return restored
    newest = max(problems)
    raise CheckpointError(
      f"{step_folder(self._workdir, newest)}: cannot be restored, nor can any "
      "before it. If the code has changed since, go on with the version that "
      f"wrote it; else give a new --workdir ({problems[newest]})"
    )

  def _move_away(self, problems: dict[int, str], step: int) -> None:
    """Makes `step` the newest."""
    self._manager.close()
    for bad, problem in problems.items():
      if jax.process_index() == 0:
        told = self._move(bad, problem)
        logging.warning("%s, going on from step %d", told, step)
    ocp.multihost.sync_global_processes("damaged checkpoints moved")
    self._manager = self._open()

  def _move(self, step: int, problem: str) -> str:
    """Moves a damaged step to WORKDIR/damaged; returns what to tell."""
    where = os.fspath(step_folder(self._workdir, step))
    damaged = os.path.join(self._workdir, _DAMAGED)
    os.makedirs(damaged, exist_ok=True)
    target = os.path.join(damaged, str(step))
    number = 1
    while os.path.exists(target):
      number += 1
      target = os.path.join(damaged, f"{step}-{number}")
    os.rename(where, target)
    return f"{where}: damaged ({problem}); moved to {target}"

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()


def _read_alone(where: epath.Path, abstract):
  """Reads a step's state as if this were the only process.

  Orbax waits for all processes at the end of a reading, for ever if one of them
  has failed in it and is elsewhere.

  Args:
    where: the step's folder.
    abstract: of its state, with shardings.

  Raises:
    Exception: of any kind, if it is damaged.
  """
  me = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(
    primary_host=me,
    active_processes={me},
    barrier_sync_key_prefix=f"process_{me}",
  )
  reader = ocp.Checkpointer(
    ocp.StandardCheckpointHandler(multiprocessing_options=alone),
    multiprocessing_options=alone,
  )
  with contextlib.closing(reader):
    restored = reader.restore(
      where / "state", args=ocp.args.StandardRestore(abstract)
    )
  verify(where, restored)
  return restored


def sign(mode: str) -> int:
  """Returns 1 if a metric is best at its "max", -1 at its "min"."""
  if mode not in ("min", "max"):
    raise ValueError(f"config.train.best_mode is {mode!r}, expected min or max")
  return 1 if mode == "max" else -1


def step_folder(workdir: str, step: int) -> epath.Path:
  """Returns where a workdir has a step's checkpoint."""
  return epath.Path(os.path.abspath(workdir)) / STEPS / str(step)


def _named_leaves(tree, prefix: str = "") -> dict:
  """{"expert/params/audio_encoder/...": leaf} of states and of plain dicts."""

  def word(key):
    for field in ("key", "name", "idx"):
      if hasattr(key, field):
        return str(getattr(key, field))
    return str(key)

  return {
    prefix + "/".join(map(word, path)): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _checksums(tree) -> dict[str, int]:
  """CRC-32 of every array, over its bytes.

  Orbax's files have none: a flipped bit in a weight would be read as if it had
  been learnt.
  """

  def checksum(x):
    if isinstance(x, jax.Array):
      x = x.addressable_data(0)  # Replicated: every device has all of it.
    return zlib.crc32(np.ascontiguousarray(x).view(np.uint8).data)

  return {name: checksum(x) for name, x in _named_leaves(tree).items()}


def verify(where: epath.Path, tree) -> None:
  """Raises a ValueError if arrays are not those that were saved."""
  path = where / "checksums" / "metadata"
  if not path.exists():
    raise ValueError(f"{path} is missing")
  saved = json.loads(path.read_text())
  wrong = [n for n, found in _checksums(tree).items() if saved.get(n) != found]
  if wrong:
    raise ValueError(
      f"{len(wrong)} arrays are not what was saved, the first is {wrong[0]}"
    )


def saved_steps(workdir: epath.Path) -> list[int]:
  """Returns the steps that a workdir has checkpoints of."""
  steps = workdir / STEPS
  return ocp.utils.checkpoint_steps(steps) if steps.exists() else []
