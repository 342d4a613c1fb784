"""All recipes for GRID's speaker 1: which runs there are, and doing them.

The command is launch.results_grid; every step is a command of this project, in
a process of its own.
"""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time

from launch import results_table
from w2l_jax import checkpoints


@dataclasses.dataclass(frozen=True)
class Run:
  """A training.

  Attributes:
    config: file in configs/, without .py.
    part: of the training clips, see dataset.PARTS.
    expert: the run that a generator learns from.
    what: what it is, for the table.
  """

  config: str
  what: str
  part: str = "rest"
  expert: str | None = None


RUNS = {
  "judge": Run("expert_grid_contrastive", "the independent judge", "judge"),
  "expert": Run("expert_grid", "cosine BCE (the original's loss)"),
  "expert_contrastive": Run("expert_grid_contrastive", "contrastive"),
  "generator": Run("generator_grid", "without GAN", expert="expert"),
  "gan": Run("gan_grid", "with GAN", expert="expert"),
  "generator_improved": Run(
    "generator_grid_improved",
    "improved, without GAN",
    expert="expert_contrastive",
  ),
  "gan_improved": Run(
    "gan_grid_improved", "improved, with GAN", expert="expert_contrastive"
  ),
}


def _call(module: str, *arguments: str) -> None:
  """Runs a command of this project; leaves with its status if it fails."""
  command = [sys.executable, "-m", module, *arguments]
  print(f"\n== python -m {module} {shlex.join(arguments)}", flush=True)
  process = subprocess.Popen(command)
  try:
    status = process.wait()
  except KeyboardInterrupt:  # It has it too, saves and ends.
    status = process.wait() or -signal.SIGINT
  if status:
    sys.exit(f"error: {module} ended with status {status}; run again to go on")


def _device() -> tuple[str, str]:
  """Returns (platform, kind) of what the runs will train on.

  Asked in another process: this one would keep the accelerator's memory.
  """
  code = """
import jax
device = jax.devices()[0]
print(device.platform, device.device_kind, sep="|")
"""
  answer = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  platform, kind = answer.stdout.strip().splitlines()[-1].split("|")
  return platform, kind


def _commit() -> str | None:
  """The checkout's commit, with a plus sign where files differ from it."""
  answer = subprocess.run(
    ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
    capture_output=True,
    text=True,
    check=False,
  )
  return answer.stdout.strip() or None


def _steps(workdir: str) -> int:
  try:
    return checkpoints.describe(workdir)[1] or 0
  except checkpoints.CheckpointError:
    return 0


def _train(folder: str, name: str, size: str, device: str) -> None:
  """Trains one run to its end."""
  run, workdir = RUNS[name], os.path.join(folder, name)
  summary = os.path.join(workdir, "training.json")
  if os.path.exists(summary):
    return
  config = f"configs/{run.config}.py" + ("" if size == "full" else f":{size}")
  arguments = [
    f"--config={config}",
    f"--config.data.dir={os.path.join(folder, 'data')}",
    f"--config.data.part={run.part}",
    f"--workdir={workdir}",
  ]
  if run.expert:
    expert = os.path.join(folder, run.expert)
    arguments.insert(1, f"--config.expert_checkpoint={expert}")
  before, start = _steps(workdir), time.monotonic()
  _call("launch.train", *arguments)
  if not _steps(workdir):
    sys.exit(f"{name}: stopped before anything was saved; run again")
  _, steps, config = checkpoints.describe(workdir)
  if steps < config["train"]["num_steps"]:
    sys.exit(f"stopped at step {steps}; run again to go on")
  found = {
    "command": "python -m launch.train " + shlex.join(arguments),
    "steps": steps,
    # Of the last go alone: those before it were interrupted.
    "seconds_a_step": (time.monotonic() - start) / max(1, steps - before),
    "device": device,
    "commit": _commit(),
  }
  with open(f"{summary}.partial", "w") as f:
    json.dump(found, f, indent=2)
  os.replace(f"{summary}.partial", summary)


def _evaluate(folder: str, name: str, clips: int, others: bool) -> None:
  """Measures one run by its own expert and by the judge."""
  workdir = os.path.join(folder, name)
  generator = RUNS[name].expert is not None
  data = os.path.join(folder, "others" if others else "data")
  for judge in ("", "judge") if generator else ("",):
    outdir = os.path.join(
      workdir, "evaluation" + "_others" * others + f"_{judge}" * bool(judge)
    )
    if os.path.exists(os.path.join(outdir, "metrics.json")):
      continue
    _call(
      "launch.evaluate",
      f"--checkpoint={workdir}",
      "--split=test",
      f"--data_dir={data}",
      f"--config.clips={clips}",
      f"--outdir={outdir}",
      *([f"--expert={os.path.join(folder, judge)}"] if judge else []),
      *(["--ema"] if generator and _averaged(workdir) else []),
    )


def _averaged(workdir: str) -> bool:
  return bool(checkpoints.describe(workdir)[2].get("ema_decay"))


def _prepare(videos: str, data: str, *arguments: str) -> None:
  done = os.path.join(data, "report.json")
  if not os.path.exists(done):
    _call(
      "launch.prepare_data", f"--input={videos}", f"--output={data}", *arguments
    )


def _with_experts(names: list[str]) -> list[str]:
  """Returns names of runs, and of those that teach and judge them, in order."""
  needed = set(names)
  for name in names:
    if name not in RUNS:
      sys.exit(f"error: --only={name}: expected some of {', '.join(RUNS)}")
    if RUNS[name].expert:
      needed |= {RUNS[name].expert, "judge"}
  return [name for name in RUNS if name in needed]


def run(
  folder: str,
  videos: str,
  splits: str,
  *,
  others: str | None = None,
  size: str | None = None,
  clips: int = 50,
  only: list[str] | None = None,
) -> str:
  """Does what is left to do, and writes the tables.

  Args:
    folder: for everything.
    videos: folder that holds GRID's s1/.
    splits: folder of train.txt, val.txt and test.txt.
    others: folder of videos of other people.
    size: "full" or "small"; None: by what there is to train on.
    clips: of each evaluation.
    only: names in RUNS, whose experts are trained too; None: all.

  Returns:
    The path of RESULTS.md.

  Raises:
    SystemExit: if a step fails or is interrupted.
  """
  platform, kind = _device()
  size = size or ("small" if platform == "cpu" else "full")
  names = _with_experts(only or list(RUNS))
  _prepare(videos, os.path.join(folder, "data"), f"--splits={splits}")
  if others:
    _prepare(
      others,
      os.path.join(folder, "others"),
      "--val_fraction=0",
      "--test_fraction=1",
    )
  for name in names:
    _train(folder, name, size, kind)
  for name in names:
    _evaluate(folder, name, clips, others=False)
    if others and RUNS[name].expert:
      _evaluate(folder, name, clips, others=True)
  return results_table.write(folder, {name: RUNS[name].what for name in names})
