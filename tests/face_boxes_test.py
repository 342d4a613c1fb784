"""Boxes of every frame, with scripted detectors."""

from fractions import Fraction

import numpy as np
import pytest

from w2l_jax import detectors, face_boxes, faces, pipeline, sources, video
from w2l_jax.lip_sync_options import Options

BOX = np.array([20.0, 30, 60, 80])
FAR = np.array([100.0, 10, 150, 70])
PREPARATION = {
  "detector": "scripted",
  "tracking": {
    "every_frames": 1, "min_score": 0.9, "min_iou": 0.3, "max_missed": 2,
    "smooth_frames": 5,
  },
}  # fmt: skip


def find(monkeypatch, count, script, needed=None, eyes=None, **choices):
  """Boxes of scripted detections; `eyes` gives their angle in degrees."""

  def detector(frame):
    number = int(frame[0, 0, 0])
    rows = [(*box, 0.99) for box in script(number)]
    if eyes:
      angle = np.radians(eyes(number))
      right = 10 * np.cos(angle), 10 * np.sin(angle)
      rows = [(*row, 0, 0, *right) for row in rows]
    return np.array(rows, np.float32).reshape(-1, 9 if eyes else 5)

  def make(name, with_eyes):
    assert with_eyes == (eyes is not None)
    return detector

  monkeypatch.setattr(detectors, "make", make)

  def frames(first):
    # The number alone differs: no cuts.
    for i in range(first, count):
      frame = np.full((100, 200, 3), 90, np.uint8)
      frame[0, 0] = i
      yield frame

  pictures = sources.Pictures(
    "clip", Fraction(10), frames, False, video.Colour()
  )
  clock = pipeline.Clock()
  return face_boxes.find(
    pictures, needed, Options(**choices), PREPARATION, clock
  )


def drawn(found, slot=0):
  return np.flatnonzero(np.isfinite(found.boxes[:, slot, 0])).tolist()


def test_boxes_are_smoothed_and_padded(monkeypatch):
  rng = np.random.default_rng(0)
  noise = rng.normal(0, 1, (30, 4))
  found = find(monkeypatch, 30, lambda i: [BOX + noise[i]], pads=(1, 2, 3, 4))
  raw = (BOX + noise).astype(np.float32)
  expected = faces.smooth_boxes(raw, 5) + [-3, -1, 4, 2]
  np.testing.assert_allclose(found.boxes[:, 0], expected, atol=1e-4)
  assert (found.tracks == 0).all() and found.scenes == 1
  found = find(monkeypatch, 30, lambda i: [BOX + noise[i]], smooth=False)
  np.testing.assert_array_equal(found.boxes[:, 0], raw)


def test_angles_are_averaged_and_held_as_boxes_are(monkeypatch):
  rng = np.random.default_rng(0)
  degrees = 20 + rng.normal(0, 2, 30)
  found = find(
    monkeypatch,
    30,
    lambda i: [BOX] if i < 20 else [],
    eyes=lambda i: degrees[i],
    align_eyes=True,
    no_face="hold",
  )
  raw = np.radians(degrees[:20]).astype(np.float32)
  expected = faces.smooth_boxes(np.repeat(raw[:, None], 4, axis=1), 5)[:, 0]
  np.testing.assert_allclose(found.angles[:20, 0], expected, atol=1e-6)
  np.testing.assert_array_equal(found.angles[20:25, 0], [expected[-1]] * 5)
  assert drawn(found) == [*range(25)]
  assert np.isnan(found.angles[25:]).all()


def test_boxes_are_upright_unless_asked(monkeypatch):
  assert not find(monkeypatch, 9, lambda i: [BOX]).angles.any()
  for choices in ({"compat": True}, {"box": (30, 80, 20, 60)}):
    assert not find(monkeypatch, 9, lambda i: [BOX], **choices).angles.any()


def test_detectors_that_find_no_eyes(monkeypatch):
  with pytest.raises(sources.InferenceError, match="haar finds no eyes"):
    face_boxes._detector("haar", True)


def test_no_more_frames_than_are_needed(monkeypatch):
  assert find(monkeypatch, 30, lambda i: [BOX], needed=7).boxes.shape[0] == 7


@pytest.mark.parametrize(("seconds", "last"), [(0, 9), (0.4, 13), (9, 19)])
def test_hold(monkeypatch, seconds, last):
  """For so long, and no longer than until the face is back."""

  def script(i):
    return [] if 10 <= i < 20 else [BOX]

  found = find(monkeypatch, 30, script, no_face="hold", hold_seconds=seconds)
  assert drawn(found) == [*range(last + 1), *range(20, 30)]
  assert drawn(find(monkeypatch, 30, script)) == [*range(10), *range(20, 30)]
  with pytest.raises(
    sources.InferenceError, match="in 10 of 30 frames, the first at 1.00 s"
  ):
    find(monkeypatch, 30, script, no_face="error")


def test_all_faces_have_slots_of_their_own(monkeypatch):
  """A slot is free again when its face has gone."""

  def script(i):
    return [FAR] * (i >= 5) + [BOX] * (i < 12 or i >= 20)

  found = find(monkeypatch, 30, script, faces="all")
  assert found.boxes.shape == (30, 2, 4)
  assert drawn(found, 0) == [*range(12), *range(20, 30)]
  assert drawn(found, 1) == [*range(5, 30)]
  assert found.tracks[0].tolist() == [0, -1]
  assert found.tracks[29].tolist() == [2, 1]


def test_nobody(monkeypatch):
  with pytest.raises(sources.InferenceError, match="no face found in 9 frames"):
    find(monkeypatch, 9, lambda i: [])
  with pytest.raises(
    sources.InferenceError, match="up to 1 in a scene, but none that faces=2"
  ):
    find(monkeypatch, 9, lambda i: [BOX], faces="2")


def test_a_box_for_all(monkeypatch):
  """Nothing is detected."""
  found = find(monkeypatch, 9, lambda i: 1 / 0, box=(30, 80, 20, 60))
  assert (found.boxes == BOX).all() and found.boxes.shape == (9, 1, 4)
  with pytest.raises(sources.InferenceError, match="is not within clip's"):
    find(monkeypatch, 9, lambda i: [], box=(30, 101, 20, 60))


def test_compat(monkeypatch):
  """The first detection of every frame, in whole numbers."""
  found = find(
    monkeypatch,
    9,
    lambda i: [BOX + 0.9, FAR],
    compat=True,
    pads=(0, 10, 0, 0),
  )
  np.testing.assert_array_equal(found.boxes[:, 0], [[20, 30, 60, 90]] * 9)
