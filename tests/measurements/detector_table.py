r"""Recall and false boxes of the face detectors on GRID and on altered frames.

  python -m tests.measurements.detector_table --videos=grid_s1/s1,grid_other

The truth of a frame is the mean of MTCNN's and Haar's boxes on it, both run at
twice its size; frames where the two do not agree (IoU below 0.5) are left out,
and counted.  An altered frame's truth is that box, altered alike.  A box that
overlaps the truth by half (IoU) finds it; all others are false.
"""

import glob
import os
import time

import cv2
import numpy as np
from absl import app, flags

from w2l_jax import detectors, faces, video, windows

_VIDEOS = flags.DEFINE_list("videos", None, "Folders.", required=True)
_DETECTORS = flags.DEFINE_list("detectors", ["mtcnn", "haar"], "Which.")
_FRAMES = flags.DEFINE_integer("frames", 200, "Random frames.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the choice of frames.")


def random_frames(folders, count, rng):
  paths = sorted(p for f in folders for p in glob.glob(os.path.join(f, "*.*")))
  for path in rng.choice(paths, count):
    wanted = int(rng.integers(5, 70))
    for i, frame in enumerate(video.frames_at_rate(path, windows.FPS)):
      if i == wanted:
        yield frame
        break


def truth(frame, reference):
  """The face's box, or None where the two detectors do not agree."""
  large = cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
  found = [detect(large)[:1, :4] / 2 for detect in reference]
  if not all(map(len, found)) or faces.iou(found[0][0], found[1])[0] < 0.5:
    return None
  return np.concatenate(found).mean(axis=0)


def scaled(factor):
  def alter(frame, box):
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return (
      cv2.resize(frame, None, fx=factor, fy=factor, interpolation=how),
      [box * factor],
    )

  return alter


def rotated(degrees):
  def alter(frame, box):
    x, y = (box[:2] + box[2:]) / 2
    turn = cv2.getRotationMatrix2D((float(x), float(y)), degrees, 1)
    size = frame.shape[1::-1]
    return (
      cv2.warpAffine(frame, turn, size, borderMode=cv2.BORDER_REPLICATE),
      [box],
    )

  return alter


def beside(frame, box):
  """Two faces: the frame and its mirror image."""
  width = frame.shape[1]
  mirrored = np.array([width - box[2], box[1], width - box[0], box[3]])
  return (
    np.concatenate([frame, frame[:, ::-1]], axis=1),
    [box, mirrored + [width, 0, width, 0]],
  )


def without(frame, box):
  """No face: the head is painted over with the background left of it."""
  out = frame.copy()
  x1, y1, x2, y2 = box
  reach = 0.6 * (x2 - x1)
  left, right = (
    int(np.clip(v, 0, frame.shape[1])) for v in (x1 - reach, x2 + reach)
  )
  bottom = int(min(frame.shape[0], y2 + 0.2 * (y2 - y1)))
  out[:bottom, left:right] = out[:bottom, :1]
  return out, []


ALTERATIONS = {
  "as it is": lambda frame, box: (frame, [box]),
  "half size": scaled(0.5),
  "twice": scaled(2),
  "three times": scaled(3),
  "turned 10 degrees": rotated(10),
  "turned 20 degrees": rotated(20),
  "a quarter as bright": lambda frame, box: (
    (frame * 0.25).astype(np.uint8),
    [box],
  ),
  "blurred, sigma 3": lambda frame, box: (
    cv2.GaussianBlur(frame, (0, 0), 3),
    [box],
  ),
  "blurred, sigma 6": lambda frame, box: (
    cv2.GaussianBlur(frame, (0, 0), 6),
    [box],
  ),
  "two side by side": beside,
  "none": without,
}


def main(argv):
  """Prints the table in Markdown."""
  del argv
  cv2.setNumThreads(1)
  rng = np.random.default_rng(_SEED.value)
  reference = [detectors.make(name) for name in ("mtcnn", "haar")]
  frames, left_out = [], 0
  for frame in random_frames(_VIDEOS.value, _FRAMES.value, rng):
    box = truth(frame, reference)
    if box is None:
      left_out += 1
    else:
      frames.append((frame, box))
  print(f"{len(frames)} frames, {left_out} left out")
  print("| frames | " + " | ".join(_DETECTORS.value) + " |")
  print("|---|" + "---|" * len(_DETECTORS.value))
  for name, alter in ALTERATIONS.items():
    altered = [alter(frame, box) for frame, box in frames]
    cells = []
    for detector in map(detectors.make, _DETECTORS.value):
      hits = wanted = false = 0
      start = time.process_time()
      found = [detector(frame)[:, :4] for frame, _ in altered]
      seconds = time.process_time() - start
      for boxes, (_, truths) in zip(found, altered, strict=True):
        claimed = np.zeros(len(boxes), bool)
        for t in truths:
          overlap = faces.iou(t, boxes) if len(boxes) else np.zeros(0)
          wanted += 1
          if (overlap >= 0.5).any():
            hits += 1
            claimed[int(np.argmax(overlap))] = True
        false += int((~claimed).sum())
      recall = f"{hits / wanted:.3f}" if wanted else "-"
      cells.append(
        f"{recall}, {false} false, {1000 * seconds / len(found):.0f} ms"
      )
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
  app.run(main)
