"""Figures of the clips of a prepared set: crops, no detector, no videos.

Judges and picture measures are asked elsewhere (evaluate_sync.py,
evaluate_pictures.py); this is which clips, which speech, and what stands beside
what.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
from tqdm import auto as tqdm

from w2l_jax import dataset, evaluate_sync, inference
from w2l_jax.evaluate_pictures import PictureMeasures
from w2l_jax.evaluate_sync import Protocol
from w2l_jax.evaluation.results import Results
from w2l_jax.pairs import Pair

_BESIDE = ("real", "generated", "reconstructed", "unsynced")


@dataclasses.dataclass(frozen=True)
class Clip:
  """A prepared clip.

  Attributes:
    crops: [n, S, S, 3] uint8.
    waveform: [samples] float32, 16 kHz.
    mel: [T_mel, F].
  """

  crops: np.ndarray
  waveform: np.ndarray
  mel: np.ndarray


class _TooShort(ValueError):
  pass


class _Clips:
  """Reads the clips of a split by name."""

  def __init__(self, split: dataset.Split, min_frames: int):
    self._split, self._min_frames = split, min_frames
    self._numbers = {dataset.text(n): i for i, n in enumerate(split.index.ids)}

  def __getitem__(self, name: str) -> Clip:
    if name not in self._numbers:
      raise ValueError(
        f"no clip of that name in the split {self._split.name!r}: {name}"
      )
    record = self._split[self._numbers[name]]
    if len(record["frames"]) < self._min_frames:
      raise _TooShort(
        f"{name} has {len(record['frames'])} frames, fewer than "
        f"{self._min_frames}"
      )
    return Clip(
      dataset.decode_frames(record),
      dataset.decode_audio(record),
      record["mel"],
    )


def _progress(items: Iterable) -> Iterable:
  return tqdm.tqdm(items, desc="scoring", unit="clip")


def evaluate_expert(
  split: dataset.Split, names: list[str], judges: list, protocol: Protocol
) -> Results:
  """Scores real clips by every judge, and tests the judges on them.

  Args:
    split: where the clips are.
    names: of the clips.
    judges: of judges.py, with a name each.
    protocol: how.
  """
  results, clips = Results(), _Clips(split, protocol.min_frames)
  tests = evaluate_sync.JudgeTests(judges, protocol)
  for name in _progress(names):
    try:
      clip = clips[name]
      # All judges first: a clip counts for every one of them, or for none.
      found = [judge(clip.crops, clip.waveform, clip.mel) for judge in judges]
    except ValueError as e:
      results.fail(name, str(e))
      continue
    figures = {}
    for judge, features in zip(judges, found, strict=True):
      figures |= evaluate_sync.measure(
        results, judge.name, "real", features, protocol
      )
      tests.add(judge.name, features)
    _note_silence(results, name, features)
    results.add({"clip": name}, figures)
  tests.finish(results)
  return results


def evaluate_generator(
  split: dataset.Split,
  pairs: list[Pair],
  generator: inference.FaceGenerator,
  variables: dict,
  config: dict,
  judges: list,
  pictures: PictureMeasures,
  protocol: Protocol,
  show: Callable,
) -> Results:
  """Makes faces say other clips' speech, and their own, and scores both.

  Of each pair: the generated clip; the real video of the speech; the face held
  still; the face's own video beside that speech (unsynced).  The speech's own
  clip is also reconstructed from its first face alone (so that no mouth but
  the first frame's can be copied) and held against the truth.

  Args:
    split: where the clips are.
    pairs: of names of clips.
    generator, variables, config: of stage 2.
    judges: of judges.py.
    pictures: measures.
    protocol: how.
    show: called with (name, {column: [n, S, S, 3]}, waveform) for the first
      `protocol.shown` pairs.
  """
  results, clips = Results(), _Clips(split, protocol.min_frames)
  results.not_measured |= pictures.not_measured
  tests = evaluate_sync.JudgeTests(judges, protocol)
  tested = set()
  first_face = {
    **config, "inference": {**config["inference"], "reference": "first"}
  }  # fmt: skip
  for pair in _progress(pairs):
    name = f"{pair.face} says {pair.speech}"
    try:
      face, speech = clips[pair.face], clips[pair.speech]
      total = len(speech.crops)
      taken, generated = inference.lipsync_crops(
        generator, variables, config, face.crops, speech.mel, total
      )
      _, reconstructed = inference.lipsync_crops(
        generator, variables, first_face, speech.crops, speech.mel, total
      )
      shown = {
        "real": speech.crops,
        "generated": generated,
        "reconstructed": reconstructed,
        "copied": np.repeat(face.crops[:1], total, axis=0),
        "unsynced": taken,
      }
      found = {
        (judge, variant): judge(crops, speech.waveform, speech.mel)
        for judge in judges
        for variant, crops in shown.items()
      }
    except ValueError as e:
      results.fail(name, str(e))
      continue
    figures = {}
    for (judge, variant), features in found.items():
      figures |= evaluate_sync.measure(
        results, judge.name, variant, features, protocol
      )
      if variant == "real" and pair.speech not in tested:
        tests.add(judge.name, features)
      if judge.name == "expert":
        pictures.add_judged(variant, features.lips)
    tested.add(pair.speech)
    held = np.repeat(speech.crops[:1], total, axis=0)
    for variant, crops in (("reconstructed", reconstructed), ("copied", held)):
      for measure, value in pictures.compare(crops, speech.crops).items():
        figures[measure, variant] = value
    for variant in ("generated", "unsynced"):
      figures["mouth_correlation", variant] = pictures.mouth_correlation(
        shown[variant], speech.crops
      )
    for variant, crops in shown.items():
      figures["lower_jitter", variant] = pictures.jitter(crops)
      pictures.add_features(variant, crops)
    _note_silence(results, name, features)
    results.add({"face": pair.face, "speech": pair.speech}, figures)
    if len(results.rows) <= protocol.shown:
      show(name, {k: shown[k] for k in _BESIDE}, speech.waveform)
  tests.finish(results)
  results.of_sets |= pictures.distances()
  return results


def _note_silence(results: Results, name: str, features) -> None:
  if not features.has_speech.any():
    results.fail(
      name, "none of its windows has speech: it has no similarity, but the rest"
    )
