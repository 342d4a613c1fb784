r"""Makes the face in a video or photo say the speech of any other file.

  python -m launch.lipsync --checkpoint=runs/gan --face=FACE.mp4 \
    --audio=SPEECH.wav --outfile=OUT.mp4

A thin layer over w2l_jax.LipSyncer.
"""

import signal
import sys

from absl import app, flags, logging

from w2l_jax import (
  checkpoints,
  detectors,
  lip_sync_options,
  lip_syncer,
  sources,
  video,
  video_writer,
)

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint",
  None,
  "Workdir of a trained generator (its newest checkpoint; WORKDIR/best: its "
  "best), a step folder in its checkpoints/, a file of weights (.safetensors, "
  ".pth), or a name: grid-small.",
  required=True,
)
_FACE = flags.DEFINE_string("face", None, "Video or photo.", required=True)
_AUDIO = flags.DEFINE_string(
  "audio", None, "Any file with sound.", required=True
)
_OUTFILE = flags.DEFINE_string(
  "outfile", None, "Video to write: .mp4, .mkv or .mov.", required=True
)
# Lists of four whole numbers, as the original has them but for the commas.
_LISTS = {
  "pads": flags.DEFINE_list(
    "pads",
    None,
    "Pixels to add to the face's box: top,bottom,left,right; unset: 0,0,0,0 "
    "(with --compat 0,10,0,0, the original's).",
  ),
  "box": flags.DEFINE_list(
    "box",
    None,
    "A box for all frames in place of a detector: top,bottom,left,right.",
  ),
  "crop": flags.DEFINE_list(
    "crop",
    None,
    "Part of each frame to keep: top,bottom,left,right after --resize_factor "
    "and --rotate; -1 for bottom and right is the frame's.",
  ),
}
_RESIZE_FACTOR = flags.DEFINE_integer(
  "resize_factor", 1, "Divides the sides of the frames.", lower_bound=1
)
_ROTATE = flags.DEFINE_bool(
  "rotate",
  False,
  "Turn frames by 90 degrees clockwise. What phones write into the file is "
  "applied without it.",
)
_STATIC = flags.DEFINE_bool("static", False, "Take the first frame only.")
_FPS = flags.DEFINE_float(
  "fps", None, "Frames a second; unset: the video's own, 25 for a photo."
)
_SMOOTH = flags.DEFINE_bool("smooth", True, "Average boxes over time.")
_ALIGN_EYES = flags.DEFINE_bool(
  "align_eyes",
  False,
  "Turn faces so that the eyes are level for the network, and back; for heads "
  "held aslant.",
)
_DETECTOR = flags.DEFINE_string(
  "detector",
  None,
  f"Face detector: {', '.join(sorted(detectors.DETECTORS))}, yunet:FILE with "
  "an ONNX file of YuNet; unset: the one that made the training data.",
)
_FACES = flags.DEFINE_string(
  "faces",
  None,
  "Whose lips move: largest (the default), central, all, N (the N-th from the "
  "left), or a photo of the person.",
)
_OPTIONS = {
  name: flags.DEFINE_enum(name, None, lip_sync_options.CHOICES[name], text)
  for name, text in {
    "ending": "Frames for all of the speech, or those that the original "
    "writes; unset: the checkpoint's.",
    "loop": "What follows the end of a video that is shorter than the speech: "
    "its start, itself backwards, its last frame, or nothing; unset: the "
    "checkpoint's.",
    "rest": "The rest of a video that is longer than the speech: cut (the "
    "default) or played as it is.",
    "no_face": "Frames without a face: unchanged, drawn where the last face "
    "was for --hold_seconds, or an error; unset: the checkpoint's.",
    "paste": "Whether the lower half of the face is blended into the frame, or "
    "the whole face, or set in hard; unset: the checkpoint's.",
    "reference": "Whose looks a frame's face takes: its own, or the first's; "
    "unset: the checkpoint's.",
    "silence": "Pauses in the speech: heard as they are (the default), a "
    "closed mouth, or the frame's own mouth.",
  }.items()
}
_HOLD_SECONDS = flags.DEFINE_float(
  "hold_seconds", 0.5, "See --no_face.", lower_bound=0
)
_COMPAT = flags.DEFINE_bool(
  "compat", False, "The original's arithmetic, for comparisons."
)
_BATCH_SIZE = flags.DEFINE_integer(
  "batch_size", 16, "Faces generated at a time.", lower_bound=1
)
_EMA = flags.DEFINE_bool(
  "ema", False, "Use the moving average of the generator's params."
)
_CRF = flags.DEFINE_integer(
  "crf",
  18,
  "Quality of the H.264: 0 is best, 18 looks like the frames, 28 is small.",
  lower_bound=0,
  upper_bound=51,
)
_PRESET = flags.DEFINE_enum(
  "preset",
  "veryfast",
  video_writer.PRESETS,
  "x264's: slower ones make the file smaller or better.",
)
_LOSSLESS = flags.DEFINE_bool(
  "lossless", False, "Every pixel as made, in RGB; few players show it."
)
_METADATA = flags.DEFINE_bool(
  "metadata", True, "Write into the file that it is synthetic."
)
_PREVIEW = flags.DEFINE_string(
  "preview", None, "Picture to write: frames of the input above the result's."
)


