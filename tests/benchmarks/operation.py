"""What a side of the benchmark makes of an operation's name, and its inputs."""

import dataclasses
from collections.abc import Callable

import numpy as np

from tests.parity import torch_training

# Frames in a window.
WINDOW = torch_training.WINDOW


@dataclasses.dataclass(frozen=True)
class Options:
  """What both sides are to do.

  Attributes:
    width: of the networks.
    batch_size: frames of the generator's forward pass, windows of stage 1.
    generator_windows: windows of stage 2.
    precision: "float32" or "bfloat16".
    mode: of PyTorch: "eager", "channels_last", "compile" or both.
    data: a prepared data set.
    videos: a folder of talking videos.
    folder: for files of an operation's own.
  """

  width: float = 1.0
  batch_size: int = 32
  generator_windows: int = 4
  precision: str = "float32"
  mode: str = "eager"
  data: str | None = None
  videos: str | None = None
  folder: str | None = None


@dataclasses.dataclass
class Operation:
  """Something to be timed.

  Attributes:
    run: does it once and waits for the end.
    items: how many it handles.
    unit: of what.
    outputs: of the first run, to be held against the other side's.
    facts: more figures to report.
  """

  run: Callable[[], object]
  items: int
  unit: str
  outputs: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  facts: dict[str, float] = dataclasses.field(default_factory=dict)


def generator_inputs(options: Options) -> tuple[np.ndarray, np.ndarray]:
  """Returns mels [N, 80, 16, 1] and faces [N, 96, 96, 6], both float32."""
  rng = np.random.default_rng(0)
  n, size = options.batch_size, torch_training.SIZE
  mels = rng.uniform(-4, 4, (n, 80, torch_training.MEL_COLUMNS, 1))
  faces = rng.uniform(0, 1, (n, size, size, 6))
  return mels.astype(np.float32), faces.astype(np.float32)


def windows(count: int) -> dict[str, np.ndarray]:
  """Returns a batch whose pictures are uint8, as the input pipeline's."""
  data = torch_training.batch(7, count)
  return {
    k: np.rint(255 * v).astype(np.uint8) if k in ("frames", "other") else v
    for k, v in data.items()
  }
