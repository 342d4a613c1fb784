r"""Measures an expert, a generator or videos, beside their baselines.

  python -m launch.evaluate --checkpoint=runs/expert --split=test
  python -m launch.evaluate --checkpoint=runs/gan --split=test
  python -m launch.evaluate --checkpoint=runs/gan --videos=FOLDER \
    --config.pairs=PAIRS.txt --config.syncnet=syncnet_v2.model
  python -m launch.evaluate --expert=runs/expert --videos=FOLDER --outdir=OUT

The first two take the crops of a prepared set; the third makes whole videos
(pairs by seed without a list) and finds their faces again; the last scores
videos as they are.  Writes metrics.json, clips.csv and report.html into
WORKDIR/evaluation_SPLIT (or --outdir) and prints a table.  How clips are
scored: configs/evaluation.py; --config=configs/evaluation.py:faithful.
"""

import dataclasses
import itertools
import json
import os
import re
import sys
import time

import jax
import ml_collections
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from launch import evaluation_table, flag_parsing
from w2l_jax import (
  checkpoints,
  dataset,
  evaluate_split,
  evaluate_sync,
  evaluate_videos,
  inference,
  judges,
  lip_syncer,
  metrics,
  pairs,
  released,
  sharding,
  side_by_side,
  torch_file,
  train_expert,
  train_generator,
  video,
  weight_files,
  windows,
)
from w2l_jax.evaluate_pictures import PictureMeasures
from w2l_jax.evaluation import results as results_lib

try:
  from launch import evaluation_report
except ImportError as missing:
  if missing.name != "matplotlib":
    raise
  evaluation_report = None

_CONFIG = config_flags.DEFINE_config_file(
  "config", "configs/evaluation.py", "How clips are scored.", lock_config=True
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint",
  None,
  "Workdir of launch.train or launch.convert_checkpoint, or a step folder; "
  "with --videos also a generator's file of weights.",
)
_SPLIT = flags.DEFINE_enum("split", "test", dataset.SPLITS, "Which clips.")
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Prepared data set; unset: the training's own."
)
_VIDEOS = flags.DEFINE_string(
  "videos", None, "Folder of videos, to be scored in place of a prepared set."
)
_EXPERT = flags.DEFINE_string(
  "expert",
  None,
  "Expert that judges a generator or videos; unset: the training's own.",
)
_BATCHES = flags.DEFINE_integer(
  "batches", None, "Batches of windows; unset: as in training.", lower_bound=1
)
_EMA = flags.DEFINE_bool(
  "ema", False, "Judge the moving average of a generator's params."
)
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder to write.")

_ERRORS = (
  checkpoints.CheckpointError,
  dataset.DatasetError,
  torch_file.TorchCheckpointError,
  pairs.PairError,
  video.MediaError,
  ValueError,
  OSError,
)


def _windows_of_expert(variables, config, split, val, mesh) -> dict:
  chosen = train_expert.make_evaluator(config, val, mesh)(variables)
  # The threshold is a choice, so it is made on clips that are not judged.
  thresholds = {s: chosen[f"eval/threshold{s}"] for s in ("", "_all")}
  evaluate = train_expert.make_evaluator(config, split, mesh)
  return evaluate(variables, thresholds=thresholds)


def _judges(expert, protocol, not_measured: dict) -> list:
  """The judges that there are weights of; tells of the others.

  Args:
    expert: (variables or None, config).
    protocol: the config.
    not_measured: takes up what is missing.
  """
  found = []
  variables, config = expert
  if variables is not None:
    found.append(judges.ExpertJudge(variables, config))
  threshold = config["windows"]["speech_threshold"]
  if protocol.syncnet:
    try:
      found.append(
        judges.SyncNetJudge.load(protocol.syncnet, threshold, protocol.faithful)
      )
    except torch_file.TorchCheckpointError as e:
      not_measured["syncnet"] = str(e)
  else:
    not_measured["syncnet"] = (
      "no weights: give syncnet_python's file, --config.syncnet="
      "syncnet_v2.model; LSE-D and LSE-C of the expert are another judge's"
    )
  return found


