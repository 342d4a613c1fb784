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
    flags: further ones of launch.train.
  """

  config: str
  what: str
  part: str = "rest"
  expert: str | None = None
  flags: tuple[str, ...] = ()


def _improved(what: str, *flags: str, expert="expert_contrastive") -> Run:
  return Run("generator_grid_improved", what, expert=expert, flags=flags)


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
# The improved recipe without one of its departures from the original's, each;
# all for ABLATION_STEPS steps, a third of those of RUNS.
ABLATIONS = {
  "all": _improved("the improved recipe"),
  "cosine_bce": _improved("the expert of the cosine BCE", expert="expert"),
  "sync_on": _improved(
    "the sync loss on from the start", "--config.loss.sync_from_step=0"
  ),
  "no_sync": _improved(
    "no sync loss",
    "--config.loss.sync_weight=0",
    "--config.loss.sync_weight_initial=0",
  ),
  "weak_sync": _improved(
    "a third of the sync loss",
    "--config.loss.sync_weight=0.0001",
    "--config.loss.sync_weight_initial=0.0001",
  ),
  "strong_sync": _improved(
    "three times the sync loss",
    "--config.loss.sync_weight=0.001",
    "--config.loss.sync_weight_initial=0.001",
  ),
  "few_clips": _improved(
    "four whole windows a step",
    "--config.data.batch_size=4",
    "--config.loss.windows_with_sync=0",
    "--config.loss.frames_before_sync=5",
  ),
  "whole_l1": _improved(
    "no weight on the mouth's region", "--config.loss.mouth_weight=0"
  ),
  "own_ears": _improved(
    "a speech encoder of its own",
    "--config.speech_encoder_init=torch",
    "--config.speech_encoder_frozen=False",
  ),
  "ears_learn": _improved(
    "the expert's speech encoder learns on",
    "--config.speech_encoder_frozen=False",
  ),
  "mel_offset": _improved(
    "mel windows that begin a frame later",
    "--config.windows.frame_mel_offset=-1",
    "--config.windows.inference_mel_offset=-1",
  ),
  "near_reference": _improved(
    "references one frame away", "--config.windows.min_reference_distance=1"
  ),
  "ema": _improved(
    "a moving average of the params, and its evaluation",
    "--config.ema_decay=0.995",
    "--config.eval.ema=True",
  ),
  "original": Run("generator_grid", "the original's recipe", expert="expert"),
}
ABLATION_STEPS = {"small": 600, "full": 6_000}


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


def _train(folder: str, workdir: str, run: Run, size: str, device: str) -> None:
  """Trains one run to its end; its expert's is in the folder."""
  summary = os.path.join(workdir, "training.json")
  config = f"configs/{run.config}.py" + ("" if size == "full" else f":{size}")
  if os.path.exists(summary):
    with open(summary) as f:
      done = json.load(f)["command"]
    if f"--config={config}" not in shlex.split(done):
      sys.exit(
        f"error: {workdir}: expected a run of --config={config} (--size="
        f"{size}), found one of another: {done}; give another --size or "
        "--workdir"
      )
    return
  arguments = [
    f"--config={config}",
    f"--config.data.dir={os.path.join(folder, 'data')}",
    f"--config.data.part={run.part}",
    *run.flags,
    f"--workdir={workdir}",
  ]
  if run.expert:
    expert = os.path.join(folder, run.expert)
    arguments.insert(1, f"--config.expert_checkpoint={expert}")
  before, start = _steps(workdir), time.monotonic()
  _call("launch.train", *arguments)
  if not _steps(workdir):
    sys.exit(f"{workdir}: stopped before anything was saved; run again")
  _, steps, config = checkpoints.describe(workdir)
  if steps < config["train"]["num_steps"]:
    sys.exit(f"stopped at step {steps}; run again to go on")
  found = {
    "command": "python -m launch.train " + shlex.join(arguments),
    "steps": steps,
    # Of the last go alone: those before it were interrupted.
    "seconds_a_step": (
      (time.monotonic() - start) / (steps - before) if steps > before else None
    ),
    "device": device,
    "commit": _commit(),
  }
  with open(f"{summary}.partial", "w") as f:
    json.dump(found, f, indent=2)
  os.replace(f"{summary}.partial", summary)


