"""Frames and mel columns, against trying every one of them."""

import numpy as np
import pytest

from w2l_jax import windows


def column_mel(columns: int, bands: int = 3) -> np.ndarray:
  """A mel whose every value is the number of its column."""
  return np.repeat(np.arange(columns, dtype=np.float32)[:, None], bands, axis=1)


def first_column(frame: int) -> int:
  """The first mel column of a frame at 25 a second: 3.2 of them each."""
  return (16 * frame) // 5


@pytest.mark.parametrize("fps", [25, 30, 50])
def test_mel_start_exactly(fps):
  for frame in range(5000):
    start = windows.mel_start(frame, fps)
    assert start == (80 * frame) // fps == int(80 * frame / fps)
    assert isinstance(start, int)


@pytest.mark.parametrize("fps", [23.976, 29.97, 59.94])
def test_mel_start_at_broken_rates(fps):
  for frame in range(5000):
    assert windows.mel_start(frame, fps) == int(80 * frame / fps)


def test_mel_start_of_arrays_and_of_negative_frames():
  frames = np.arange(-20, 200)
  starts = windows.mel_start(frames)
  assert starts.dtype == np.int64
  # Python's integer division rounds towards minus infinity.
  assert starts.tolist() == [(16 * int(f)) // 5 for f in frames]
  assert windows.mel_start(-1) == -4


def test_mel_start_at_25_is_the_default():
  assert [windows.mel_start(f) for f in range(8)] == [
    0, 3, 6, 9, 12, 16, 19, 22
  ]  # fmt: skip


@pytest.mark.parametrize(
  ("frames", "columns", "last_offset"),
  [(5, 16, 0), (5, 16, 3), (5, 16, 4), (1, 16, 0), (9, 7, 2)],
)
def test_num_target_starts_by_trying(frames, columns, last_offset):
  num_frames, num_mel, expected = [], [], []
  for n_frames in range(61):
    for n_mel in range(201):
      starts = [
        f
        for f in range(n_frames - frames + 1)
        if first_column(f + last_offset) + columns <= n_mel
      ]
      assert starts == list(range(len(starts)))
      num_frames.append(n_frames)
      num_mel.append(n_mel)
      expected.append(len(starts))
  got = windows.num_target_starts(
    np.array(num_frames),
    np.array(num_mel),
    frames=frames,
    columns=columns,
    last_offset=last_offset,
  )
  np.testing.assert_array_equal(got, expected)


def test_five_frames_and_sixteen_columns_last_the_same():
  # 25 n frames and 80 n + 1 columns, as a clip of n seconds has them.
  got = windows.num_target_starts(
    np.array([25, 50]), np.array([81, 161]), frames=5, columns=16
  )
  assert got.tolist() == [21, 46]


def test_mel_window_of_every_frame():
  mel = column_mel(100)
  for frame in range(-3, 40):
    start = first_column(frame)
    if 0 <= start <= 100 - 16:
      window = windows.mel_window(mel, frame, 16)
      assert window.shape == (16, 3)
      assert window[:, 0].tolist() == list(range(start, start + 16))
    else:
      with pytest.raises(ValueError, match=f"of frame {frame} are outside"):
        windows.mel_window(mel, frame, 16)


def test_mel_window_at_another_rate():
  window = windows.mel_window(column_mel(100), 10, 16, fps=50)
  assert window[:, 0].tolist() == list(range(16, 32))


def test_mel_window_of_a_short_mel():
  with pytest.raises(ValueError, match="the 15 that there are"):
    windows.mel_window(column_mel(15), 0, 16)
  assert len(windows.mel_window(column_mel(16), 0, 16)) == 16


@pytest.mark.parametrize("offset", [-2, -1, 0, 1])
@pytest.mark.parametrize("frame", [2, 3, 7])
def test_frame_mel_windows(offset, frame):
  got = windows.frame_mel_windows(column_mel(80), frame, 5, 16, offset)
  assert got.shape == (5, 16, 3)
  for k in range(5):
    start = first_column(frame + k + offset)
    assert got[k, :, 2].tolist() == list(range(start, start + 16))


def test_frame_mel_windows_need_their_columns():
  with pytest.raises(ValueError, match="frame -1 "):
    windows.frame_mel_windows(column_mel(80), 0, 5, 16, -1)
  # Frame 8's window ends with column 25 + 16.
  windows.frame_mel_windows(column_mel(41), 4, 5, 16, 0)
  with pytest.raises(ValueError, match="frame 8 "):
    windows.frame_mel_windows(column_mel(40), 4, 5, 16, 0)


@pytest.mark.parametrize("num_starts", [0, 1, 7, 27])
def test_window_means(num_starts):
  rng = np.random.default_rng(0)
  mel = rng.uniform(-4, 4, (100, 80)).astype(np.float32)
  got = windows.window_means(mel.mean(axis=1), num_starts, 16)
  expected = [
    mel[first_column(f) : first_column(f) + 16].astype(np.float64).mean()
    for f in range(num_starts)
  ]
  assert got.shape == (num_starts,)
  np.testing.assert_allclose(got, expected, atol=1e-6)
