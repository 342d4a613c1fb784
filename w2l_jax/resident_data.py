"""A data set that lies on the devices, its windows gathered inside the step.

For sets whose decoded pictures fit in a device's memory beside the networks
(28 kB a picture of 96 pixels; GRID's speaker 1 takes 1.6 GB): after the start
no picture is decoded, copied or sent again.  The batches are those of
input_pipeline.py, bit for bit, for both take their rows from window_sampler.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import auto as tqdm

from w2l_jax import windows
from w2l_jax.dataset import DatasetError, Split, decode_frames
from w2l_jax.window_sampler import Rows, WindowSampler, WindowSpec


def load(split: Split, *, progress: bool = True) -> dict[str, np.ndarray]:
  """Decodes a whole split.

  Args:
    split: to be read.
    progress: whether to show how far it is.

  Returns:
    frames [all pictures, S, S, 3] uint8, BGR, and mel [all columns, F]
    float32; one record after another.

  Raises:
    DatasetError: if it takes more than nine tenths of what a device has left.
  """
  index = split.index
  first = split[0]
  one, column = decode_frames(first, slice(0, 1)), first["mel"][:1]
  pictures, columns = int(index.num_frames.sum()), int(index.num_mel.sum())
  needed = pictures * one.nbytes + columns * column.nbytes
  memory = jax.local_devices()[0].memory_stats() or {}
  if "bytes_limit" in memory:
    left = memory["bytes_limit"] - memory.get("bytes_in_use", 0)
    if needed > 0.9 * left:
      raise DatasetError(
        f"{split.directory}: the pictures of split {split.name!r} take "
        f"{needed / 1e9:.1f} GB, the device has {left / 1e9:.1f} GB left; "
        "leave config.data.on_device at False"
      )
  frames = np.empty((pictures, *one.shape[1:]), np.uint8)
  mel = np.empty((columns, *column.shape[1:]), np.float32)
  frame, column = _begins(index.num_frames), _begins(index.num_mel)
  for i in tqdm.trange(
    len(split), desc="to the device", unit="clip", disable=not progress
  ):
    record = split[i]  # Not split.clip: nothing of it is wanted again.
    frames[frame[i] : frame[i] + index.num_frames[i]] = decode_frames(record)
    mel[column[i] : column[i] + index.num_mel[i]] = record["mel"]
  return {"frames": frames, "mel": mel}


def _begins(counts: np.ndarray) -> np.ndarray:
  """Returns at which row each record begins."""
  return np.cumsum(counts) - counts


def index_rows(
  rows: Rows, split: Split, spec: WindowSpec, stage: str
) -> dict[str, np.ndarray]:
  """Returns where the windows of some rows begin in the arrays of `load`.

  Returns:
    frames, mel, other [B] and frame_mels [B, T], int32, and in_sync [B]
    float32: the keys of a batch of that stage.
  """
  frame = _begins(split.index.num_frames)[rows.record]
  column = _begins(split.index.num_mel)[rows.record]
  found = {
    "frames": frame + rows.target,
    "mel": column + windows.mel_start(rows.audio),
  }
  if stage == "expert":
    found["in_sync"] = rows.in_sync
  else:
    found["other"] = frame + rows.other
  if stage == "generator":
    frames = np.arange(spec.frames) + spec.frame_mel_offset
    found["frame_mels"] = column[:, None] + windows.mel_start(
      rows.audio[:, None] + frames
    )
  return {
    k: v.astype(np.float32 if k == "in_sync" else np.int32)
    for k, v in found.items()
  }


def train_batches(
  split: Split,
  spec: WindowSpec,
  stage: str,
  config,
  local_rows: np.ndarray | None = None,
) -> Callable:
  """Returns first_step -> iterator over `index_rows` of training batches.

  The arguments are those of `input_pipeline.train_batches`.
  """
  sampler = WindowSampler(split.index, spec, stage)

  def batches(first_step: int):
    for step in range(first_step, config.train.num_steps):
      rows = sampler.rows(config.seed, step, config.data.batch_size)
      if local_rows is not None:
        rows = rows[local_rows]
      yield index_rows(rows, split, spec, stage)

  return batches


def gather(
  indices: dict[str, jax.Array], data: dict[str, jax.Array], spec: WindowSpec
) -> dict[str, jax.Array]:
  """Returns the batch that `index_rows` describe, of the arrays of `load`."""
  pictures = jnp.arange(spec.frames)
  columns = jnp.arange(spec.mel_columns)
  batch = dict(indices)
  for key, values, lengths in (
    ("frames", data["frames"], pictures),
    ("other", data["frames"], pictures),
    ("mel", data["mel"], columns),
    ("frame_mels", data["mel"], columns),
  ):
    if key in indices:
      batch[key] = values[jnp.add.outer(indices[key], lengths)]
  return batch


def gathering(step: Callable, spec: WindowSpec) -> Callable:
  """Returns a train step that takes `index_rows`.

  Args:
    step: (state, batch, frozen) -> (state, metrics); the returned one finds
      the arrays of `load` in frozen["data"].
    spec: of the windows.
  """

  def gathering_step(state, batch, frozen):
    return step(state, gather(batch, frozen["data"], spec), frozen)

  return gathering_step
