"""Writing figures (JSON lines and TensorBoard) and pictures of samples."""

import json
import os

import cv2
import numpy as np
import tensorboardX

METRICS_FILE = "metrics.jsonl"


class MetricWriter:
  """Appends to workdir/metrics.jsonl, one JSON object a line, and TensorBoard.

  Names are slashed: train/loss_l1, eval/loss_sync, time/steps_per_second.
  """

  def __init__(self, workdir: str, first_step: int):
    """Opens the files; lines of steps past `first_step` are cut.

    Such lines were written by a run that was killed after its last
    checkpoint; the resumed run writes them anew.
    """
    self._path = os.path.join(workdir, METRICS_FILE)
    kept = [m for m in read_metrics(workdir) if m["step"] <= first_step]
    partial = f"{self._path}.partial"
    with open(partial, "w") as f:
      f.writelines(json.dumps(m) + "\n" for m in kept)
    os.replace(partial, self._path)
    self._file = open(self._path, "a")  # noqa: SIM115 (closed by close)
    self._board = tensorboardX.SummaryWriter(
      os.path.join(workdir, "tensorboard"), purge_step=first_step + 1
    )

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Writes scalars of one step."""
    line = {"step": step, **{k: float(v) for k, v in metrics.items()}}
    self._file.write(json.dumps(line) + "\n")
    self._file.flush()
    for name, value in line.items():
      if name != "step":
        self._board.add_scalar(name, value, step)

  def write_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes a BGR uint8 picture to TensorBoard."""
    self._board.add_image(name, image[..., ::-1], step, dataformats="HWC")

  def close(self) -> None:
    """Flushes and closes both."""
    self._file.close()
    self._board.close()


class NoWriter:
  """Writes nothing: for all processes but the first."""

  def write(self, step: int, metrics: dict[str, float]) -> None:
    """Does nothing."""

  def write_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""


def read_metrics(workdir: str) -> list[dict]:
  """Reads metrics.jsonl; a line that a kill cut short is left out."""
  path = os.path.join(workdir, METRICS_FILE)
  if not os.path.exists(path):
    return []
  lines = []
  with open(path) as f:
    for line in f:
      try:
        lines.append(json.loads(line))
      except json.JSONDecodeError:
        continue
  return lines


def save_image(path: str, image: np.ndarray) -> None:
  """Writes a BGR uint8 picture, complete or not at all."""
  folder, name = os.path.split(path)
  partial = os.path.join(folder, f".partial.{name}")
  if not cv2.imwrite(partial, image):
    raise OSError(f"{path}: cannot be written")
  os.replace(partial, path)


def sample_grid(columns: list[np.ndarray]) -> np.ndarray:
  """Lays pictures out: one row a sample, one column a kind.

  Args:
    columns: arrays [N, S, S, 3], uint8 or floats in [0, 1].

  Returns:
    [N * S, len(columns) * S, 3] uint8.
  """
  rows = np.concatenate([to_uint8(c) for c in columns], axis=2)
  return rows.reshape(-1, *rows.shape[2:])


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Rounds pictures in [0, 1] to uint8; uint8 passes unchanged."""
  images = np.asarray(images)
  if images.dtype == np.uint8:
    return images
  return np.clip(np.rint(images * 255.0), 0, 255).astype(np.uint8)
