"""Draws talking faces whose mouths follow a track, frame by frame.

An identity is a handful of numbers drawn from a seed.  Its still head is
painted once; each frame moves the jaw, places the head, and draws the mouth and
the eyelids, so that the true mouth shape of every frame is known.

Face coordinates: (0, 0) is between nose and eyes, y grows downwards, the chin
is at y = 1, the hairline near y = -0.85.
"""

import dataclasses

import cv2
import numpy as np

from data_prep.articulation import MouthTrack

# Side of the frames, and pixels of half a face in them.
FRAME_SIZE = 256
_SCALE = 78.0
# The painted head: side in pixels, and half its extent in face coordinates.
_TEXTURE_SIZE = 512
_EXTENT = 1.7
# Mouths are drawn this much larger, then averaged down.
_MOUTH_OVERSAMPLING = 4
_MOUTH_Y = 0.52


@dataclasses.dataclass(frozen=True)
class Identity:
  """What distinguishes one face from another; colours are BGR in [0, 1].

  Lengths are in face coordinates; see `draw_identity` for their ranges.
  """

  skin: np.ndarray
  hair: np.ndarray
  iris: np.ndarray
  lips: np.ndarray
  clothes: np.ndarray
  background: np.ndarray
  half_width: float
  jaw: float
  hair_volume: float
  fringe: float
  eye_distance: float
  eye_size: float
  brow_thickness: float
  brow_tilt: float
  nose_length: float
  nose_width: float
  mouth_half_width: float
  mouth_opening: float
  upper_lip: float
  lower_lip: float
  teeth: float
  light: np.ndarray
  light_strength: float
  pose: np.ndarray
  seed: int


def draw_identity(seed: int) -> Identity:
  """Draws an identity; the same seed gives the same face."""
  rng = np.random.default_rng([seed, 0xFACE])

  def between(low, high):
    return rng.uniform(low, high)

  # From pale to dark along the line that human skin follows.
  pale, dark = np.array([0.72, 0.80, 0.94]), np.array([0.22, 0.33, 0.50])
  skin = pale + (dark - pale) * between(0, 1) ** 1.3
  skin = skin * (1 + rng.normal(0, 0.02, 3))
  hair = np.array(
    [
      (0.08, 0.09, 0.11),
      (0.12, 0.20, 0.32),
      (0.25, 0.42, 0.60),
      (0.10, 0.18, 0.45),
      (0.55, 0.57, 0.60),
    ]
  )[rng.integers(5)] * between(0.8, 1.2)
  iris = np.array([(0.15, 0.25, 0.35), (0.55, 0.42, 0.25), (0.3, 0.45, 0.35)])[
    rng.integers(3)
  ]
  # Lips are the skin with less green and blue.
  lips = skin * np.array([0.62, 0.52, 0.90]) * between(0.8, 1.05)
  angle = between(-np.pi, np.pi)
  return Identity(
    skin=skin.clip(0, 1),
    hair=hair.clip(0, 1),
    iris=iris,
    lips=lips.clip(0, 1),
    clothes=between(0.15, 0.6) + rng.uniform(-0.15, 0.15, 3),
    background=between(0.3, 0.75) + rng.uniform(-0.1, 0.1, 3),
    half_width=between(0.66, 0.78),
    jaw=between(0.10, 0.32),
    hair_volume=between(0.02, 0.16),
    fringe=between(-0.80, -0.55),
    eye_distance=between(0.30, 0.36),
    eye_size=between(0.115, 0.145),
    brow_thickness=between(0.025, 0.05),
    brow_tilt=between(-0.05, 0.05),
    nose_length=between(0.22, 0.30),
    nose_width=between(0.11, 0.15),
    mouth_half_width=between(0.24, 0.30),
    mouth_opening=between(0.42, 0.52),
    upper_lip=between(0.055, 0.085),
    lower_lip=between(0.07, 0.11),
    teeth=between(0.80, 0.95),
    light=np.array([np.cos(angle) * 0.6, -0.35, 0.75]),
    light_strength=between(0.25, 0.5),
    # Of three slow oscillations each: x, y (pixels), roll (degrees), scale.
    pose=rng.uniform(-1, 1, (4, 3, 2)),
    seed=seed,
  )


def _blob(x, y, cx, cy, rx, ry):
  return np.exp(-(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2))


