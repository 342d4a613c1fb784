"""Which mel columns belong to which frame.  NumPy only, no pictures, no sound.

At 25 frames and 80 mel columns a second, five frames and sixteen columns both
last 0.2 s.
"""

import numpy as np

FPS = 25
# Of the mel recipe: 16 000 samples a second, hop 200 (see audio.py).
MEL_COLUMNS_PER_SECOND = 80


def mel_start(frame: int | np.ndarray, fps: float = FPS):
  """Returns the mel column at which `frame` begins: int(80 * frame / fps).

  Args:
    frame: frame numbers; negative ones round towards minus infinity.
    fps: frames a second.
  """
  start = np.floor(
    MEL_COLUMNS_PER_SECOND * np.asarray(frame, np.float64) / fps
  ).astype(np.int64)
  return int(start) if start.ndim == 0 else start


def mel_window(
  mel: np.ndarray, frame: int, columns: int, fps: float = FPS
) -> np.ndarray:
  """Returns the `columns` mel columns that begin with `frame`.

  Args:
    mel: [T_mel, F].
    frame: the window's first frame.
    columns: length of the window.
    fps: frames a second.

  Raises:
    ValueError: if the window does not lie within `mel`.
  """
  start = mel_start(frame, fps)
  if start < 0 or start + columns > len(mel):
    raise ValueError(
      f"mel columns {start} to {start + columns} of frame {frame} are outside "
      f"the {len(mel)} that there are"
    )
  return mel[start : start + columns]


def frame_mel_windows(
  mel: np.ndarray, frame: int, num_frames: int, columns: int, offset: int
) -> np.ndarray:
  """Returns one mel window for each of `num_frames` frames from `frame` on.

  Args:
    mel: [T_mel, F].
    frame: the first frame.
    num_frames: T.
    columns: M.
    offset: the window of frame f begins with frame f + offset.  The original
      trains with -1 and infers with 0.

  Returns:
    [T, M, F].
  """
  return np.stack(
    [mel_window(mel, frame + k + offset, columns) for k in range(num_frames)]
  )


def num_target_starts(
  num_frames: np.ndarray,
  num_mel: np.ndarray,
  *,
  frames: int,
  columns: int,
  last_offset: int = 0,
) -> np.ndarray:
  """Counts the frames at which a whole window can start: 0, ..., count - 1.

  A window is whole if its `frames` pictures exist and so do the mel columns
  that begin with its frame `last_offset` (0 for the window's own mel; more
  where later frames have mel windows of their own).

  Args:
    num_frames: pictures in each clip, [n].
    num_mel: mel columns in each clip, [n].
    frames: T.
    columns: M.
    last_offset: which of the window's frames begins the last mel window.
  """
  by_frames = np.asarray(num_frames) - frames + 1
  # The last f with floor(16 f / 5) + columns <= num_mel.
  last_start = np.asarray(num_mel) - columns
  by_mel = (FPS * (last_start + 1) - 1) // MEL_COLUMNS_PER_SECOND + 1
  return np.maximum(np.minimum(by_frames, by_mel - last_offset), 0)


def window_means(
  column_means: np.ndarray, num_starts: int, columns: int
) -> np.ndarray:
  """Mean mel of the windows that start at frames 0, ..., num_starts - 1.

  Args:
    column_means: [T_mel], mean over the bands of every column.
    num_starts: how many windows.
    columns: M.

  Returns:
    [num_starts] float64; speech is where this exceeds a threshold.
  """
  sums = np.concatenate([[0.0], np.cumsum(column_means, dtype=np.float64)])
  starts = mel_start(np.arange(num_starts))
  return (sums[starts + columns] - sums[starts]) / columns
