"""`--compat` against the original's arithmetic, written out step by step."""

import cv2
import jax
import numpy as np
import pytest
from conftest import BOX, SAMPLE_RATE, babble, talking_frames, wall

from w2l_jax import audio, detectors, inference, sources


def originals_frames(syncer, frames, waveform, fps, box=None, smooth=True):
  """The original's steps, in NumPy and OpenCV; the network aside."""
  mel = audio.log_mel(waveform).T
  size = syncer.config["image_size"]
  chunks, i, multiplier = [], 0, 80.0 / fps
  while True:
    start = int(i * multiplier)
    if start + 16 > len(mel[0]):
      chunks.append(mel[:, len(mel[0]) - 16 :])
      break
    chunks.append(mel[:, start : start + 16])
    i += 1
  frames = [f.copy() for f in frames[: len(chunks)]]
  if box is None:
    detect = detectors.make("mtcnn")
    boxes = []
    for frame in frames:
      x1, y1, x2, y2 = (int(v) for v in np.maximum(detect(frame)[0, :4], 0))
      boxes.append(
        [x1, y1, min(frame.shape[1], x2), min(frame.shape[0], y2 + 10)]
      )
    boxes = np.array(boxes)
    if smooth:
      for i in range(len(boxes)):
        if i + 5 > len(boxes):
          window = boxes[len(boxes) - 5 :]
        else:
          window = boxes[i : i + 5]
        boxes[i] = np.mean(window, axis=0)
  else:
    top, bottom, left, right = box
    boxes = np.array([[left, top, right, bottom]] * len(frames))
  faces, mels, places = [], [], []
  for i, chunk in enumerate(chunks):
    j = i % len(frames)
    x1, y1, x2, y2 = boxes[j]
    faces.append(cv2.resize(frames[j][y1:y2, x1:x2], (size, size)))
    mels.append(chunk)
    places.append((j, boxes[j]))
  faces, mels = np.asarray(faces), np.asarray(mels)
  masked = faces.copy()
  masked[:, size // 2 :] = 0
  inputs = np.concatenate([masked, faces], axis=3) / 255.0
  network = jax.jit(inference.make_model(syncer.config).apply)
  out = []
  # The network's batches are filled up with zeros.
  for a in range(0, len(inputs), syncer.batch_size):
    n = len(inputs[a : a + syncer.batch_size])
    fill = ((0, syncer.batch_size - n), (0, 0), (0, 0), (0, 0))
    pictures = np.pad(inputs[a : a + n], fill).astype(np.float32)
    sounds = np.pad(mels[a : a + n, ..., None], fill)
    predicted = network(syncer.variables, sounds, pictures)
    for (j, (x1, y1, x2, y2)), p in zip(
      places[a : a + n], np.asarray(predicted)[:n] * 255.0, strict=True
    ):
      frame = frames[j].copy()
      p = cv2.resize(p.astype(np.uint8), (int(x2 - x1), int(y2 - y1)))
      frame[y1:y2, x1:x2] = p
      out.append(frame)
  return out


@pytest.mark.parametrize("choices", [{}, {"smooth": False}, {"box": BOX}])
def test_compat(syncer, choices):
  """Equal pixels before encoding, but where rounding turns a truncation."""
  waveform = babble(1.0, seed=2)
  frames = talking_frames(15, seed=1)
  expected = originals_frames(syncer, frames, waveform, 25.0, **choices)
  sound = waveform, SAMPLE_RATE
  found = list(syncer.frames(np.stack(frames), sound, compat=True, **choices))
  assert len(found) == len(expected) == 22
  np.testing.assert_array_equal(np.stack(found), np.stack(expected))


def test_compat_stops_where_a_frame_has_no_face(syncer):
  frames, sound = talking_frames(5) + [wall()], (babble(0.8), SAMPLE_RATE)
  with pytest.raises(sources.InferenceError, match="no face found in frame 5"):
    list(syncer.frames(np.stack(frames), sound, compat=True))