class FaceRenderer:
  """Draws the frames of one identity."""

  def __init__(self, identity: Identity):
    """Paints the still head and the scene behind it."""
    self._identity = identity
    self._scene = _paint_scene(identity)
    self._head = _paint_head(identity)

  def render(self, track: MouthTrack, take: int, fps: float):
    """Yields one frame after another.

    Args:
      track: the mouth's shape at each frame.
      take: seeds the head's motion and the blinks of this clip.
      fps: frames a second.

    Yields:
      [256, 256, 3] uint8, BGR.
    """
    rng = np.random.default_rng([self._identity.seed, take, 0xC11F])
    n = len(track.opening)
    times = np.arange(n) / fps
    pose = _pose_track(self._identity, rng, times)
    lids = _blink_track(rng, times)
    for i in range(n):
      frame = self._draw(
        pose[:, i], lids[i], float(track.opening[i]), float(track.width[i])
      )
      noise = rng.normal(0, 1.2, frame.shape[:2]).astype(np.float32)
      frame = frame * 255 + noise[..., None]
      yield frame.clip(0, 255).round().astype(np.uint8)

  def _draw(self, pose, lid, opening, width):
    face = self._identity
    dx, dy, roll, zoom = pose
    scale = _SCALE * zoom
    c, s = np.cos(np.radians(roll)) * scale, np.sin(np.radians(roll)) * scale
    center = np.array([FRAME_SIZE / 2 + dx, FRAME_SIZE * 0.52 + dy])
    matrix = np.array([[c, -s], [s, c]])  # face coordinates to pixels

    def to_pixels(points):
      return points @ matrix.T + center

    # Pixels to face coordinates, then undo the jaw's drop.
    grid = np.indices((FRAME_SIZE, FRAME_SIZE), np.float32)[::-1]
    inverse = np.linalg.inv(matrix).astype(np.float32)
    offset = -inverse @ center.astype(np.float32)
    x = inverse[0, 0] * grid[0] + inverse[0, 1] * grid[1] + offset[0]
    y = inverse[1, 0] * grid[0] + inverse[1, 1] * grid[1] + offset[1]
    drop = 0.55 * face.mouth_opening * opening
    below = np.clip((y - _MOUTH_Y) / (1 - _MOUTH_Y), 0, 1)
    beyond = np.clip((1.5 - y) / 0.45, 0, 1)
    y = y - drop * below * beyond * np.exp(-((x / 0.75) ** 4))
    to_texture = _TEXTURE_SIZE / (2 * _EXTENT)
    head = cv2.remap(
      self._head,
      (x + _EXTENT) * to_texture - 0.5,
      (y + _EXTENT) * to_texture - 0.5,
      cv2.INTER_LINEAR,
    )
    frame = self._scene + (head[..., :3] - self._scene * head[..., 3:])
    if lid > 0:
      self._close_eyes(frame, to_pixels, lid)
    self._draw_mouth(frame, to_pixels, opening, width)
    return frame

  def _close_eyes(self, frame, to_pixels, lid):
    face = self._identity
    for side in (-1, 1):
      eye = _eye_outline(face, side)
      top = eye[:, 1].min()
      bottom = eye[:, 1].max()
      eye = eye * [1.06, 1]
      eye[:, 1] = np.minimum(eye[:, 1], top + lid * (bottom - top)) - 0.006
      _fill(frame, [(to_pixels(eye), face.skin * 0.86)], blur=0.4)

  def _draw_mouth(self, frame, to_pixels, opening, width):
    face = self._identity
    outer, inner = mouth_outlines(face, opening, width)
    gap = opening * face.mouth_opening
    shapes = [
      (outer["upper"], face.lips * 0.88),
      (outer["lower"], face.lips * 1.05),
      (_crescent(outer["lower"], 0.35), (face.lips * 1.22).clip(0, 1)),
    ]
    if gap > 0.012:
      left, right = inner[:, 0].min(), inner[:, 0].max()
      top = inner[:, 1].min()
      teeth = np.array([face.teeth * 0.93, face.teeth, face.teeth])
      reach = min(0.5 * gap, 0.075)
      band = _clip_below(inner, top + reach)
      tongue = _ellipse(
        0, inner[:, 1].max() - 0.02, (right - left) * 0.28, gap * 0.28
      )
      shapes += [(inner, np.array([0.10, 0.07, 0.20]))]
      if gap > 0.08:
        shapes += [(_inside(tongue, inner), np.array([0.30, 0.27, 0.55]))]
      shapes += [(band, teeth * 0.85)]
    _fill(frame, [(to_pixels(p), colour) for p, colour in shapes], blur=0.6)


