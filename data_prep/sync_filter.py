"""Which records are in sync, by a trained expert; shifting those that are not.

LatentSync's pipeline filters so, with SyncNet; Wav2Lip's has nothing of it.
What is done with the records that are kept is prepare.pack's matter.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from data_prep import records
from w2l_jax import audio, dataset, train_expert, windows
from w2l_jax.window_sampler import WindowSpec

# Offsets are searched this many frames to either side, as SyncNet's are
# (syncnet_python, run_syncnet.py).
MAX_SHIFT = 15
# A shift counts where at least so many windows have a partner.
_MIN_PAIRS = 8
# Windows that the expert embeds at a time: one shape, one compilation.
_BATCH = 64

KEPT, SHIFTED, DROPPED = "kept", "shifted", "dropped"


@dataclasses.dataclass(frozen=True)
class Thresholds:
  """What is kept, shifted and dropped.

  Attributes:
    keep_within: offsets of up to so many frames are left as they are: they are
      within the estimate's own error.
    max_offset: records of a greater offset are dropped.  LatentSync's is 6.
    max_mismatched: min_confidence is chosen such that this share of records
      whose sound is another record's would pass.
    min_confidence: records below are dropped; None: chosen by max_mismatched.
  """

  keep_within: int = 1
  max_offset: int = 10
  max_mismatched: float = 0.03
  min_confidence: float | None = None


@dataclasses.dataclass(frozen=True)
class Features:
  """What an expert makes of the windows of one record, one for each frame.

  Attributes:
    lips: [n, D] of length 1.
    speech: [n, D] of length 1.
    counted: [n] bool, which windows have speech.
  """

  lips: np.ndarray
  speech: np.ndarray
  counted: np.ndarray


@dataclasses.dataclass(frozen=True)
class Sync:
  """How well a record's sound and pictures fit.

  Attributes:
    offset: frames by which the pictures come too late; negative: too early.
    confidence: the mean cosine at that offset less the median over offsets:
      SyncNet's confidence, of cosines.
  """

  offset: int
  confidence: float


def make_embedder(
  checkpoint: str,
) -> tuple[Callable[[np.ndarray, np.ndarray], Features], dict]:
  """Loads an expert.

  Args:
    checkpoint: what train_expert.load_frozen takes.

  Returns:
    (a function of frames [T, S, S, 3] uint8 and mel [M, 80], the config that
    the expert was trained with).
  """
  variables, config = train_expert.load_frozen(checkpoint)
  model = train_expert.make_model(config)
  spec = train_expert.window_spec(config)

  @jax.jit
  def embed(variables, mel, frames):
    return train_expert.embed(
      model.apply, config, variables, {"mel": mel}, frames
    )

  def features(frames, mel):
    starts, counted = speech_windows(len(frames), mel, spec)
    lips, speech = [], []
    for first in range(0, len(starts), _BATCH):
      # The last batch is filled up with its last window.
      chosen = starts[first : first + _BATCH]
      padded = np.pad(chosen, (0, _BATCH - len(chosen)), mode="edge")
      heard, seen = embed(
        variables,
        np.stack(
          [windows.mel_window(mel, f, spec.mel_columns) for f in padded]
        ),
        np.stack([frames[f : f + spec.frames] for f in padded]),
      )
      speech.append(np.asarray(heard)[: len(chosen)])
      lips.append(np.asarray(seen)[: len(chosen)])
    if not len(starts):
      none = np.zeros((0, 1), np.float32)
      return Features(none, none, counted)
    return Features(np.concatenate(lips), np.concatenate(speech), counted)

  return features, config


def speech_windows(
  num_frames: int, mel: np.ndarray, spec: WindowSpec
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the frames at which windows start, and which have speech."""
  count = int(
    windows.num_target_starts(
      num_frames, len(mel), frames=spec.frames, columns=spec.mel_columns
    )
  )
  means = windows.window_means(mel.mean(axis=1), count, spec.mel_columns)
  return np.arange(count), means > spec.speech_threshold


