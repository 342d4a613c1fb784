r"""How much of lip-syncing a video is the network, and how much each stage.

  python -m tests.measurements.lipsync_shares --face=CLIP.mp4 --audio=CLIP.mp4

By CPU seconds, so that what else the machine does counts for little: stages run
one after the other here, all in one thread but the network.  It is of full size
and has learnt nothing, for that costs the same.  What is done once a run
(imports, compilation) has been done before.  The video is made as it is, and
enlarged and cut to 1280 x 720.
"""

import contextlib
import os
import tempfile
import time

import cv2
import jax
import numpy as np
from absl import app, flags

from configs import gan_lrs2
from w2l_jax import (
  faces,
  inference,
  lip_syncer,
  pipeline,
  video,
  video_writer,
)

_FACE = flags.DEFINE_string("face", None, "Video.", required=True)
_AUDIO = flags.DEFINE_string("audio", None, "Speech.", required=True)
_SIZE = flags.DEFINE_string(
  "size", "", "Of the config: none (full), small, tiny."
)
_PRESET = flags.DEFINE_string("preset", "veryfast", "x264's.")


class _Clock(pipeline.Clock):
  """CPU seconds: of all threads for the network, else of this one."""

  @contextlib.contextmanager
  def __call__(self, stage):
    cpu = time.process_time if stage == "generate" else time.thread_time
    start = cpu()
    try:
      yield
    finally:
      self.seconds[stage] += cpu() - start


def _one_after_the_other() -> None:
  """No threads but the network's own, and CPU seconds on the clock."""
  cv2.setNumThreads(1)
  pipeline.in_thread = lambda items, depth: (item for item in items)
  pipeline.Clock = _Clock
  open_stream, add_streams = (
    video._video_stream,
    video_writer.VideoWriter._add_streams,
  )

  def one_thread(container, path):
    stream = open_stream(container, path)
    stream.thread_count = 1
    return stream

  def one_encoder(writer, height, width):
    add_streams(writer, height, width)
    writer._video.codec_context.thread_count = 1

  video._video_stream = one_thread
  video_writer.VideoWriter._add_streams = one_encoder


def _enlarged(path: str, out: str) -> None:
  """The middle of the video at 1280 x 720."""
  with video_writer.VideoWriter(out, video.frame_rate(path)) as writer:
    for frame in video.frames_at_rate(path, float(video.frame_rate(path))):
      scale = max(1280 / frame.shape[1], 720 / frame.shape[0])
      frame = cv2.resize(frame, None, fx=scale, fy=scale)
      top, left = (frame.shape[0] - 720) // 2, (frame.shape[1] - 1280) // 2
      writer.write(frame[top : top + 720, left : left + 1280])


def main(argv):
  """Prints the shares."""
  del argv
  _one_after_the_other()
  config = gan_lrs2.get_config(_SIZE.value).to_dict()
  config["preparation"] = {
    "detector": "mtcnn",
    "audio_padding": "reflect",
    "crop_rule": faces.CROP_RULE,
    "tracking": {},
  }
  shapes = inference.model_inputs(config)
  variables = jax.jit(inference.make_model(config).init)(
    jax.random.key(0), *(np.zeros(x.shape, x.dtype) for x in shapes)
  )
  syncer = lip_syncer.LipSyncer(variables, config)
  syncer.generator(False).compile(variables)
  inference.FaceGenerator.compile = lambda *_: None
  with tempfile.TemporaryDirectory() as folder:
    large = os.path.join(folder, "large.mp4")
    _enlarged(_FACE.value, large)
    for path in (_FACE.value, large):
      for _ in syncer.frames(path, (np.zeros(640, np.float32), 16_000)):
        pass  # What is done once.
      summary = syncer.write(
        path,
        _AUDIO.value,
        os.path.join(folder, "out.mp4"),
        preset=_PRESET.value,
      )
      total = sum(summary.stage_seconds.values())
      height, width = next(video.decode_frames(path))[2].shape[:2]
      print(
        f"{width} x {height}: {total / summary.frames * 1e3:.1f} CPU ms a "
        f"frame, {summary.frames} frames"
      )
      for stage, seconds in summary.stage_seconds.items():
        print(
          f"  {stage:10s} {seconds / summary.frames * 1e3:6.1f} ms "
          f"{seconds / total:6.1%}"
        )


if __name__ == "__main__":
  app.run(main)