def _chosen(count: int, protocol) -> list[int]:
  """Numbers of the clips that are scored, where they are not pairs."""
  order = np.random.default_rng([protocol.seed, 0xC11]).permutation(count)
  return sorted(order[: protocol.clips or None])


def _chosen_pairs(names: list[str], seconds: np.ndarray, protocol) -> list:
  """The pairs of the list, or by the seed."""
  count = protocol.clips or None
  if protocol.pairs:
    return pairs.read(protocol.pairs, protocol.pairs_order)[:count]
  return pairs.random_pairs(names, seconds, count, protocol.seed)


class _Shown:
  """Writes the clips of the report, variants side by side."""

  def __init__(self, outdir: str):
    self._folder = os.path.join(outdir, "clips")
    self.clips: list[dict] = []

  def _add(self, name: str, columns) -> str:
    os.makedirs(self._folder, exist_ok=True)
    path = os.path.join(self._folder, f"{len(self.clips)}.mp4")
    self.clips.append({"name": name, "file": path, "columns": list(columns)})
    return path

  def crops(self, name: str, columns: dict, waveform: np.ndarray) -> None:
    """Writes crops by variant, with their speech."""
    path = self._add(name, columns)
    side_by_side.write_crops(path, columns.values(), waveform)

  def videos(self, name: str, columns: dict) -> None:
    """Writes videos by variant; the generated or given one is heard."""
    sound = columns.get("generated", columns.get("given"))
    path = self._add(name, columns)
    side_by_side.write_videos(path, columns.values(), sound)


def _make_video(outdir: str, checkpoint: str):
  """Returns make(face, speech, name) of evaluate_videos.evaluate."""
  folder, numbers = os.path.join(outdir, "videos"), itertools.count()
  syncer = lip_syncer.LipSyncer.from_checkpoint(checkpoint, ema=_EMA.value)

  def make(face: str, speech: str, name: str) -> str:
    os.makedirs(folder, exist_ok=True)
    # Different names can look alike without what file names cannot have.
    file = f"{next(numbers):05d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}.mp4"
    path = os.path.join(folder, file)
    syncer.write(face, speech, path)
    return path

  return make


def _trained_on(directory: str) -> str | None:
  """Returns what a run on a data set has as config.data.contents."""
  try:
    return dataset.contents_digest(
      [dataset.Split(directory, name) for name in ("train", "val")]
    )
  except dataset.DatasetError:  # Such as one of test clips alone.
    return None


