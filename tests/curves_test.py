"""Figures of several runs in one picture."""

import cv2
import pytest

from launch import curves

pytest.importorskip("matplotlib")
RUNS = {
  "float32": [{"step": 1, "train/loss": 0.7}, {"step": 2, "train/loss": 0.6}],
  "bfloat16": [{"step": 2, "train/loss": 0.5, "eval/loss": 0.4}],
}


def test_points_leave_out_other_lines():
  lines = [*RUNS["float32"], {"step": 3, "eval/loss": 0.1}]
  assert curves.points(lines, "train/loss") == ([1, 2], [0.7, 0.6])
  assert curves.points(lines, "eval/loss") == ([3], [0.1])


def test_a_plot_for_each_figure(tmp_path):
  path = tmp_path / "compared.png"
  curves.draw(RUNS, ["train/loss"], str(path))
  narrow = cv2.imread(str(path)).shape[1]
  curves.draw(RUNS, ["train/loss", "eval/loss"], str(path))
  assert cv2.imread(str(path)).shape[1] > 1.5 * narrow
  assert [p.name for p in tmp_path.iterdir()] == ["compared.png"]


def test_an_unknown_figure_is_named(tmp_path):
  with pytest.raises(ValueError, match="'loss'; there are eval/loss, train/"):
    curves.draw(RUNS, ["loss"], str(tmp_path / "x.png"))
  assert not list(tmp_path.iterdir())