def _is_number(text: str) -> bool:
  return text.strip().removeprefix("-").isdigit()


for _name, _example in (
  ("pads", "0,10,0,0"),
  ("box", "80,220,100,210"),
  ("crop", "0,-1,0,-1"),
):
  flags.register_validator(
    _name,
    lambda given: (
      given is None or (len(given) == 4 and all(map(_is_number, given)))
    ),
    f"expected four whole numbers: --{_name}={_example}",
  )


def _options() -> dict:
  """What the flags say of lip_sync_options.Options; the rest is left unset."""
  numbers = {
    name: tuple(int(x) for x in flag.value)
    for name, flag in _LISTS.items()
    if flag.value is not None
  }
  edit = sources.Edit(
    _RESIZE_FACTOR.value,
    _ROTATE.value,
    numbers.pop("crop", sources.Edit.crop),
  )
  words = {k: f.value for k, f in _OPTIONS.items() if f.value is not None}
  if _FACES.value is not None:
    words["faces"] = _FACES.value
  return (
    numbers
    | words
    | {
      "hold_seconds": _HOLD_SECONDS.value,
      "smooth": _SMOOTH.value,
      "align_eyes": _ALIGN_EYES.value,
      "detector": _DETECTOR.value,
      "fps": _FPS.value,
      "static": _STATIC.value,
      "edit": edit,
      "compat": _COMPAT.value,
    }
  )


def main(argv):
  """Lip-syncs one video and prints a summary."""
  logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step.
  if len(argv) > 1:
    raise app.UsageError(
      f"unexpected argument {argv[1]!r}; lists are written with commas: "
      "--pads=0,10,0,0; switches have no value: --static, --nosmooth"
    )
  # A cluster's or a user's kill cleans up as Ctrl-C does.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    syncer = lip_syncer.LipSyncer.from_checkpoint(
      _CHECKPOINT.value, ema=_EMA.value, batch_size=_BATCH_SIZE.value
    )
    summary = syncer.write(
      _FACE.value,
      _AUDIO.value,
      _OUTFILE.value,
      crf=_CRF.value,
      preset=_PRESET.value,
      lossless=_LOSSLESS.value,
      metadata=_METADATA.value,
      preview=_PREVIEW.value,
      progress=True,
      **_options(),
    )
  except (
    checkpoints.CheckpointError,
    sources.InferenceError,
    video.MediaError,
  ) as e:
    sys.exit(f"error: {e}")
  except KeyboardInterrupt:
    print(f"stopped; {_OUTFILE.value} was not written", file=sys.stderr)
    sys.exit(130)
  print(f"{_OUTFILE.value}: {summary.report()}")
  if summary.silent:
    print(f"note: {_AUDIO.value} is silent; the mouth stays as in silence")


if __name__ == "__main__":
  app.run(main)
