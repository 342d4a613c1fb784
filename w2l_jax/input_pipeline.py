"""Batches: a split's windows, read, decoded and put together by Grain.

Which windows is window_sampler.py's matter.  One Grain element is one whole
batch (this process's rows of the global one), so splitting the work among
threads or workers cannot change what is in it, and the position is the step.

What a batch holds, in NumPy:

  frames      [B, T, S, S, 3] uint8   the target window's crops, BGR
  other       [B, T, S, S, 3] uint8   stage 2: the reference window; "two_way":
                                      pictures that do not belong to the speech
  mel         [B, M, F] float32       the window's mel columns
  frame_mels  [B, T, M, F] float32    stage 2: mel columns for every frame
  in_sync     [B] float32             stage 1: 1 where frames belong to mel
"""

import dataclasses
import functools

import grain
import numpy as np

from w2l_jax import stop_requests, windows
from w2l_jax.dataset import Split
from w2l_jax.window_sampler import WindowSampler, WindowSpec

# Records whose pictures found no room, kept as JPEG: some 200 MB.
_CACHED_RECORDS = 2048


@dataclasses.dataclass(frozen=True)
class LoadBatch(grain.transforms.Map):
  """Maps a step to this process's part of that step's global batch.

  Attributes:
    split: where from.
    spec: shape and rules of the windows.
    stage: "expert", "generator" or "two_way".
    seed: of the choice of windows.
    batch_size: of the global batch.
    rows: which rows of the global batch are this process's; None: all.
  """

  split: Split
  spec: WindowSpec
  stage: str
  seed: int
  batch_size: int
  rows: np.ndarray | None

  @functools.cached_property
  def _sampler(self) -> WindowSampler:
    return WindowSampler(self.split.index, self.spec, self.stage)

  @functools.cached_property
  def _clip(self):
    return functools.lru_cache(_CACHED_RECORDS)(self.split.clip)

  def __getstate__(self):
    # To worker processes go the fields, not what was computed from them.
    names = (field.name for field in dataclasses.fields(self))
    return {name: self.__dict__[name] for name in names}

  def map(self, step: int) -> dict[str, np.ndarray]:
    """Reads and decodes the rows of one step."""
    rows = self._sampler.rows(self.seed, int(step), self.batch_size)
    if self.rows is not None:
      rows = rows[self.rows]
    spec = self.spec
    examples = []
    for record, audio, target, other, in_sync in zip(
      rows.record,
      rows.audio,
      rows.target,
      rows.other,
      rows.in_sync,
      strict=True,
    ):
      clip = self._clip(int(record))
      example = {
        "frames": clip.pictures(slice(target, target + spec.frames)),
        "mel": windows.mel_window(clip.mel, audio, spec.mel_columns),
      }
      if self.stage == "expert":
        example["in_sync"] = np.float32(in_sync)
      else:
        example["other"] = clip.pictures(slice(other, other + spec.frames))
      if self.stage == "generator":
        example["frame_mels"] = windows.frame_mel_windows(
          clip.mel,
          audio,
          spec.frames,
          spec.mel_columns,
          spec.frame_mel_offset,
        )
      examples.append(example)
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}


def _begin_worker(index: int, count: int) -> None:
  """Lets a worker outlive a signal to all processes of a run.

  The run goes on until it has saved, and needs batches until then.
  """
  del index, count
  stop_requests.ignore()


def make_batches(
  split: Split,
  spec: WindowSpec,
  stage: str,
  *,
  seed: int,
  batch_size: int,
  first_step: int = 0,
  last_step: int,
  local_rows: np.ndarray | None = None,
  num_threads: int = 2,
  num_workers: int = 0,
) -> grain.DatasetIterator:
  """Returns an iterator over the batches of steps first_step .. last_step - 1.

  Args:
    split: where from.
    spec: shape and rules of the windows.
    stage: "expert", "generator" or "two_way".
    seed: of the choice of windows.
    batch_size: of the global batch.
    first_step: where to begin: a resumed run gives its step.
    last_step: where to end.
    local_rows: which rows of every batch are this process's; None: all.
    num_threads: that read and decode ahead.
    num_workers: processes that do so instead, if not 0.

  Raises:
    DatasetError: if no record yields a window.
  """
  load = LoadBatch(split, spec, stage, seed, batch_size, local_rows)
  WindowSampler(split.index, spec, stage)  # Errors here, not in a thread.
  dataset = grain.MapDataset.range(first_step, last_step).map(load)
  iterator = dataset.to_iter_dataset(
    grain.ReadOptions(
      num_threads=num_threads, prefetch_buffer_size=2 * num_threads
    )
  )
  if num_workers:
    iterator = iterator.mp_prefetch(
      grain.multiprocessing.MultiprocessingOptions(num_workers=num_workers),
      worker_init_fn=_begin_worker,
    )
  return iter(iterator)


def train_batches(
  split: Split,
  spec: WindowSpec,
  stage: str,
  config,
  local_rows: np.ndarray | None = None,
):
  """Returns first_step -> iterator over this process's training batches.

  Args:
    split: where from.
    spec: shape and rules of the windows.
    stage: "expert" or "generator".
    config: has seed, data and train.num_steps.
    local_rows: which rows of every batch are this process's; None: all.
  """

  def batches(first_step: int):
    return make_batches(
      split,
      spec,
      stage,
      seed=config.seed,
      batch_size=config.data.batch_size,
      first_step=first_step,
      last_step=config.train.num_steps,
      local_rows=local_rows,
      num_threads=config.data.num_threads,
      num_workers=config.data.num_workers,
    )

  return batches