def _evaluate_split(checkpoint, stage, config, protocol, shown):
  """Scores a prepared set; returns (results, figures of windows, header)."""
  if _BATCHES.value:
    config.eval.batches = _BATCHES.value
  data_dir = _DATA_DIR.value or config.data.dir
  if not data_dir:
    raise ValueError(
      "--data_dir is not set, and this checkpoint was converted: say where a "
      "set of launch.prepare_data is"
    )
  directory = dataset.builder_dir(data_dir, config.image_size)
  split = dataset.Split(directory, _SPLIT.value)
  names = [dataset.text(name) for name in split.index.ids]
  mesh = sharding.make_mesh(config.data.batch_size)
  how = _protocol(protocol)
  not_measured: dict = {}
  header = {
    "split": _SPLIT.value,
    "clips": len(split),
    "windows": config.eval.batches * config.data.batch_size,
  }
  if stage == "expert":
    expert = train_expert.load_frozen(checkpoint)
    val = dataset.Split(directory, "val")
    figures = _windows_of_expert(expert[0], config, split, val, mesh)
    found = evaluate_split.evaluate_expert(
      split,
      [names[i] for i in _chosen(len(names), protocol)],
      _judges(expert, protocol, not_measured),
      how,
    )
  else:
    judge = _EXPERT.value or config.expert_checkpoint
    if not judge:
      raise ValueError(
        "--expert is not set, and this checkpoint was converted: give the "
        "expert that is to judge, --expert=WORKDIR"
      )
    judge = _at_this_step(judge)
    header["expert"] = judge
    variables, plain = inference.load_generator(checkpoint, _EMA.value)
    expert = train_expert.load_frozen(judge)
    train_generator.check_expert(config, expert[1], judge)
    figures, grid = train_generator.make_evaluator(
      config, expert[1], split, mesh
    )(variables, {"expert": expert[0]})
    found = evaluate_split.evaluate_generator(
      split,
      _chosen_pairs(names, split.index.num_frames / windows.FPS, protocol),
      inference.FaceGenerator(plain),
      variables,
      plain,
      _judges(expert, protocol, not_measured),
      PictureMeasures(protocol.lpips, protocol.inception),
      how,
      shown.crops,
    )
    header["grid"] = grid
  found.not_measured |= not_measured
  if config.data.get("contents") != _trained_on(directory):
    header["note"] = (
      "these clips and splits are not those of the training; clips of "
      f"{_SPLIT.value} may have been trained on"
    )
  return found, figures, header


def _evaluate_videos(checkpoint, stage, plain, protocol, shown, outdir):
  """Scores videos; returns as _evaluate_split."""
  not_measured, header = {}, {}
  path = _EXPERT.value or (
    checkpoint
    if stage == "expert" or (checkpoint and released.is_name(checkpoint))
    else plain.get("expert_checkpoint")
  )
  # SyncNet alone: of the config, only what is speech is asked.
  expert = None, weight_files.original_config("expert")
  try:
    if path:
      path = _at_this_step(path)
      expert, header["expert"] = train_expert.load_frozen(path), path
    else:
      not_measured["expert"] = "no expert: give one, --expert=WORKDIR"
  except checkpoints.CheckpointError as e:
    if _EXPERT.value or stage == "expert":
      raise
    not_measured["expert"] = f"{e}; give one, --expert=WORKDIR"
  if stage != "generator":
    plain = expert[1]
  found_judges = _judges(expert, protocol, not_measured)
  if not found_judges:
    raise ValueError(
      "there is no judge: give --expert=WORKDIR or "
      "--config.syncnet=syncnet_v2.model"
      + "".join(f" ({reason})" for reason in not_measured.values())
    )
  preparation = plain["preparation"]
  make = _make_video(outdir, checkpoint) if stage == "generator" else None
  if make is None and protocol.pairs:
    raise ValueError(
      "--config.pairs is for videos that a generator makes: without a "
      "generator every video of the folder is scored as it is"
    )
  names, seconds = evaluate_videos.list_videos(_VIDEOS.value)
  chosen = (
    _chosen_pairs(names, seconds, protocol)
    if make
    else [pairs.Pair(names[i], names[i]) for i in _chosen(len(names), protocol)]
  )
  found = evaluate_videos.evaluate(
    _VIDEOS.value,
    chosen,
    make,
    evaluate_videos.VideoJudges(
      found_judges, protocol.syncnet_pictures, preparation
    ),
    preparation,
    _protocol(protocol),
    shown.videos,
  )
  found.not_measured |= not_measured
  return found, {}, {**header, "videos": _VIDEOS.value}


def _protocol(config) -> evaluate_sync.Protocol:
  names = [field.name for field in dataclasses.fields(evaluate_sync.Protocol)]
  return evaluate_sync.Protocol(**{name: config[name] for name in names})


def _default_outdir(checkpoint: str | None) -> str:
  if _OUTDIR.value:
    return _OUTDIR.value
  if checkpoint is None:
    raise ValueError("--outdir is not set: say where the figures are to go")
  name = "videos" if _VIDEOS.value else _SPLIT.value
  if checkpoints.is_weights(checkpoint):
    return f"{os.path.splitext(checkpoint)[0]}_evaluation_{name}"
  return os.path.join(
    checkpoints.workdir_of(_CHECKPOINT.value), f"evaluation_{name}"
  )


