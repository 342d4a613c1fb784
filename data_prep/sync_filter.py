"""Which records are in sync, by a trained expert; shifting those that are not.

LatentSync's pipeline filters so, with SyncNet; Wav2Lip's has nothing of it.
What is done with the records that are kept is prepare.pack's matter.
"""

import dataclasses

import numpy as np

from data_prep import records
from data_prep.settings import DROPPED, KEPT, SHIFTED
from w2l_jax import audio, dataset, judges, train_expert, windows
from w2l_jax.evaluation import sync_metrics
from w2l_jax.judges import Features

# Offsets are searched this many frames to either side, as SyncNet's are
# (syncnet_python, run_syncnet.py).
MAX_SHIFT = 15
# A shift counts where at least so many windows have a partner.
_MIN_PAIRS = 8
# So many frames to either side of the best offset are its neighbours.
_NEIGHBOURS = 3


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
  max_mismatched: float = 0.01
  min_confidence: float | None = None


@dataclasses.dataclass(frozen=True)
class Sync:
  """How well a record's sound and pictures fit.

  Attributes:
    offset: frames by which the pictures come too late; negative: too early.
    confidence: the mean cosine at that offset less the next best, of offsets
      that are not its neighbours.
  """

  offset: int
  confidence: float


def load_judge(checkpoint: str) -> judges.ExpertJudge:
  """Loads an expert; `checkpoint` is what train_expert.load_frozen takes."""
  return judges.ExpertJudge(*train_expert.load_frozen(checkpoint))


def features_of(judge: judges.ExpertJudge, example: dict) -> Features | None:
  """Judges a record of a set; None if it is too short for one window."""
  try:
    return judge(
      dataset.decode_frames(example),
      dataset.decode_audio(example),
      example["mel"],
    )
  except ValueError:
    return None


def similarity_by_shift(
  lips: Features, speech: Features, max_shift: int = MAX_SHIFT
) -> np.ndarray:
  """Mean cosine of speech and the lips some frames later, at every shift.

  Args:
    lips: whose lips.
    speech: whose speech; the same record, or another.
    max_shift: in frames, to either side.

  Returns:
    [2 max_shift + 1]: entry max_shift + k is of the lips k frames later; NaN
    where too few windows with speech have a partner.
  """
  n = min(len(lips), len(speech))
  found = sync_metrics.shift_similarities(
    lips.lips[:n], speech.speech[:n], max_shift, speech.has_speech[:n]
  )
  # There entry max_shift + k is of the speech k frames later.
  return np.array(
    [
      np.nanmean(v) if np.isfinite(v).sum() >= _MIN_PAIRS else np.nan
      for v in reversed(found)
    ]
  )


def measure(
  lips: Features | None,
  speech: Features | None,
  max_shift: int = MAX_SHIFT,
) -> Sync | None:
  """Finds the offset of one record's pictures and (its own or another's) sound.

  Returns:
    None if there is too little speech, or too few offsets, to tell.
  """
  if lips is None or speech is None:
    return None
  found = similarity_by_shift(lips, speech, max_shift)
  if not np.isfinite(found).any():
    return None
  best = int(np.nanargmax(found))
  others = np.concatenate(
    [found[: max(0, best - _NEIGHBOURS)], found[best + _NEIGHBOURS + 1 :]]
  )
  if not np.isfinite(others).any():
    return None
  return Sync(
    offset=best - max_shift, confidence=float(found[best] - np.nanmax(others))
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