def mouth_outlines(face: Identity, opening: float, width: float):
  """Computes the lips' and the inner mouth's outlines in face coordinates.

  Returns:
    ({"upper", "lower"}: outlines of the lips, outline of the gap).
  """
  half = face.mouth_half_width * (0.78 + 0.34 * width - 0.06 * opening)
  # Rounded lips stand out: they are thicker.
  round_ = 1.0 + 0.35 * max(0.0, 0.5 - width)
  gap = opening * face.mouth_opening
  u = np.linspace(-1, 1, 33)
  arch = 1 - u**2
  rise = 0.30 * gap  # the upper lip goes up by less than the lower goes down
  fall = 0.70 * gap
  upper_edge = _MOUTH_Y - rise * arch**0.8
  lower_edge = _MOUTH_Y + fall * arch**0.8
  bow = 1 - 0.28 * np.exp(-((u / 0.16) ** 2))
  upper_top = upper_edge - face.upper_lip * round_ * arch**0.7 * bow
  lower_bottom = lower_edge + face.lower_lip * round_ * arch**0.6
  x = half * u

  def closed(top, bottom, xs):
    return np.concatenate(
      [np.stack([xs, top], 1), np.stack([xs, bottom], 1)[::-1]]
    )

  seam = 0.006  # lips that touch leave a dark line
  outer = {
    "upper": closed(upper_top, upper_edge, x),
    "lower": closed(lower_edge + seam * arch, lower_bottom, x),
  }
  return outer, closed(upper_edge, lower_edge, x * 0.92)


def true_mouth(face: Identity, track: MouthTrack) -> dict[str, np.ndarray]:
  """Returns {"opening", "width"} of every frame, in face coordinates.

  The opening is the greatest gap between the lips, the width that of the gap.
  """
  opening = track.opening * face.mouth_opening
  width = [
    np.ptp(mouth_outlines(face, float(o), float(w))[1][:, 0])
    for o, w in zip(track.opening, track.width, strict=True)
  ]
  return {
    "opening": opening.astype(np.float32),
    "width": np.array(width, np.float32),
  }


def _ellipse(cx, cy, rx, ry):
  t = np.linspace(0, 2 * np.pi, 33)[:-1]
  return np.stack([cx + rx * np.cos(t), cy + ry * np.sin(t)], 1)


def _inside(points, outline):
  """Clamps points into a vertically convex outline."""
  half = len(outline) // 2
  xs, top = outline[:half].T
  bottom = outline[half:][::-1, 1]
  x = points[:, 0].clip(xs[0], xs[-1])
  low, high = np.interp(x, xs, top), np.interp(x, xs, bottom)
  return np.stack([x, points[:, 1].clip(low, high)], 1)


def _clip_below(outline, y):
  return np.stack([outline[:, 0], np.minimum(outline[:, 1], y)], 1)


def _crescent(lip, share):
  """The middle of a lip, where light falls on it."""
  center = lip.mean(axis=0)
  return (lip - center) * [0.6, share] + center


def _fill(frame, shapes, blur):
  """Paints polygons over a frame, in place, with soft edges.

  Args:
    frame: [H, W, 3] float32.
    shapes: (points in pixels, colour), later ones over earlier ones.
    blur: of the edges, standard deviation in pixels.
  """
  points = np.concatenate([p for p, _ in shapes])
  low = np.floor(points.min(axis=0)).astype(int) - 4
  high = np.ceil(points.max(axis=0)).astype(int) + 5
  low, high = np.maximum(low, 0), np.minimum(high, frame.shape[1::-1])
  (left, top), (right, bottom) = low, high
  roi = frame[top:bottom, left:right]
  k = _MOUTH_OVERSAMPLING
  size = (k * (right - left), k * (bottom - top))
  # The area under all polygons is painted with colour and coverage, so that
  # averaging down and blurring soften the outer edge and no other.
  paint = np.zeros((size[1], size[0], 4), np.float32)
  for outline, colour in shapes:
    corners = ((outline - low) * k * 16).round().astype(np.int32)
    cv2.fillPoly(paint, [corners], (*map(float, colour), 1.0), shift=4)
  paint = cv2.resize(paint, (right - left, bottom - top), None, 0, 0, 3)
  paint = cv2.GaussianBlur(paint, (0, 0), blur)
  roi *= 1 - paint[..., 3:]
  roi += paint[..., :3]