def _write(outdir: str, report: dict, found, grid, shown) -> None:
  """Writes all files: the figures first, so that no drawing can lose them."""
  os.makedirs(outdir, exist_ok=True)
  found.write_csv(os.path.join(outdir, "clips.csv"))
  path = os.path.join(outdir, "metrics.json")
  with open(f"{path}.partial", "w") as f:
    json.dump(results_lib.without_nan(report), f, indent=2)
    f.write("\n")
  os.replace(f"{path}.partial", path)
  if grid is not None:
    metrics.save_image(os.path.join(outdir, "samples.png"), grid)
  if evaluation_report is None:
    print("note: no report.html: pip install matplotlib (extra 'demo')")
  else:
    evaluation_report.write(outdir, report, found.rows, shown.clips)


def _at_this_step(path: str) -> str:
  """Returns the step folder of a workdir, or weights as they are.

  Once: a workdir that is still being trained has other newest steps later.
  """
  return path if checkpoints.is_weights(path) else checkpoints.step_folder(path)


def _describe(path: str) -> tuple[str, str, int | None, dict]:
  """Returns (what to load, stage, step, config) of --checkpoint."""
  if _VIDEOS.value and checkpoints.is_weights(path):
    # The original's, say: a generator, of which launch.lipsync knows the rest.
    return path, "generator", None, checkpoints.load_config(path, "generator")
  folder = checkpoints.step_folder(path)
  return folder, *checkpoints.describe(folder)


def _run() -> None:
  protocol = _CONFIG.value
  try:
    protocol.seed  # noqa: B018 (a config that cannot be read tells only here)
  except OSError as e:
    sys.exit(flag_parsing.config_error(e))
  checkpoint, stage, step, plain = None, None, None, {}
  if _CHECKPOINT.value:
    checkpoint, stage, step, plain = _describe(_CHECKPOINT.value)
  elif not _VIDEOS.value:
    raise ValueError(
      "--checkpoint is not set: give the workdir of an expert or a generator, "
      "or --videos=FOLDER to score videos as they are"
    )
  outdir = _default_outdir(checkpoint)
  shown, began = _Shown(outdir), time.monotonic()
  if _VIDEOS.value:
    if not os.path.isdir(_VIDEOS.value):
      raise video.MediaError(f"{_VIDEOS.value}: no such folder")
    found, figures, header = _evaluate_videos(
      checkpoint, stage, plain, protocol, shown, outdir
    )
  else:
    config = ml_collections.ConfigDict(plain)
    found, figures, header = _evaluate_split(
      checkpoint, stage, config, protocol, shown
    )
  seconds = time.monotonic() - began
  grid = header.pop("grid", None)
  summary = found.summary()
  report = {
    "checkpoint": checkpoint,
    "stage": stage,
    "step": step,
    "ema": _EMA.value,
    **header,
    "protocol": protocol.to_dict(),
    "scored": len(found.rows),
    "seconds": seconds,
    "device": jax.default_backend(),
    **figures,
    "summary": summary,
    "curves": found.curves(),
    "shift_tests": found.shift_tests,
    "roc": found.rocs,
    "failures": found.failures,
    "not_measured": found.not_measured,
  }
  _write(outdir, report, found, grid, shown)
  print(evaluation_table.text(report, list(figures)))
  print(f"written: {outdir}: {', '.join(sorted(os.listdir(outdir)))}")


def main(argv):
  """Evaluates, prints a table and writes the figures."""
  logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step.
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  try:
    _run()
  except _ERRORS as e:
    sys.exit(f"error: {e}")


if __name__ == "__main__":
  app.run(main, flags_parser=flag_parsing.parse)
