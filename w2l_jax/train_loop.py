"""The one training loop.

It knows steps, logging, evaluation, saving and stopping; it knows no networks
and no losses.  The stage files put the pieces together and call `run`.
"""

import collections
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from tqdm import auto as tqdm

from w2l_jax import sharding, stop_requests
from w2l_jax.checkpoint_store import CheckpointStore
from w2l_jax.diagnostics import Recent, diagnose
from w2l_jax.metrics import MetricWriter, NoWriter, read_metrics


class TrainingError(RuntimeError):
  """Training cannot go on; the message says why and what to do."""


def _is_watched() -> bool:
  """Whether bars are drawn over: by a terminal, or a notebook."""
  return sys.stderr.isatty() or "ipykernel" in sys.modules


def _save_post_mortem(
  workdir: str, step: int, state, config: dict, batch: dict, metrics: dict
) -> str:
  """Writes what there is of a step that went wrong; returns the folder."""
  folder = os.path.join(workdir, "post_mortem", f"step_{step}")
  os.makedirs(folder, exist_ok=True)
  process = jax.process_index()
  np.savez(os.path.join(folder, f"batch_of_process_{process}.npz"), **batch)
  if process == 0:
    with open(os.path.join(folder, "metrics.json"), "w") as f:
      json.dump({k: float(v) for k, v in metrics.items()}, f, indent=2)
  store = CheckpointStore(folder, keep=1)
  store.save(step, state, config)
  store.close()
  return folder


