r"""Trains an expert, filters the set by it, and trains another on what is left.

  python -m launch.bootstrap_sync --config=configs/expert_grid.py:small \
    --config.data.dir=data/mine --workdir=runs/bootstrap

Clips out of sync keep an expert at 0.69; even a poor expert finds them.
Each round trains in WORKDIR/expert_N on WORKDIR/set_N's records, the first on
the set that is given; the last expert judges nothing.  Run again, it goes on.
"""

import json
import os
import sys

import cv2
from absl import app, flags, logging
from ml_collections import config_flags

from data_prep import prepare, sync_filter, synced_set
from w2l_jax import checkpoints, dataset, train_expert, train_loop

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Experiment of stage 1, from configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the experts and the filtered sets."
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 1, "How often the set is filtered.", lower_bound=1
)
_MISMATCHED = flags.DEFINE_float(
  "max_mismatched",
  0.01,
  "Share of records with another one's sound that may pass.",
  lower_bound=0.0,
  upper_bound=1.0,
)
flags.mark_flags_as_required(["config", "workdir"])


def run(config, workdir: str, rounds: int, max_mismatched: float) -> dict:
  """Trains, filters and trains again.

  Args:
    config: of stage 1.
    workdir: where all goes.
    rounds: how often the set is filtered; there is an expert more.
    max_mismatched: see sync_filter.Thresholds.

  Returns:
    What launch.filter_sync tells of the last round.
  """
  given, report = config.data.dir, None
  for number in range(rounds + 1):
    config.data.dir = given if not number else _set(workdir, number)
    expert = os.path.join(workdir, f"expert_{number}")
    train_expert.train_and_evaluate(config, expert)
    if number == rounds:
      break
    # The set that was given is judged anew: what one expert dropped, a better
    # one may keep.
    output = _set(workdir, number + 1)
    report = _report_of(output, expert)
    if report is None:
      report = synced_set.filter_set(
        given,
        output,
        expert,
        sync_filter.Thresholds(max_mismatched=max_mismatched),
      )
    print(f"{output}:\n{synced_set.table(report)}")
  return report


def _set(workdir: str, number: int) -> str:
  return os.path.join(workdir, f"set_{number}")


def _report_of(output: str, expert: str) -> dict | None:
  """What an earlier run noted, if it filtered by this very expert."""
  try:
    with open(os.path.join(output, synced_set.REPORT_FILE)) as f:
      report = json.load(f)
  except FileNotFoundError:
    return None
  same = report["checkpoint"] == checkpoints.step_folder(expert)
  return report if same else None


def main(argv):
  """Runs it; errors are one sentence."""
  logging.set_verbosity(logging.ERROR)
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  cv2.setNumThreads(1)
  if _CONFIG.value.stage != "expert" or not _CONFIG.value.data.dir:
    sys.exit(
      "error: --config is to be one of stage 1, with --config.data.dir=DIR, "
      "the --output of launch.prepare_data"
    )
  try:
    run(_CONFIG.value, _WORKDIR.value, _ROUNDS.value, _MISMATCHED.value)
  except KeyboardInterrupt:
    sys.exit("\ninterrupted: the same command goes on where it was")
  except (
    checkpoints.CheckpointError,
    dataset.DatasetError,
    prepare.PrepareError,
    train_loop.TrainingError,
    ValueError,
  ) as e:
    sys.exit(f"error: {e}")


if __name__ == "__main__":
  app.run(main)
