"""Figures as lines and in TensorBoard, pictures of samples."""

import json
import os

import cv2
import numpy as np
import pytest

from w2l_jax import metrics


def lines(workdir) -> list[dict]:
  text = (workdir / "metrics.jsonl").read_text()
  assert text == "" or text.endswith("\n")
  return [json.loads(line) for line in text.splitlines()]


def events(workdir) -> bytes:
  """What TensorBoard would read, all files together."""
  return b"".join(
    p.read_bytes() for p in sorted((workdir / "tensorboard").iterdir())
  )


def write(workdir, first_step, steps) -> None:
  writer = metrics.MetricWriter(str(workdir), first_step)
  for step in steps:
    writer.write(step, {"train/loss": step / 4})
  writer.close()


def test_lines_and_tensorboard(tmp_path):
  writer = metrics.MetricWriter(str(tmp_path), 0)
  writer.write(1, {"train/loss_l1": np.float32(0.25), "time/rate": 3})
  # Each line is there at once: a kill must not lose it.
  assert lines(tmp_path) == [
    {"step": 1, "train/loss_l1": 0.25, "time/rate": 3.0}
  ]
  writer.write(20, {"eval/loss_sync": np.array(1.5)})
  writer.close()
  expected = [
    {"step": 1, "train/loss_l1": 0.25, "time/rate": 3.0},
    {"step": 20, "eval/loss_sync": 1.5},
  ]
  assert lines(tmp_path) == expected
  assert metrics.read_metrics(str(tmp_path)) == expected
  for name in (b"train/loss_l1", b"time/rate", b"eval/loss_sync"):
    assert name in events(tmp_path)
  assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl", "tensorboard"]


@pytest.mark.parametrize("first_step", [0, 1, 3, 5, 99])
def test_lines_past_the_first_step_are_cut(tmp_path, first_step):
  write(tmp_path, 0, range(1, 6))
  metrics.MetricWriter(str(tmp_path), first_step).close()
  assert [m["step"] for m in lines(tmp_path)] == [
    step for step in range(1, 6) if step <= first_step
  ]


def test_a_resumed_run_goes_on(tmp_path):
  write(tmp_path, 0, range(1, 8))
  write(tmp_path, 4, range(5, 10))
  assert lines(tmp_path) == [
    {"step": step, "train/loss": step / 4} for step in range(1, 10)
  ]


@pytest.mark.parametrize("kept", [1, 9, 20, 29])
def test_a_last_line_that_was_cut_short(tmp_path, kept):
  write(tmp_path, 0, range(1, 4))
  whole = (tmp_path / "metrics.jsonl").read_text()
  half = '{"step": 4, "train/loss": 1.0}\n'[:kept]
  (tmp_path / "metrics.jsonl").write_text(whole + half)
  assert [m["step"] for m in metrics.read_metrics(str(tmp_path))] == [1, 2, 3]
  write(tmp_path, 4, [4, 5])
  assert [m["step"] for m in lines(tmp_path)] == [1, 2, 3, 4, 5]


def test_values_that_are_not_finite_come_back(tmp_path):
  writer = metrics.MetricWriter(str(tmp_path), 0)
  writer.write(1, {"a": float("nan"), "b": float("inf")})
  writer.close()
  (line,) = metrics.read_metrics(str(tmp_path))
  assert np.isnan(line["a"])
  assert line["b"] == np.inf


def test_no_metrics_yet(tmp_path):
  assert metrics.read_metrics(str(tmp_path)) == []


def test_pictures_in_tensorboard(tmp_path):
  picture = np.zeros((20, 30, 3), np.uint8)
  picture[:, :10] = (255, 0, 0)
  picture[:, 10:20] = (0, 200, 50)
  writer = metrics.MetricWriter(str(tmp_path), 0)
  writer.write_image(7, "samples/train", picture)
  writer.close()
  data = events(tmp_path)
  assert b"samples/train" in data
  start = data.find(b"\x89PNG")
  assert start > 0
  shown = cv2.imdecode(np.frombuffer(data[start:], np.uint8), cv2.IMREAD_COLOR)
  np.testing.assert_array_equal(shown, picture)


# Pictures.


def test_to_uint8_rounds():
  values = np.arange(256) / 255
  np.testing.assert_array_equal(metrics.to_uint8(values), np.arange(256))
  np.testing.assert_array_equal(
    metrics.to_uint8(values.astype(np.float32)), np.arange(256)
  )
  got = metrics.to_uint8(
    np.array([0.49, 0.51, 1.49, 1.51, 254.49, 254.51]) / 255
  )
  assert got.tolist() == [0, 1, 1, 2, 254, 255]
  assert got.dtype == np.uint8


def test_to_uint8_clips_and_passes_bytes():
  got = metrics.to_uint8(np.array([-0.1, -9, 1.001, 77]))
  assert got.tolist() == [0, 0, 255, 255]
  whole = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(metrics.to_uint8(whole), whole)


def test_sample_grid_has_a_row_for_each_sample():
  size, samples = 6, 4
  # Column c, sample n, pixel (y, x), channel k: all different.
  columns = [
    np.fromfunction(
      lambda n, y, x, k, c=c: 80 * c + 20 * n + 3 * y + x / 2 + k,
      (samples, size, size, 3),
    ).astype(np.uint8)
    for c in range(3)
  ]
  # Floats and bytes may be mixed.
  grid = metrics.sample_grid([columns[0], columns[1] / 255, columns[2]])
  assert grid.shape == (samples * size, 3 * size, 3)
  assert grid.dtype == np.uint8
  for n in range(samples):
    for c in range(3):
      cell = grid[n * size : (n + 1) * size, c * size : (c + 1) * size]
      np.testing.assert_array_equal(cell, columns[c][n])


def test_save_image(tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
  path = tmp_path / "a.png"
  path.write_bytes(b"old")
  metrics.save_image(str(path), picture)
  np.testing.assert_array_equal(cv2.imread(str(path)), picture)
  assert os.listdir(tmp_path) == ["a.png"]


def test_save_image_by_a_bare_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  metrics.save_image("a.png", np.zeros((4, 4, 3), np.uint8))
  assert os.listdir(tmp_path) == ["a.png"]


def test_save_image_where_there_is_no_folder(tmp_path):
  path = str(tmp_path / "missing" / "a.png")
  with pytest.raises(OSError, match="cannot be written") as caught:
    metrics.save_image(path, np.zeros((4, 4, 3), np.uint8))
  assert path in str(caught.value)
