"""Which windows make up a batch: a pure function of (seed, step).

Nothing here reads frames, so another number of threads, workers or processes
gives the same batches, and the data position of a run is its step.  Sampling
rules: the original's __getitem__ in color_syncnet_train.py and
hq_wav2lip_train.py, without their endless retries: what cannot yield a window
is left out beforehand.
"""

import dataclasses

import numpy as np

from w2l_jax import windows
from w2l_jax.dataset import DatasetError, Index


@dataclasses.dataclass(frozen=True)
class WindowSpec:
  """The shape of windows and the rules of choosing them (config.windows).

  Attributes:
    frames: T, pictures in a window.
    mel_columns: M, mel columns in a window.
    frame_mel_offset: frame f's own mel window begins with frame f + this.
      The original trains with -1.
    min_negative_distance: least distance in frames of an off-sync window from
      its speech.  The original: 1.
    min_reference_distance: least distance in frames of the reference window
      from the target.  The original: 1.
    speech_only: whether stage 1 takes only windows with speech.
    speech_threshold: a window has speech if its mean mel, in [-4, 4], exceeds
      this.
    windows_per_clip: in stage 1, for the contrastive loss: how many windows of
      a clip follow each other in a batch, all in sync and
      min_negative_distance apart; 1 is the original's rule.
  """

  frames: int = 5
  mel_columns: int = 16
  frame_mel_offset: int = -1
  min_negative_distance: int = 1
  min_reference_distance: int = 1
  speech_only: bool = False
  speech_threshold: float = -2.5
  windows_per_clip: int = 1


@dataclasses.dataclass(frozen=True)
class Rows:
  """The windows of one global batch; every field is [B] int64.

  Attributes:
    record: number of the record.
    audio: frame at which the speech window begins.
    target: frame at which the picture window begins.
    other: frame at which a second picture window begins: stage 2's reference,
      or the wrong choice in evaluation.
    in_sync: 1 where `audio` and `target` are the same instant.
  """

  record: np.ndarray
  audio: np.ndarray
  target: np.ndarray
  other: np.ndarray
  in_sync: np.ndarray

  def __getitem__(self, rows) -> "Rows":
    return Rows(
      *(getattr(self, field.name)[rows] for field in dataclasses.fields(self))
    )


class WindowSampler:
  """Chooses windows of one split."""

  def __init__(self, index: Index, spec: WindowSpec, stage: str):
    """Finds out where windows can start in every record.

    Args:
      index: of the split.
      spec: the rules.
      stage: "expert", "generator", or "two_way": speech with its own pictures
        and others of the same clip, for measuring the expert.

    Raises:
      DatasetError: if no record can yield a window.
    """
    self._spec, self._stage = spec, stage
    self._grouped = stage == "expert" and spec.windows_per_clip > 1
    first, last_offset = 0, 0
    if stage == "generator":
      # Every frame has a mel window of its own, the first from `offset` on.
      first = max(0, -spec.frame_mel_offset)
      last_offset = max(0, spec.frames - 1 + spec.frame_mel_offset)
    starts = windows.num_target_starts(
      index.num_frames,
      index.num_mel,
      frames=spec.frames,
      columns=spec.mel_columns,
      last_offset=last_offset,
    )
    self._distance = (
      spec.min_reference_distance
      if stage == "generator"
      else spec.min_negative_distance
    )
    # Pictures of the second window need no mel.
    self._others = np.maximum(index.num_frames - spec.frames + 1, 0)
    if stage != "generator":
      self._others = starts
    candidates = []
    for i, count in enumerate(starts):
      frames = np.arange(first, max(count, first))
      if spec.speech_only and stage != "generator" and len(frames):
        means = windows.window_means(
          index.record_column_means(i), int(count), spec.mel_columns
        )
        frames = frames[means[frames] > spec.speech_threshold]
      # From here, is there another window far enough away?
      reach = np.maximum(frames, self._others[i] - 1 - frames)
      frames = frames[reach >= self._distance]
      if self._grouped and len(self._spaced(frames)) < spec.windows_per_clip:
        frames = frames[:0]
      candidates.append(frames)
    self._candidates = candidates
    self._records = np.flatnonzero([len(c) for c in candidates])
    if not len(self._records):
      raise DatasetError(
        f"none of the {len(index)} records yields a window: {spec.frames} "
        f"frames with {spec.mel_columns} mel columns and another window at "
        f"least {self._distance} frames away"
        + (
          f", with a mean mel above {spec.speech_threshold}"
          if spec.speech_only
          else ""
        )
        + (
          f", {spec.windows_per_clip} such windows a clip"
          if self._grouped
          else ""
        )
        + "; prepare longer clips or change config.windows"
      )
    self._counts = np.array([len(candidates[i]) for i in self._records])
    self._starts = np.cumsum(self._counts) - self._counts
    self._frames = np.concatenate([candidates[i] for i in self._records])

  def _spaced(self, frames: np.ndarray) -> list[int]:
    """Keeps frames, in the order given, that are far enough from the others."""
    kept: list[int] = []
    for frame in frames:
      if all(abs(frame - other) >= self._distance for other in kept):
        kept.append(int(frame))
    return kept

  def _groups(self, rng: np.random.Generator, batch_size: int) -> Rows:
    """Chooses windows_per_clip windows of each of some clips."""
    per_clip = self._spec.windows_per_clip
    if batch_size % per_clip:
      raise DatasetError(
        f"batch_size {batch_size} does not divide by windows_per_clip "
        f"{per_clip}; change config.data.batch_size"
      )
    records = rng.choice(self._records, batch_size // per_clip)
    starts = []
    for record in records:
      frames = self._candidates[record]
      chosen = self._spaced(rng.permutation(frames))
      if len(chosen) < per_clip:  # In ascending order the most fit in.
        chosen = rng.permutation(self._spaced(frames))
      starts.append(np.array(chosen[:per_clip]))
    frames = np.concatenate(starts).astype(np.int64)
    return Rows(
      np.repeat(records, per_clip), frames, frames, frames, np.ones_like(frames)
    )

  def rows(self, seed: int, step: int, batch_size: int) -> Rows:
    """Chooses a global batch; the same arguments give the same rows.

    A record is drawn uniformly (so long clips count no more than short ones),
    then a window of it, then another of the same record; in stage 1 a coin
    says which of the two the pictures are taken from.  With windows_per_clip,
    that many windows of each record, all in sync.
    """
    rng = np.random.default_rng([seed, step])
    if self._grouped:
      return self._groups(rng, batch_size)
    which = rng.integers(len(self._records), size=batch_size)
    offset = rng.integers(self._counts[which])
    audio = self._frames[self._starts[which] + offset]
    record = self._records[which]
    # Uniform over 0 .. others - 1 without (audio - distance, audio + distance).
    before = np.maximum(audio - self._distance + 1, 0)
    after = np.maximum(self._others[record] - audio - self._distance, 0)
    u = rng.integers(before + after)
    other = np.where(u < before, u, audio + self._distance + u - before)
    in_sync = np.ones_like(audio)
    target = audio
    if self._stage == "expert":
      in_sync = rng.integers(2, size=batch_size)
      target = np.where(in_sync, audio, other)
    return Rows(record, audio, target, other, in_sync)