def run(
  *,
  workdir: str,
  config: dict,
  schedule,
  mesh,
  state,
  frozen: dict,
  train_steps: dict[int, Callable],
  batches: Callable[[int], Iterator],
  evaluate: Callable,
  after_eval: Callable = lambda state, metrics: state,
  after_restore: Callable = lambda state: state,
):
  """Trains until `schedule.num_steps`, from the newest checkpoint if any.

  At each step: train, then log, evaluate and save where due.  What a
  checkpoint holds is the state after all of that, so a restored run goes on
  as if it had never stopped.

  Args:
    workdir: for checkpoints, metrics and samples; already claimed.
    config: saved with each checkpoint.
    schedule: config.train: num_steps, log_every_steps, eval_every_steps,
      save_every_steps, keep, best_metric and best_mode.
    mesh: of the run.
    state: the initial state, replicated; has a `step`.
    frozen: variables of networks that are used and not trained.
    train_steps: {first step of a phase: (state, batch, frozen) -> (state,
      metrics), not compiled}; 0 is one of the keys.
    batches: from a first step, an iterator over this process's NumPy batches.
    evaluate: (state, frozen, writer) -> {name: value}.
    after_eval: (state, metrics) -> state: rules that evaluation triggers.
    after_restore: state -> state: rules that a restart triggers.

  Returns:
    The last state.

  Raises:
    TrainingError: on a loss that is not finite, or a schedule that is none.
  """
  for name in ("log_every_steps", "eval_every_steps", "save_every_steps"):
    if schedule[name] < 1:
      raise TrainingError(
        f"config.train.{name} is {schedule[name]}, expected at least 1"
      )
  main = jax.process_index() == 0
  store = CheckpointStore(
    workdir, schedule.keep, (schedule.best_metric, schedule.best_mode)
  )
  if store.latest_step() is not None:
    state = after_restore(store.restore(state, sharding.replicated(mesh)))
    if main:
      tqdm.tqdm.write(f"{workdir}: going on from step {int(state.step)}")
  first_step = int(state.step)
  if first_step >= schedule.num_steps:
    if main:
      tqdm.tqdm.write(
        f"{workdir}: finished: {first_step} steps are done, of "
        f"config.train.num_steps = {schedule.num_steps}"
      )
    store.close()
    return state
  writer = MetricWriter(workdir, first_step) if main else NoWriter()
  compiled = {
    first: sharding.jit_train_step(train_step, mesh)
    for first, train_step in train_steps.items()
  }
  block = sharding.must_block_each_step()
  iterator = batches(first_step)
  pending: list = []
  recent, told = Recent(read_metrics(workdir) if main else []), set()
  # Whether any process was asked to stop, of the steps still under way.
  asked: collections.deque = collections.deque()
  waited, started = 0.0, time.monotonic()

  def tell(line):
    """Says once what the figures show to be wrong."""
    recent.add(line)
    for name, text in diagnose(recent, config).items():
      if main and name not in told:
        progress.write(f"warning: {text}")
        told.add(name)

  def log(step):
    """Writes the means since the last time; stops on NaN."""
    nonlocal waited, started
    if not pending:
      return
    values = jax.device_get(pending)
    first = step - len(values)
    for i, metrics in enumerate(values):
      bad = [k for k, v in metrics.items() if not np.all(np.isfinite(v))]
      if bad:
        at = first + i + 1
        where = _save_post_mortem(
          workdir, step, state, config, next(batches(at - 1)), metrics
        )
        raise TrainingError(
          f"{', '.join(bad)} became NaN or infinite at step {at}; its batch, "
          f"its figures and the state after step {step} are in {where}; the "
          f"last checkpoint in {workdir} is from before it. Lower "
          "config.optimizer.learning_rate or look at the data, and start again "
          "in a new --workdir"
        )
    seconds = time.monotonic() - started
    # Where a phase begins between two logs, what it adds is averaged alone.
    names = dict.fromkeys(k for m in values for k in m)
    means = {
      f"train/{k}": np.mean([m[k] for m in values if k in m]) for k in names
    }
    means["time/steps_per_second"] = len(values) / seconds
    means["time/waiting_for_data"] = waited / seconds
    writer.write(step, means)
    tell({"step": step, **means})
    progress.set_postfix_str(
      " ".join(
        f"{k.removeprefix('train/')}={v:.4g}"
        for k, v in means.items()
        if k.startswith("train/loss")
      ),
      refresh=False,
    )
    pending.clear()
    waited, started = 0.0, time.monotonic()

  with (
    # Until the last checkpoint is written.
    stop_requests.collected() as stop_signals,
    contextlib.closing(store),
    contextlib.closing(writer),
    tqdm.tqdm(
      total=schedule.num_steps,
      initial=first_step,
      desc=os.path.basename(os.path.normpath(workdir)),
      unit="step",
      disable=not main,
      # A log file is no terminal: a line every half minute is enough.
      mininterval=0.1 if _is_watched() else 30.0,
    ) as progress,
  ):
    if not sharding.all_agree(not stop_signals):
      if main:
        progress.write("asked to stop before a step was made")
      return state
    progress.set_postfix_str("compiling: up to a minute on a CPU")
    for step in range(first_step + 1, schedule.num_steps + 1):
      waiting = time.monotonic()
      rows = next(iterator)
      waited += time.monotonic() - waiting
      votes = {"stop": sharding.stop_votes(bool(stop_signals))}
      batch = sharding.global_batch(mesh, {**rows, **votes})
      phase = max(first for first in compiled if first < step)
      state, metrics = compiled[phase](state, batch, frozen)
      asked.append(metrics.pop("stop"))
      pending.append(metrics)
      # Two steps ahead are enough to keep the device busy; more would only
      # delay logs and stop requests.
      ahead = 0 if block else 2
      if block:
        jax.block_until_ready(state)  # On all devices: "stop" is read from one.
      stop = len(asked) > ahead and bool(asked.popleft())
      progress.update()
      last = step == schedule.num_steps
      if last or step % schedule.log_every_steps == 0:
        log(step)
      results = None
      if last or step % schedule.eval_every_steps == 0:
        log(step)
        results = evaluate(state, frozen, writer)
        writer.write(step, results)
        tell({"step": step, **results})
        # Not at a last step out of turn: more steps may follow later, and the
        # run must then be as if it had been that long from the start.
        if step % schedule.eval_every_steps == 0:
          state = after_eval(state, results)
        progress.write(
          f"step {step}: "
          + ", ".join(f"{k} {v:.4f}" for k, v in results.items())
        )
        started = time.monotonic()
      if (
        last
        or stop
        or step % schedule.save_every_steps == 0
        or results is not None
      ):
        log(step)  # Nothing that is not finite is saved.
        store.save(step, state, config, results)
      if stop and not last:
        if main:
          names = dict.fromkeys(signal.Signals(n).name for n in stop_signals)
          progress.write(
            f"{' '.join(names) or 'asked to stop'}: saved step {step}; the "
            "same command goes on from there"
          )
        break
  return state