def _eye_outline(face, side):
  t = np.linspace(0, np.pi, 17)
  x = np.cos(t) * face.eye_size
  top = -np.sin(t) * face.eye_size * 0.52
  bottom = np.sin(t) * face.eye_size * 0.38
  outline = np.concatenate(
    [np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]]
  )
  return outline + [side * face.eye_distance, -0.08]


def _pose_track(face, rng, times):
  """[4, frames]: x, y in pixels, roll in degrees, zoom."""
  phases = rng.uniform(0, 2 * np.pi, (4, 3))
  rates = np.array([0.13, 0.29, 0.53]) * rng.uniform(0.8, 1.2, (4, 3))
  waves = np.sin(2 * np.pi * rates[..., None] * times + phases[..., None])
  motion = (waves * [[1.0], [0.6], [0.3]]).sum(axis=1) / 1.2
  sizes = np.array([5.0, 3.0, 3.0, 0.02])
  at_rest = face.pose[:, 0, 0] * [6.0, 4.0, 4.0, 0.08] + [0, 0, 0, 1]
  return at_rest[:, None] + motion * sizes[:, None]


def _blink_track(rng, times):
  """[frames] in [0, 1]: how far the lids are closed."""
  lids = np.zeros(len(times))
  at = rng.uniform(0.3, 3.0)
  while len(times) and at < times[-1]:
    lids = np.maximum(lids, 1 - np.abs(times - at) / 0.1)
    at += rng.uniform(1.5, 4.0)
  return lids.clip(0, 1)


def _paint_scene(face) -> np.ndarray:
  """[256, 256, 3] float32 BGR: a blurred room and shoulders."""
  rng = np.random.default_rng([face.seed, 0xB6])
  size = FRAME_SIZE
  y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
  slope = rng.uniform(-0.25, 0.25, 2)
  shade = 1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5)
  scene = face.background.astype(np.float32) * shade[..., None]
  for _ in range(6):
    (cx, cy), (rx, ry) = rng.uniform(0, 1, 2), rng.uniform(0.05, 0.3, 2)
    inside = (abs(x - cx) < rx) & (abs(y - cy) < ry)
    scene[inside] *= 1 + rng.normal(0, 0.12, 3)
  scene = cv2.GaussianBlur(scene.astype(np.float32), (0, 0), 5)
  shoulders = ((x - 0.5) / 0.48) ** 4 + ((1.06 - y) / 0.24) ** 2 < 1
  mask = cv2.GaussianBlur(shoulders.astype(np.float32), (0, 0), 1.2)[..., None]
  fabric = face.clothes.astype(np.float32) * (0.8 + 0.4 * (1 - y))[..., None]
  return (scene * (1 - mask) + fabric * mask).clip(0, 1).astype(np.float32)


