r"""Measures a trained expert or generator on a split, beside its baselines.

  python -m launch.evaluate --checkpoint=runs/expert --split=test
  python -m launch.evaluate --checkpoint=runs/gan --split=test

Writes evaluation_SPLIT.json into the workdir (or --outfile) and prints a table.
"""

import json
import os
import sys

import jax
import ml_collections
from absl import app, flags, logging

from w2l_jax import (
  checkpoints,
  dataset,
  inference,
  metrics,
  sharding,
  train_expert,
  train_generator,
)

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint",
  None,
  "Workdir of launch.train or launch.convert_checkpoint, or a step folder.",
  required=True,
)
_SPLIT = flags.DEFINE_enum("split", "test", dataset.SPLITS, "Which clips.")
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Prepared data set; unset: the training's own."
)
_EXPERT = flags.DEFINE_string(
  "expert", None, "Expert that judges a generator; unset: the training's own."
)
_BATCHES = flags.DEFINE_integer(
  "batches", None, "Batches of windows; unset: as in training.", lower_bound=1
)
_EMA = flags.DEFINE_bool(
  "ema", False, "Judge the moving average of a generator's params."
)
_OUTFILE = flags.DEFINE_string("outfile", None, "JSON file to write.")


def _evaluate_expert(checkpoint, config, split, val, mesh):
  variables, _ = train_expert.load_frozen(checkpoint)
  chosen = train_expert.make_evaluator(config, val, mesh)(variables)
  # The threshold is a choice, so it is made on clips that are not judged.
  thresholds = {s: chosen[f"eval/threshold{s}"] for s in ("", "_all")}
  evaluate = train_expert.make_evaluator(config, split, mesh)
  return evaluate(variables, thresholds=thresholds)


def _evaluate_generator(checkpoint, expert_checkpoint, config, split, mesh):
  variables, _ = inference.load_generator(checkpoint, _EMA.value)
  expert, expert_config = train_expert.load_frozen(expert_checkpoint)
  train_generator.check_expert(config, expert_config, expert_checkpoint)
  evaluate = train_generator.make_evaluator(config, expert_config, split, mesh)
  return evaluate(variables, {"expert": expert})


def _table(results: dict) -> str:
  """Puts generated, real and copied figures of one kind on one line."""
  names = [k for k in results if not k.endswith(("_real", "_copied"))]
  suffixes = ("", "_real", "_copied")
  rows = [("", "generated", "real", "copied reference")]
  if not any(k.endswith("_copied") for k in results):
    rows, suffixes = [], ("",)
  rows += [
    (
      name.removeprefix("eval/"),
      *(
        f"{results[name + s]:.4f}" if name + s in results else "-"
        for s in suffixes
      ),
    )
    for name in names
  ]
  return "\n".join(
    "  ".join([row[0].ljust(24), *(cell.rjust(16) for cell in row[1:])])
    for row in rows
  )


def main(argv):
  """Evaluates, prints a table and writes the figures."""
  logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step.
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  try:
    # Once: a workdir that is still being trained has other newest steps later.
    checkpoint = checkpoints.step_folder(_CHECKPOINT.value)
    stage, step, plain = checkpoints.describe(checkpoint)
    config = ml_collections.ConfigDict(plain)
    if _BATCHES.value:
      config.eval.batches = _BATCHES.value
    data_dir = _DATA_DIR.value or config.data.dir
    directory = dataset.builder_dir(data_dir, config.image_size)
    split = dataset.Split(directory, _SPLIT.value)
    mesh = sharding.make_mesh(config.data.batch_size)
    if stage == "expert":
      val = dataset.Split(directory, "val")
      judge, grid = None, None
      results = _evaluate_expert(checkpoint, config, split, val, mesh)
    else:
      judge = checkpoints.step_folder(_EXPERT.value or config.expert_checkpoint)
      results, grid = _evaluate_generator(
        checkpoint, judge, config, split, mesh
      )
  except (checkpoints.CheckpointError, dataset.DatasetError, ValueError) as e:
    sys.exit(f"error: {e}")
  if plain["data"].get("contents") != dataset.contents_digest(directory):
    print(
      "note: these clips and splits are not those of the training; clips of "
      f"{_SPLIT.value} may have been trained on"
    )
  windows = config.eval.batches * config.data.batch_size
  print(
    f"{stage}, step {step}, split {_SPLIT.value}: {len(split)} clips, "
    f"{windows} windows, on {jax.default_backend()}"
  )
  print(_table(results))
  outfile = _OUTFILE.value or os.path.join(
    checkpoints.workdir_of(_CHECKPOINT.value),
    f"evaluation_{_SPLIT.value}.json",
  )
  report = {
    "checkpoint": checkpoint,
    "expert": judge,
    "ema": _EMA.value,
    "step": step,
    "split": _SPLIT.value,
    "clips": len(split),
    "windows": windows,
    **results,
  }
  with open(f"{outfile}.partial", "w") as f:
    json.dump(report, f, indent=2)
    f.write("\n")
  os.replace(f"{outfile}.partial", outfile)
  if grid is not None:
    metrics.save_image(f"{os.path.splitext(outfile)[0]}.png", grid)
  print(f"written: {outfile}")


if __name__ == "__main__":
  app.run(main)