def _measure(
  folder: str,
  workdir: str,
  clips: int,
  *,
  judge: str = "",
  others: bool = False,
  split: str = "test",
) -> None:
  """Measures one run by its own expert, or by a run that is named."""
  outdir = os.path.join(
    workdir, "evaluation" + "_others" * others + f"_{judge}" * bool(judge)
  )
  summary = os.path.join(outdir, "metrics.json")
  if os.path.exists(summary):
    with open(summary) as f:
      done = json.load(f)["protocol"]["clips"]
    if done != clips:
      sys.exit(
        f"error: {outdir}: expected figures of at most {clips} clips, found "
        f"those of {done}; give --clips={done}, or remove that folder"
      )
    return
  data = os.path.join(folder, "others" if others else "data")
  _call(
    "launch.evaluate",
    f"--checkpoint={workdir}",
    f"--split={split}",
    f"--data_dir={data}",
    f"--config.clips={clips}",
    f"--outdir={outdir}",
    *([f"--expert={os.path.join(folder, judge)}"] if judge else []),
    *(["--ema"] if _averaged(workdir) else []),
  )


def _evaluate(folder: str, name: str, clips: int, others: bool) -> None:
  """Measures one of RUNS by its own expert and by the judge."""
  for judge in ("", "judge") if RUNS[name].expert else ("",):
    workdir = os.path.join(folder, name)
    _measure(folder, workdir, clips, judge=judge, others=others)


def _averaged(workdir: str) -> bool:
  return bool(checkpoints.describe(workdir)[2].get("ema_decay"))


def _prepare(videos: str, data: str, *arguments: str) -> None:
  done = os.path.join(data, "report.json")
  if not os.path.exists(done):
    _call(
      "launch.prepare_data", f"--input={videos}", f"--output={data}", *arguments
    )


def _chosen(only: list[str] | None, runs: dict[str, Run]) -> list[str]:
  """Returns names of runs in their order; None: all."""
  for name in only or ():
    if name not in runs:
      sys.exit(f"error: --only={name}: expected some of {', '.join(runs)}")
  return [name for name in runs if not only or name in only]


def _with_experts(names: list[str]) -> list[str]:
  """Returns names of runs, and of those that teach and judge them, in order."""
  needed = set(names)
  for name in names:
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
  names = _with_experts(_chosen(only, RUNS))
  _prepare(videos, os.path.join(folder, "data"), f"--splits={splits}")
  if others:
    _prepare(
      others,
      os.path.join(folder, "others"),
      "--val_fraction=0",
      "--test_fraction=1",
    )
  for name in names:
    _train(folder, os.path.join(folder, name), RUNS[name], size, kind)
  for name in names:
    _evaluate(folder, name, clips, others=False)
    if others and RUNS[name].expert:
      _evaluate(folder, name, clips, others=True)
  return results_table.write(folder, {name: RUNS[name].what for name in names})


def ablate(
  folder: str,
  videos: str,
  splits: str,
  *,
  size: str | None = None,
  clips: int = 16,
  only: list[str] | None = None,
) -> str:
  """Trains ABLATIONS, and their experts, and writes a table of them.

  They are measured by the judge, on validation clips: what is chosen by them
  has not seen the test clips.

  Args, raises: as `run`; `only` are names in ABLATIONS.

  Returns:
    The path of ABLATIONS.md.
  """
  platform, kind = _device()
  size = size or ("small" if platform == "cpu" else "full")
  names = _chosen(only, ABLATIONS)
  _prepare(videos, os.path.join(folder, "data"), f"--splits={splits}")
  experts = {"judge", *(ABLATIONS[name].expert for name in names)}
  for name in _with_experts(sorted(experts)):
    _train(folder, os.path.join(folder, name), RUNS[name], size, kind)
  steps = f"--config.train.num_steps={ABLATION_STEPS[size]}"
  for name in names:
    run = ABLATIONS[name]
    run = dataclasses.replace(run, flags=(*run.flags, steps))
    workdir = os.path.join(folder, "ablations", name)
    _train(folder, workdir, run, size, kind)
    _measure(folder, workdir, clips, judge="judge", split="val")
  return results_table.write_ablations(
    folder, {name: run.what for name, run in ABLATIONS.items()}
  )
