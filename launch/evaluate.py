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

import json
import os
import re
import sys
import time

import cv2
import jax
import ml_collections
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from w2l_jax import (
  checkpoints,
  dataset,
  evaluate_split,
  evaluate_videos,
  inference,
  judges,
  metrics,
  pairs,
  sharding,
  torch_file,
  train_expert,
  train_generator,
  video,
  windows,
)
from w2l_jax.evaluate_pictures import PictureMeasures
from w2l_jax.evaluation import results as results_lib

_CONFIG = config_flags.DEFINE_config_file(
  "config", "configs/evaluation.py", "How clips are scored.", lock_config=True
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint",
  None,
  "Workdir of launch.train or launch.convert_checkpoint, or a step folder.",
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

# Sides of the clips in the report, at least.
_SHOWN_SIDE = 192
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
  """The judges that there are weights of; tells of the others."""
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


def _chosen_clips(split: dataset.Split, protocol) -> list[str]:
  names = [dataset.text(name) for name in split.index.ids]
  order = np.random.default_rng([protocol.seed, 0xC11]).permutation(len(names))
  return [names[i] for i in order[: protocol.clips or None]]


def _pairs_of_split(split: dataset.Split, protocol) -> list[pairs.Pair]:
  if protocol.pairs:
    found = pairs.read(protocol.pairs, protocol.pairs_order)
    return found[: protocol.clips or None]
  names = [dataset.text(name) for name in split.index.ids]
  seconds = split.index.num_frames / windows.FPS
  return pairs.random_pairs(
    names, seconds, protocol.clips or None, protocol.seed
  )


def _pairs_of_videos(folder: str, protocol, own: bool) -> list[pairs.Pair]:
  """The pairs of a list, or of all videos of a folder."""
  if protocol.pairs:
    found = pairs.read(protocol.pairs, protocol.pairs_order)
    return found[: protocol.clips or None]
  names = sorted(
    os.path.relpath(os.path.join(parent, file), folder)
    for parent, _, files in os.walk(folder)
    for file in files
    if not file.startswith(".")
  )
  if not names:
    raise video.MediaError(f"{folder}: has no files, expected videos")
  if own:
    rng = np.random.default_rng([protocol.seed, 0xC11])
    order = rng.permutation(len(names))[: protocol.clips or None]
    return [pairs.Pair(names[i], names[i]) for i in sorted(order)]
  seconds = np.array([_seconds(os.path.join(folder, name)) for name in names])
  # What is no video stays in: it is listed as a failure, not left out.
  return pairs.random_pairs(
    names, seconds, protocol.clips or None, protocol.seed
  )


def _seconds(path: str) -> float:
  try:
    waveform, rate = video.read_audio(path)
    return len(waveform) / rate
  except video.MediaError:
    return 0.0


class _Shown:
  """Writes the clips of the report, variants side by side."""

  def __init__(self, outdir: str):
    self._folder = os.path.join(outdir, "clips")
    self.clips: list[dict] = []

  def _path(self) -> str:
    os.makedirs(self._folder, exist_ok=True)
    return os.path.join(self._folder, f"{len(self.clips)}.mp4")

  def crops(self, name: str, columns: dict, waveform: np.ndarray) -> None:
    """Writes crops [n, S, S, 3] by variant, with their speech."""
    path = self._path()
    times = -(-_SHOWN_SIDE // next(iter(columns.values())).shape[1])
    with video.VideoWriter(path, windows.FPS, waveform) as writer:
      for frames in zip(*columns.values(), strict=True):
        picture = np.concatenate(frames, axis=1)
        writer.write(picture.repeat(times, 0).repeat(times, 1))
    self.clips.append({"name": name, "file": path, "columns": list(columns)})

  def videos(self, name: str, columns: dict) -> None:
    """Writes videos by variant; the sound is the generated or given one's."""
    path, height = self._path(), 288
    sound = columns.get("generated", columns.get("given"))
    waveform, rate = video.read_audio(sound)
    with video.VideoWriter(path, windows.FPS, waveform, rate) as writer:
      for frames in zip(
        *(video.frames_at_rate(c, windows.FPS) for c in columns.values()),
        strict=False,
      ):
        sized = [
          cv2.resize(f, (round(f.shape[1] * height / f.shape[0]), height))
          for f in frames
        ]
        writer.write(np.concatenate(sized, axis=1))
    self.clips.append({"name": name, "file": path, "columns": list(columns)})


def _make_video(outdir: str, checkpoint: str):
  """Returns make(face, speech, name) of evaluate_videos.evaluate."""
  folder = os.path.join(outdir, "videos")

  def make(face: str, speech: str, name: str) -> str:
    os.makedirs(folder, exist_ok=True)
    file = re.sub(r"[^\w.-]+", "_", name)
    path = os.path.join(folder, f"{file}.mp4")
    inference.lipsync(checkpoint, face, speech, path, ema=_EMA.value)
    return path

  return make


def _evaluate_split(checkpoint, stage, config, protocol, shown):
  """Scores a prepared set; returns (results, figures of windows, header)."""
  if _BATCHES.value:
    config.eval.batches = _BATCHES.value
  directory = dataset.builder_dir(
    _DATA_DIR.value or config.data.dir, config.image_size
  )
  split = dataset.Split(directory, _SPLIT.value)
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
      _chosen_clips(split, protocol),
      _judges(expert, protocol, not_measured),
      how,
    )
  else:
    judge = checkpoints.step_folder(_EXPERT.value or config.expert_checkpoint)
    header["expert"] = judge
    variables, plain = inference.load_generator(checkpoint, _EMA.value)
    expert = train_expert.load_frozen(judge)
    train_generator.check_expert(config, expert[1], judge)
    figures, grid = train_generator.make_evaluator(
      config, expert[1], split, mesh
    )(variables, {"expert": expert[0]})
    found = evaluate_split.evaluate_generator(
      split,
      _pairs_of_split(split, protocol),
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
  if config.data.get("contents") != dataset.contents_digest(directory):
    header["note"] = (
      "these clips and splits are not those of the training; clips of "
      f"{_SPLIT.value} may have been trained on"
    )
  return found, figures, header


def _evaluate_videos(checkpoint, stage, plain, protocol, shown, outdir):
  """Scores videos; returns as _evaluate_split."""
  not_measured: dict = {}
  path = _EXPERT.value or (
    checkpoint if stage == "expert" else plain.get("expert_checkpoint")
  )
  expert, header = (None, {"windows": plain["windows"]}), {}
  if path:
    if os.path.isdir(path):
      path = checkpoints.step_folder(path)
    expert, header["expert"] = train_expert.load_frozen(path), path
    plain = plain if stage == "generator" else expert[1]
  found_judges = _judges(expert, protocol, not_measured)
  if not found_judges:
    raise ValueError(
      "there is no judge: give --expert=WORKDIR or "
      "--config.syncnet=syncnet_v2.model"
      + "".join(f" ({reason})" for reason in not_measured.values())
    )
  preparation = plain["preparation"]
  make = _make_video(outdir, checkpoint) if stage == "generator" else None
  found = evaluate_videos.evaluate(
    _VIDEOS.value,
    _pairs_of_videos(_VIDEOS.value, protocol, own=make is None),
    make,
    evaluate_videos.VideoJudges(
      found_judges, protocol.syncnet_pictures, preparation["audio_padding"]
    ),
    preparation,
    _protocol(protocol),
    shown.videos,
  )
  found.not_measured |= not_measured
  return found, {}, {**header, "videos": _VIDEOS.value}


def _protocol(config) -> evaluate_split.Protocol:
  return evaluate_split.Protocol(
    min_frames=config.min_frames,
    max_shift=config.max_shift,
    faithful=config.faithful,
    roc_distance=config.roc_distance,
    shown=config.shown,
  )


def _window_table(results: dict) -> str:
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
  return _aligned(rows)


def _clip_table(summary: dict) -> str:
  """Means over clips, one line a measure, one column a variant."""
  variants = [
    v for v in results_lib.VARIANTS if any(v in m for m in summary.values())
  ]
  rows = [("", *variants)]
  rows += [
    (
      measure,
      *(f"{by[v]['mean']:.4f}" if v in by else "-" for v in variants),
    )
    for measure, by in summary.items()
  ]
  return _aligned(rows)


def _aligned(rows) -> str:
  return "\n".join(
    "  ".join([row[0].ljust(28), *(cell.rjust(16) for cell in row[1:])])
    for row in rows
  )


def _default_outdir(checkpoint: str | None) -> str:
  if _OUTDIR.value:
    return _OUTDIR.value
  if checkpoint is None:
    raise ValueError("--outdir is not set: say where the figures are to go")
  name = "videos" if _VIDEOS.value else _SPLIT.value
  return os.path.join(
    checkpoints.workdir_of(_CHECKPOINT.value), f"evaluation_{name}"
  )


def _write(outdir: str, report: dict, found, grid, shown) -> None:
  """Writes all files; metrics.json last."""
  found.write_csv(os.path.join(outdir, "clips.csv"))
  if grid is not None:
    metrics.save_image(os.path.join(outdir, "samples.png"), grid)
  try:
    from launch import evaluation_report
  except ImportError as e:
    if e.name != "matplotlib":
      raise
    print("note: no report.html: pip install matplotlib (extra 'demo')")
  else:
    evaluation_report.write(outdir, report, found.rows, shown.clips)
  path = os.path.join(outdir, "metrics.json")
  with open(f"{path}.partial", "w") as f:
    json.dump(results_lib.without_nan(report), f, indent=2)
    f.write("\n")
  os.replace(f"{path}.partial", path)


def _run() -> None:
  protocol = _CONFIG.value
  checkpoint, stage, step, plain = None, None, None, {}
  if _CHECKPOINT.value:
    # Once: a workdir that is still being trained has other newest steps later.
    checkpoint = checkpoints.step_folder(_CHECKPOINT.value)
    stage, step, plain = checkpoints.describe(checkpoint)
  elif not _VIDEOS.value:
    raise ValueError(
      "--checkpoint is not set: give the workdir of an expert or a generator, "
      "or --videos=FOLDER to score videos as they are"
    )
  outdir = _default_outdir(checkpoint)
  os.makedirs(outdir, exist_ok=True)
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
  if "note" in header:
    print(f"note: {header['note']}")
  what = f"{stage}, step {step}" if stage else "videos"
  where = _VIDEOS.value or f"split {_SPLIT.value}: {header['clips']} clips"
  print(f"{what}, {where}, on {jax.default_backend()}")
  if figures:
    print(f"\n{header['windows']} windows:")
    print(_window_table(figures))
  print(f"\n{len(found.rows)} clips or face tracks:")
  print(_clip_table(summary))
  if found.failures:
    print(f"\nnot scored, or not wholly ({len(found.failures)}):")
    for failure in found.failures:
      print(f"  {failure['clip']}: {failure['reason']}")
  for measure, reason in found.not_measured.items():
    print(f"not measured: {measure}: {reason}")
  print(f"written: {outdir}: metrics.json, clips.csv, report.html")


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
  app.run(main)