def similarity_by_shift(
  lips: np.ndarray,
  speech: np.ndarray,
  counted: np.ndarray,
  max_shift: int = MAX_SHIFT,
) -> np.ndarray:
  """Mean cosine of speech and the lips some frames later, at every shift.

  Args:
    lips: [n, D] of length 1.
    speech: [m, D] of length 1.
    counted: [m] bool, which of the speech counts.
    max_shift: in frames, to either side.

  Returns:
    [2 max_shift + 1]: entry max_shift + k is of the lips k frames later; NaN
    where too few windows have a partner.
  """
  cosines = np.where(counted[:, None], speech @ lips.T, np.nan)
  found = np.full(2 * max_shift + 1, np.nan)
  for k in range(-max_shift, max_shift + 1):
    pairs = np.diagonal(cosines, k)
    pairs = pairs[np.isfinite(pairs)]
    if len(pairs) >= _MIN_PAIRS:
      found[max_shift + k] = pairs.mean()
  return found


def measure(
  lips: Features, speech: Features, max_shift: int = MAX_SHIFT
) -> Sync | None:
  """Finds the offset of one record's pictures and (its own or another's) sound.

  Returns:
    None if there is too little speech to tell.
  """
  found = similarity_by_shift(
    lips.lips, speech.speech, speech.counted, max_shift
  )
  if not np.isfinite(found).any():
    return None
  best = int(np.nanargmax(found))
  return Sync(
    offset=best - max_shift, confidence=float(found[best] - np.nanmedian(found))
  )


def mismatched(features: list[Features], seed: int = 0) -> list[Sync]:
  """Measures every record's pictures with the sound of another record."""
  if len(features) < 2:
    return []
  order = np.random.default_rng(seed).permutation(len(features))
  pairs = zip(order, np.roll(order, 1), strict=True)
  found = (measure(features[a], features[b]) for a, b in pairs)
  return [sync for sync in found if sync is not None]


def choose_confidence(
  thresholds: Thresholds, mismatched: list[Sync]
) -> Thresholds:
  """Sets min_confidence, if it is not set, by records that do not fit.

  Only those whose best offset would be accepted count.

  Raises:
    ValueError: if there are too few to tell.
  """
  if thresholds.min_confidence is not None:
    return thresholds
  if len(mismatched) < 20:
    raise ValueError(
      f"only {len(mismatched)} records have speech enough to choose "
      "min_confidence by; expected 20 or more: give --min_confidence"
    )
  passing = [
    sync.confidence if abs(sync.offset) <= thresholds.max_offset else -np.inf
    for sync in mismatched
  ]
  value = np.quantile(passing, 1 - thresholds.max_mismatched, method="higher")
  # Just above, so that the record itself does not pass.
  value = np.nextafter(np.float64(max(value, 0.0)), np.inf)
  return dataclasses.replace(thresholds, min_confidence=float(value))


def decide(sync: Sync | None, thresholds: Thresholds) -> tuple[str, str]:
  """Returns (KEPT, SHIFTED or DROPPED, why)."""
  if sync is None:
    return DROPPED, "too little speech to tell"
  if sync.confidence < thresholds.min_confidence:
    return DROPPED, "confidence too low"
  if abs(sync.offset) > thresholds.max_offset:
    return DROPPED, f"offset above {thresholds.max_offset} frames"
  if abs(sync.offset) > thresholds.keep_within:
    return SHIFTED, "offset undone"
  return KEPT, "in sync"


def shift(
  record: records.Record, offset: int, audio_padding: str
) -> records.Record:
  """Undoes an offset: cuts what has no partner from pictures and sound.

  Args:
    record: whose pictures come `offset` frames too late.
    offset: in frames; negative: too early.
    audio_padding: of audio.log_mel.

  Returns:
    A record that is |offset| frames shorter; its start is its pictures'.
  """
  sound = dataset.decode_audio({"audio": record.audio})
  first, silent = max(0, offset), max(0, -offset)
  count = len(record.frames) - abs(offset)
  frames = slice(first, first + count)
  sound = sound[silent * records.SAMPLES_PER_FRAME :]
  sound = sound[: count * records.SAMPLES_PER_FRAME]
  return dataclasses.replace(
    record,
    frames=list(record.frames[frames]),
    boxes=record.boxes[frames],
    mel=audio.log_mel(sound, padding=audio_padding),
    audio=records.flac(sound),
    start=record.start + first / windows.FPS,
  )
