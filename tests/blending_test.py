"""Blending: nothing outside, no borders, colours matched, steady movement."""

import cv2
import numpy as np
import pytest

from w2l_jax import blending, detectors, faces, video


@pytest.fixture(scope="module")
def picture():
  rng = np.random.default_rng(0)
  small = rng.integers(30, 220, (9, 12, 3), dtype=np.uint8)
  return cv2.resize(small, (240, 180), interpolation=cv2.INTER_CUBIC)


BOXES = [
  (50, 40, 150, 160), (50.3, 40.7, 149.6, 160.2), (-20.5, -9.25, 80, 95.5),
  (180, 100, 300, 220), (100, 90, 120.5, 112.75),
]  # fmt: skip


@pytest.mark.parametrize("region", blending.REGIONS)
@pytest.mark.parametrize("box", BOXES)
def test_outside_the_box_nothing_changes(picture, box, region):
  before = picture.copy()
  face = np.full((48, 48, 3), (250, 10, 130), np.uint8)
  out = blending.blend(picture, face, np.array(box), region)
  np.testing.assert_array_equal(picture, before)
  assert out.dtype == np.uint8 and out.shape == picture.shape
  changed = np.argwhere((out != picture).any(axis=2))
  x1, y1, x2, y2 = faces.inside(np.array(box), *picture.shape[:2])
  top = y1 if region == "whole" else y1 + 0.45 * (y2 - y1)
  assert (changed >= [int(top), int(x1)]).all()
  assert (changed < [np.ceil(y2), np.ceil(x2)]).all()
  assert len(changed) > 0.2 * (x2 - x1) * (y2 - y1)


def test_the_mouth_is_the_generated_one(picture):
  """In the middle of the lower half, without matching, nothing else is seen."""
  face = np.full((48, 48, 3), (10, 130, 250), np.uint8)
  for region in blending.REGIONS:
    out = blending.blend(
      picture, face, np.array([50.0, 40, 150, 160]), region, match=False
    )
    # Rows from 0.62 to 0.8 of the box, columns from 0.3 to 0.7.
    assert (out[115:136, 80:121] == face[0, 0]).all()


def in_box(box, angle, height, width):
  """[H, W] coordinates of pixels' centres in a turned box, from 0 to 1."""
  x1, y1, x2, y2 = box
  y, x = np.mgrid[:height, :width] + 0.5
  x, y = x - (x1 + x2) / 2, y - (y1 + y2) / 2
  cos, sin = np.cos(angle), np.sin(angle)
  across, down = cos * x + sin * y, cos * y - sin * x
  return across / (x2 - x1) + 0.5, down / (y2 - y1) + 0.5


@pytest.mark.parametrize("degrees", [-35, 7, 20, 170])
@pytest.mark.parametrize("region", blending.REGIONS)
def test_turned_boxes(picture, degrees, region):
  """Nothing outside changes; the mouth's place is drawn; none is cut off."""
  angle, box = np.radians(degrees), np.array([70.3, 40.7, 149.6, 140.2])
  face = np.full((48, 48, 3), (250, 10, 130), np.uint8)
  out = blending.blend(picture, face, box, region, match=False, angle=angle)
  x, y = in_box(box, angle, *picture.shape[:2])
  outside = (x < 0) | (x > 1) | (y > 1)
  outside |= y < (0.45 if region == "lower" else 0)
  np.testing.assert_array_equal(out[outside], picture[outside])
  mouth = (np.abs(x - 0.5) < 0.25) & (y > 0.62) & (y < 0.8)
  assert mouth.sum() > 500 and (out[mouth] == face[0, 0]).all()


@pytest.mark.parametrize("degrees", [-35, 7, 20, 170])
def test_what_was_cut_out_turned_comes_back(picture, degrees):
  angle = np.radians(degrees)
  for box in ((70.3, 40.7, 149.6, 140.2), (-20.5, 29.25, 80, 125.5)):
    face = faces.crop_exact(picture, np.array(box), 128, angle)
    out = blending.blend(picture, face, np.array(box), "whole", angle=angle)
    assert np.abs(out.astype(int) - picture).mean() < 0.5


