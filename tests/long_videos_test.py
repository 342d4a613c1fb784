"""Lip-syncing long videos: memory does not grow, and the end is in place.

Each run is a process of its own, which tells the most memory that it held.
"""

import json
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest
import soundfile
from conftest import (
  GRID,
  REPOSITORY,
  babble,
  face_picture,
  talking_frames,
)

from w2l_jax import video

_RUN = """
import json, resource, sys
sys.path.insert(0, "tests")
import conftest
face, speech, out, choices = sys.argv[1:]
summary = conftest.grey_syncer().write(face, speech, out, **json.loads(choices))
print(json.dumps({
  "frames": summary.frames,
  "with_face": summary.with_face,
  "scenes": summary.scenes,
  "seconds": summary.seconds,
  "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def run(face, speech, out, **choices) -> dict:
  done = subprocess.run(
    [sys.executable, "-c", _RUN, face, speech, out, json.dumps(choices)],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  print(found)
  return found


def faces_of(count) -> list[list]:
  """Two people's frames: GRID's where they are at hand."""
  paths = sorted((GRID.parent / "grid_other").glob("*.mp4"))[:2]
  if paths:
    return [list(video.frames_at_rate(p, 25))[:count] for p in paths]
  return [talking_frames(count, seed=s) for s in (1, 2)]


def write_scenes(path, repeats: int) -> None:
  """10 s of 720p, so many times: one face, two, none, the other, and cuts.

  The ten seconds are encoded once and their packets written again.
  """
  one, two = (
    [cv2.resize(f, (640, 512)) for f in frames] for frames in faces_of(60)
  )
  empty = np.full((720, 1280, 3), (60, 110, 90), np.uint8)
  packets = []
  with av.open(f"{path}.part.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=25, options={"g": "50"})
    stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
    for i in range(250):
      frame = empty.copy()
      k = i % 60
      if i < 60 or 90 <= i < 180:
        frame[100:612, :640] = one[k]
      if 90 <= i < 180 or i >= 190:
        frame[100:612, 640:] = two[k]
      picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
  with av.open(f"{path}.part.mp4") as source, av.open(path, "w") as target:
    given = source.streams.video[0]
    stream = target.add_stream_from_template(given)
    packets = [p for p in source.demux(given) if p.dts is not None]
    data = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in packets]
    length = round(10 / given.time_base)
    for n in range(repeats):
      for content, pts, dts, key in data:
        packet = av.Packet(content)
        packet.stream, packet.time_base = stream, given.time_base
        packet.pts, packet.dts = pts + n * length, dts + n * length
        packet.is_keyframe = key
        target.mux(packet)


def compare_memory(tmp_path, seconds: int) -> None:
  found = []
  for length in (10, seconds):
    face, speech, out = (
      str(tmp_path / name) for name in ("in.mp4", "speech.wav", "out.mp4")
    )
    write_scenes(face, length // 10)
    soundfile.write(speech, np.tile(babble(10), length // 10), 16_000)
    summary = run(face, speech, out, no_face="hold")
    frames = length * 25
    assert abs(summary["frames"] - frames) <= 1
    # Half a second of the empty second is held at most, and never past a cut.
    assert 0.8 * frames < summary["with_face"] < frames
    assert summary["scenes"] >= 3 * length // 10
    with av.open(out) as container:
      stream = container.streams.video[0]
      assert abs(float(stream.duration * stream.time_base) - length) < 0.05
    found.append(summary["mb"])
  assert found[1] < 1.2 * found[0]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_minutes_take_no_more_memory_than_ten_seconds(tmp_path):
  compare_memory(tmp_path, 600)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_half_an_hour_of_silence(tmp_path):
  """Beside a photo; the sound is stereo at 48 kHz, 345 MB of samples."""
  photo = str(tmp_path / "photo.png")
  cv2.imwrite(photo, face_picture(128))
  found = []
  for seconds in (10, 1800):
    speech = str(tmp_path / f"{seconds}.flac")
    with soundfile.SoundFile(speech, "w", 48_000, 2) as file:
      for _ in range(seconds):
        file.write(np.zeros((48_000, 2)))
    summary = run(
      photo, speech, str(tmp_path / "out.mp4"), box=(30, 95, 40, 85)
    )
    assert summary["frames"] == 25 * seconds
    found.append(summary["mb"])
  assert found[1] < 1.2 * found[0]
