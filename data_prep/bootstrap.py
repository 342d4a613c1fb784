"""Experts that clean their own training set: train, filter, train again.

Clips out of sync keep an expert at 0.69; even a poor expert finds them.
"""

import json
import os

from data_prep import sync_filter, synced_set
from w2l_jax import checkpoints, train_expert, train_loop


def run(config, workdir: str, rounds: int, max_mismatched: float) -> dict:
  """Trains, filters and trains again.

  Args:
    config: of stage 1.
    workdir: where all goes.
    rounds: how often the set is filtered; there is an expert more.
    max_mismatched: see sync_filter.Thresholds.

  Returns:
    What launch.filter_sync tells of the last round.

  Raises:
    TrainingError: if a training was asked to stop.
  """
  given, report = config.data.dir, None
  for number in range(rounds + 1):
    config.data.dir = given if not number else _set(workdir, number)
    expert = os.path.join(workdir, f"expert_{number}")
    state = train_expert.train_and_evaluate(config, expert)
    if int(state.step) < config.train.num_steps:
      raise train_loop.TrainingError(
        f"{expert}: stopped at step {int(state.step)}; the same command goes on"
      )
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