def test_no_turn_is_no_turn(picture):
  """A turn by next to nothing draws the same, but for rounding."""
  face = faces.crop_exact(255 - picture, np.array([60.0, 40, 160, 150]), 96)
  for box in BOXES:
    upright, turned = (
      blending.blend(picture, face, np.array(box), angle=angle).astype(int)
      for angle in (0.0, 1e-9)
    )
    assert np.abs(upright - turned).max() <= 1


def test_fine_lines_across_stay(picture):
  """A face as large as its box keeps every second row of the lower half."""
  face = np.full((96, 96, 3), 60, np.uint8)
  face[::2] = 180
  grey = np.full((140, 140, 3), 120, np.uint8)
  box = np.array([20.0, 20, 116, 116])
  out = blending.blend(grey, face, box, match=False)
  np.testing.assert_array_equal(out[82:100, 40:90], face[62:80, 20:70])


@pytest.mark.parametrize("region", blending.REGIONS)
def test_mask(region):
  """0 on the border, whole inside, never falls on the way in."""
  n = 200
  x = (np.arange(n) + 0.5) / n
  mask = blending.mask(x[None], x[:, None], region)
  assert mask.shape == (n, n) and mask.dtype == np.float32
  assert mask.min() == 0 and mask.max() == 1
  for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
    assert side.max() < 0.01
  np.testing.assert_allclose(mask, mask[:, ::-1], atol=1e-6)
  assert (np.diff(mask[:, : n // 2], axis=1) >= 0).all()
  # No step anywhere: at most a fiftieth from pixel to pixel.
  for axis in (0, 1):
    assert np.abs(np.diff(mask, axis=axis)).max() < 0.08
  if region == "lower":
    assert mask[: int(0.46 * n)].max() == 0
    assert mask[int(0.61 * n), n // 2] == 1
  else:
    np.testing.assert_allclose(mask, mask[::-1], atol=1e-6)


def test_matched_against_least_squares():
  """The plane is the weighted least squares' one, found by NumPy."""
  rng = np.random.default_rng(0)
  h, w = 40, 30
  weights = blending.mask(
    (np.arange(w)[None] + 0.5) / w, (np.arange(h)[:, None] + 0.5) / h
  )
  patch = rng.uniform(0, 255, (h, w, 3)).astype(np.float32)
  around = patch + rng.uniform(-30, 30, (h, w, 3)).astype(np.float32)
  found = blending.matched(patch, around, weights) - patch
  y, x = np.meshgrid(
    np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij"
  )
  design = np.stack([np.ones_like(x), x, y], axis=-1).reshape(-1, 3)
  root = np.sqrt(weights * (1 - weights)).reshape(-1, 1)
  for c in range(3):
    target = (around - patch)[..., c].reshape(-1, 1)
    plane, *_ = np.linalg.lstsq(root * design, root * target, rcond=None)
    expected = (design @ plane).reshape(h, w)
    assert np.abs(found[..., c] - expected).max() < 0.2


@pytest.mark.parametrize("tint", [(12, -20, 30), (-25, 25, 0)])
def test_another_light_is_made_good(picture, tint):
  """The same face in another light leaves nearly nothing to be seen."""
  box = np.array([50.4, 40.2, 150.1, 159.7])
  face = faces.crop_exact(picture, box, 96).astype(int) + tint
  face = np.clip(face, 0, 255).astype(np.uint8)
  error = {
    match: np.abs(
      blending.blend(picture, face, box, match=match).astype(int) - picture
    ).mean()
    for match in (True, False)
  }
  assert error[True] < 0.15 * error[False]


def test_what_was_cut_out_comes_back(picture):
  """At any part of a pixel."""
  for box in BOXES:
    box = np.array(box)
    face = faces.crop_exact(picture, box, 128)
    out = blending.blend(picture, face, box, "whole")
    assert np.abs(out.astype(int) - picture).mean() < 0.5


def test_slow_movement_has_no_steps():
  """A pasted edge follows its box by tenths of a pixel."""
  grey = np.full((120, 120, 3), 128, np.uint8)
  face = np.full((48, 48, 3), 100, np.uint8)
  face[:, 24:] = 180
  places = []
  for k in range(21):
    box = np.array([30 + k / 10, 30, 90 + k / 10, 90])
    row = blending.blend(grey, face, box, match=False)[75, :, 0].astype(float)
    # Where the dark half turns into the bright one: by its sum.
    places.append(-row[45:78].sum() / 80)
  steps = np.diff(places)
  assert np.abs(steps - 0.1).max() < 0.05


def test_opacity(picture):
  face = np.full((48, 48, 3), (10, 130, 250), np.uint8)
  box = np.array([50.0, 40, 150, 160])
  whole, half, none = (
    blending.blend(picture, face, box, opacity=o).astype(int)
    for o in (1.0, 0.5, 0.0)
  )
  np.testing.assert_array_equal(none, picture)
  assert np.abs(half - (whole + none) / 2).max() <= 1


def test_small_faces_do_not_alias():
  """A pattern as fine as the network's pixels becomes its mean."""
  face = np.zeros((96, 96, 3), np.uint8)
  face[:, ::2] = 200
  grey = np.full((60, 60, 3), 100, np.uint8)
  out = blending.blend(grey, face, np.array([18.0, 18, 42, 42]), match=False)
  assert np.abs(out.astype(int) - 100).max() <= 4


def border_steps(frame, box) -> float:
  """Mean step in levels over the border of a box, from pixel to pixel."""
  y1, y2, x1, x2 = faces.whole_pixels(box, *frame.shape[:2])
  part = frame.astype(float)
  return np.mean(
    np.concatenate(
      [
        np.abs(part[y1, x1:x2] - part[y1 - 1, x1:x2]),
        np.abs(part[y2, x1:x2] - part[y2 - 1, x1:x2]),
        np.abs(part[y1:y2, x1] - part[y1:y2, x1 - 1]),
        np.abs(part[y1:y2, x2] - part[y1:y2, x2 - 1]),
      ]
    )
  )


def mask_steps(frame, box) -> np.ndarray:
  """[8] mean step per pixel across the lines of equal weight, by weight."""
  x1, y1, x2, y2 = faces.inside(box, *frame.shape[:2])
  left, top, right, bottom = int(x1), int(y1), round(x2), round(y2)
  weights = blending.mask(
    (np.arange(left, right)[None] + 0.5 - x1) / (x2 - x1),
    (np.arange(top, bottom)[:, None] + 0.5 - y1) / (y2 - y1),
  )
  gy, gx = np.gradient(weights)
  steep = np.hypot(gy, gx)
  py, px = np.gradient(frame[top:bottom, left:right].astype(float), axis=(0, 1))
  across = np.abs(px * gx[..., None] + py * gy[..., None]).mean(axis=2)
  inside = (weights > 0.02) & (weights < 0.98) & (steep > 1e-4)
  level = (weights * 8).astype(int)
  return np.array(
    [(across / (steep + 1e-9))[inside & (level == i)].mean() for i in range(8)]
  )


@pytest.mark.slow
def test_borders_on_ten_real_clips(grid_folder):
  """A blurred face in another light, as a poor network would draw it."""
  paths = [
    *sorted((grid_folder / "s1").glob("*.mp4"))[::140][:6],
    *sorted((grid_folder.parent / "grid_other").glob("*.mp4")),
  ]
  assert len(paths) == 10
  detect, found = detectors.make("mtcnn"), {}
  for path in paths:
    frame = next(video.frames_at_rate(path, 25, 30))
    box = detect(frame)[0, :4]
    face = cv2.GaussianBlur(faces.crop_exact(frame, box, 96), (0, 0), 2)
    face = np.clip(face + np.array([-18.0, 6, 22]), 0, 255).astype(np.uint8)
    for name, result in (
      ("source", frame),
      ("hard", faces.paste(frame, face, box)),
      ("ours", blending.blend(frame, face, box)),
    ):
      found.setdefault(name, []).append(
        [border_steps(result, box), *mask_steps(result, box)]
      )
  means = {name: np.mean(rows, axis=0) for name, rows in found.items()}
  for name, row in means.items():
    print(name, np.round(row, 2))
  assert means["hard"][0] > 1.5 * means["source"][0]
  assert abs(means["ours"][0] - means["source"][0]) < 0.01
  assert (means["ours"][1:] < means["source"][1:] + 0.5).all()
