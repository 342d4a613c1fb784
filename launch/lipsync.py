r"""Makes the face in a video or photo say the speech of any other file.

  python -m launch.lipsync --checkpoint=runs/gan --face=FACE.mp4 \
    --audio=SPEECH.wav --outfile=OUT.mp4
"""

import os
import sys

from absl import app, flags, logging

from w2l_jax import checkpoints, detectors, inference, video

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint",
  None,
  "Workdir of a trained generator (its newest checkpoint; WORKDIR/best: its "
  "best), a step folder in its checkpoints/, or a file of weights: "
  ".safetensors, .pth.",
  required=True,
)
_FACE = flags.DEFINE_string("face", None, "Video or photo.", required=True)
_AUDIO = flags.DEFINE_string(
  "audio", None, "Any file with sound.", required=True
)
_OUTFILE = flags.DEFINE_string(
  "outfile", None, "Video to write: .mp4, .mkv or .mov.", required=True
)
_PADS = flags.DEFINE_list(
  "pads",
  ["0", "0", "0", "0"],
  "Pixels to add to the face's box: top,bottom,left,right. The original's "
  "default is 0,10,0,0.",
)
_DETECTOR = flags.DEFINE_enum(
  "detector",
  None,
  sorted(detectors.DETECTORS),
  "Face detector; unset: the one that the training data were made with.",
)
_OPTIONS = {
  name: flags.DEFINE_enum(
    name, None, inference.CHOICES[name], f"{text}; unset: the checkpoint's."
  )
  for name, text in {
    "ending": "Frames for all of the speech, or those that the original writes",
    "loop": "How a video is prolonged that is shorter than the speech",
    "no_face": "Frames without a face: unchanged, drawn where the last face "
    "was, or an error",
    "paste": "Whether the face is blended into the frame at its border",
    "reference": "Whose looks a frame's face takes: its own, or the first's",
  }.items()
}
_BATCH_SIZE = flags.DEFINE_integer(
  "batch_size", 16, "Frames generated at a time.", lower_bound=1
)

_EMA = flags.DEFINE_bool(
  "ema", False, "Use the moving average of the generator's params."
)


@flags.validator("pads", "expected four whole numbers: --pads=0,10,0,0")
def _check_pads(pads):
  return len(pads) == 4 and all(p.strip().lstrip("-").isdigit() for p in pads)


def main(argv):
  """Lip-syncs one video and prints a summary."""
  logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step.
  if len(argv) > 1:
    raise app.UsageError(
      f"unexpected argument {argv[1]!r}; lists are written with commas: "
      "--pads=0,10,0,0"
    )
  folder = os.path.dirname(os.path.abspath(_OUTFILE.value))
  if not os.path.isdir(folder):
    sys.exit(f"error: {_OUTFILE.value}: there is no folder {folder}")
  try:
    summary = inference.lipsync(
      _CHECKPOINT.value,
      _FACE.value,
      _AUDIO.value,
      _OUTFILE.value,
      pads=tuple(int(p) for p in _PADS.value),
      detector=_DETECTOR.value,
      batch_size=_BATCH_SIZE.value,
      ema=_EMA.value,
      **{k: f.value for k, f in _OPTIONS.items() if f.value is not None},
    )
  except (
    checkpoints.CheckpointError,
    inference.InferenceError,
    video.MediaError,
  ) as e:
    sys.exit(f"error: {e}")
  print(
    f"{_OUTFILE.value}: {summary.frames} frames, {summary.seconds:.2f} s; a "
    f"face was drawn in {summary.with_face} of them"
  )
  if summary.silent:
    print(f"note: {_AUDIO.value} is silent; the mouth stays as in silence")


if __name__ == "__main__":
  app.run(main)