def _paint_head(face) -> np.ndarray:
  """[512, 512, 4] float32: BGR times coverage, and coverage."""
  rng = np.random.default_rng([face.seed, 0x4EAD])
  n = _TEXTURE_SIZE
  axis = ((np.arange(n) + 0.5) / n * 2 - 1) * _EXTENT
  x, y = np.meshgrid(axis, axis)
  hw = face.half_width

  def soft(inside, sigma=1.2):
    return cv2.GaussianBlur(inside.astype(np.float32), (0, 0), sigma)[..., None]

  def outline_width(y):
    """Half the face's width at height y."""
    upper = np.sqrt(np.clip(1 - (y / 1.02) ** 2, 0, None))
    lower = np.clip(1 - np.abs(y) ** 2.6, 0, None) ** 0.5
    lower = lower * (1 - face.jaw * np.clip(y, 0, 1) ** 1.5)
    return hw * np.where(y < 0, upper, lower)

  width = outline_width(y)
  skin_mask = soft(np.abs(x) < width)
  # Light on an egg.
  nx, ny = x / (hw * 1.15), y / 1.15
  nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.05, 1))
  light = face.light / np.linalg.norm(face.light)
  diffuse = np.clip(nx * light[0] + ny * light[1] + nz * light[2], 0, 1)
  shade = 1 - face.light_strength + face.light_strength * 1.35 * diffuse
  # Sockets, the nose's flanks and tip, the hollows under nose and lips.
  eye_y, nose_y = -0.08, -0.05 + face.nose_length + 0.12
  for side in (-1, 1):
    ex = side * face.eye_distance
    shade -= 0.20 * _blob(x, y, ex * 0.92, eye_y - 0.04, 0.20, 0.11)
    shade += 0.06 * _blob(x, y, side * 0.40, 0.28, 0.18, 0.14)
    shade -= 0.10 * _blob(x, y, side * face.nose_width, nose_y, 0.05, 0.06)
    shade -= 0.07 * _blob(x, y, side * 0.10, 0.08, 0.04, 0.18)
    shade -= 0.08 * _blob(x, y, side * 0.30, 0.45, 0.05, 0.14)
  shade += 0.10 * _blob(x, y, 0, 0.05, 0.05, 0.20)
  shade += 0.12 * _blob(x, y, 0, nose_y - 0.04, 0.07, 0.06)
  shade -= 0.16 * _blob(x, y, 0, nose_y + 0.06, 0.13, 0.03)
  shade -= 0.12 * _blob(x, y, 0, 0.70, 0.16, 0.04)
  shade += 0.06 * _blob(x, y, 0, 0.84, 0.14, 0.07)
  shade += 0.08 * _blob(x, y, 0, -0.50, 0.35, 0.18)
  texture = cv2.GaussianBlur(rng.normal(0, 1, (n, n)), (0, 0), 3) * 0.05
  skin = face.skin * (shade + texture)[..., None]
  blush = sum(_blob(x, y, side * 0.42, 0.25, 0.16, 0.12) for side in (-1, 1))
  skin = skin * (1 - blush[..., None] * [0.07, 0.08, 0.0])

  head = np.zeros((n, n, 4), np.float32)

  def put(mask, colour):
    head[..., :3] = head[..., :3] * (1 - mask) + colour * mask
    head[..., 3:] = head[..., 3:] * (1 - mask) + mask

  strands = cv2.GaussianBlur(rng.normal(0, 1, (n, n)), (0, 0), 1.5, sigmaY=9)
  hair = face.hair * (1 + 0.9 * strands - 0.25 * ny)[..., None]
  volume = face.hair_volume
  back = (x / (hw + 0.06 + volume)) ** 2 + ((y + 0.18) / (1.0 + volume)) ** 2
  put(soft(back < 1), hair * 0.8)
  neck = (np.abs(x) < hw * 0.52) & (y > 0.5) & (y < 1.65)
  put(soft(neck), face.skin * 0.72 * np.ones_like(skin))
  for side in (-1, 1):
    ear = ((x - side * hw) / 0.09) ** 2 + ((y - 0.08) / 0.18) ** 2 < 1
    put(soft(ear), face.skin * 0.82)
  put(skin_mask, skin)
  cap = (np.abs(x) < width + 0.03) & (
    y < face.fringe + 0.35 * (np.abs(x) / hw) ** 3
  )
  put(soft(cap & (back < 1.02), 2.0), hair)

  for side in (-1, 1):
    ex = side * face.eye_distance
    brow = np.abs(
      y - (-0.30 + side * face.brow_tilt * (x - ex) + 0.9 * (x - ex) ** 2)
    ) < face.brow_thickness * (1 - 2.2 * (x - ex) * side)
    put(soft(brow & (np.abs(x - ex) < 0.20), 1.8) * 0.9, face.hair * 0.6)
    eye = np.zeros((n, n), np.uint8)
    points = (_eye_outline(face, side) + _EXTENT) / (2 * _EXTENT) * n
    cv2.fillPoly(eye, [points.round().astype(np.int32)], 1)
    eye = soft(eye, 0.8)
    put(eye, np.array([0.86, 0.87, 0.88]))
    distance = np.hypot(x - ex, y - eye_y + 0.01)
    put(soft(distance < face.eye_size * 0.50, 0.8) * eye, face.iris)
    put(soft(distance < face.eye_size * 0.24, 0.8) * eye, np.full(3, 0.03))
    glint = np.hypot(x - ex + 0.02, y - eye_y + 0.035) < 0.013
    put(soft(glint, 0.7), np.full(3, 0.95))
    lid = (
      soft(
        np.abs(
          y
          - (
            eye_y
            - 0.5
            * face.eye_size
            * np.sqrt(np.clip(1 - ((x - ex) / face.eye_size) ** 2, 0, 1))
          )
        )
        < 0.014,
        1.0,
      )
      * (np.abs(x - ex) < face.eye_size)[..., None]
    )
    put(lid * 0.85, face.skin * 0.18)
    nostril = ((x - side * 0.065) / 0.032) ** 2 + (
      (y - nose_y - 0.035) / 0.018
    ) ** 2 < 1
    put(soft(nostril, 1.5) * 0.8, face.skin * 0.25)
  return head.clip(0, 1)
