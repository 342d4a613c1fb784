r"""Prepares a folder of talking videos for training.

  python -m launch.prepare_data --input=VIDEOS --output=DATA_DIR

Every file below VIDEOS is tried, and every folder of crops that Wav2Lip's
preprocess.py left; what cannot be used is set aside with its reason in
DATA_DIR/report.json.  Splits come from lists (--splits=FOLDER with train.txt,
val.txt, test.txt, one path without suffix a line: LRS2's lists, or Wav2Lip's
filelists) or from a stable hash of the path.  Interrupted and run again, it
goes on where it was.
"""

import collections
import os
import sys

from absl import app, flags, logging

from data_prep import clips, prepare
from w2l_jax import audio, dataset, detectors, faces

_INPUT = flags.DEFINE_string("input", None, "Folder of videos.", required=True)
_OUTPUT = flags.DEFINE_string(
  "output", None, "Folder of the prepared data set.", required=True
)
_SPLITS = flags.DEFINE_string(
  "splits", None, "Folder of train.txt, val.txt and test.txt; unset: by hash."
)
_VAL = flags.DEFINE_float(
  "val_fraction", 0.05, "Share of clips in val, by hash.", 0.0, 1.0
)
_TEST = flags.DEFINE_float(
  "test_fraction", 0.05, "Share of clips in test, by hash.", 0.0, 1.0
)
_SIZE = flags.DEFINE_integer(
  "image_size", 96, "Side of the face crops, pixels.", lower_bound=24
)
_DETECTOR = flags.DEFINE_string(
  "detector",
  "mtcnn",
  f"Face detector: {', '.join(sorted(detectors.DETECTORS))}, yunet:FILE with "
  "YuNet's ONNX file, or boxes:FOLDER with a CSV file of boxes for each clip.",
)
_FACES = flags.DEFINE_enum(
  "faces",
  "largest",
  ["largest", "all"],
  "Which of several faces at the same time.  With all, filter the set by "
  "launch.filter_sync afterwards: most are not who speaks.",
)
_CROP_RULE = flags.DEFINE_string(
  "crop_rule",
  faces.CROP_RULE,
  "What is cut out: box, as detected (the original's), or margin:0.2, with 0.2 "
  "of its width and height added on each side.",
)
_PADDING = flags.DEFINE_enum(
  "audio_padding",
  "reflect",
  audio.PADDINGS,
  "How the spectrogram's ends are padded; reflect is the original's.",
)
_WORKERS = flags.DEFINE_integer(
  "workers", os.cpu_count(), "Processes.", lower_bound=1
)
_TIMEOUT = flags.DEFINE_float(
  "clip_timeout",
  120.0,
  "Seconds that a clip may take, and one more for every 100 kB of its file, "
  "before it is set aside.",
  lower_bound=0.0,
)
_BEAM = flags.DEFINE_multi_string(
  "beam",
  None,
  "A flag of Apache Beam, as --beam=--runner=DirectRunner; may be repeated. "
  "Then a Beam runner makes and packs the clips; its workers must see "
  "both folders under the same paths.",
)


def main(argv):
  """Prepares, then prints what was kept and what was set aside."""
  logging.set_verbosity(logging.ERROR)  # TFDS tells every step it takes.
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  try:
    faces.check_crop_rule(_CROP_RULE.value)
  except ValueError as e:
    sys.exit(f"error: --crop_rule: {e}")
  try:
    report = prepare.prepare(
      _INPUT.value,
      _OUTPUT.value,
      clips.Settings(
        image_size=_SIZE.value,
        detector=_DETECTOR.value,
        keep_faces=_FACES.value,
        crop_rule=_CROP_RULE.value,
        audio_padding=_PADDING.value,
      ),
      splits_folder=_SPLITS.value,
      val_fraction=_VAL.value,
      test_fraction=_TEST.value,
      workers=_WORKERS.value,
      clip_timeout=_TIMEOUT.value,
      beam_options=_BEAM.value,
    )
  except KeyboardInterrupt:
    sys.exit("\ninterrupted: the same command goes on where it was")
  except (prepare.PrepareError, dataset.DatasetError) as e:
    sys.exit(f"error: {e}")
  by_reason = collections.defaultdict(list)
  for file, reason in sorted(report.set_aside.items()):
    by_reason[reason].append(file)
  for reason, files in by_reason.items():
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    print(f"set aside: {', '.join(files[:3])}{more}: {reason}")
  if report.not_listed:
    print(
      f"{len(report.not_listed)} clips are in no split list and were not tried"
    )
  if report.not_found:
    print(f"{len(report.not_found)} entries of the split lists have no video")
  if report.made:
    print(
      f"made {report.made} clip(s), {report.frames} frames in "
      f"{report.seconds:.0f} s: {report.frames / report.seconds:.0f} frames/s"
    )
    total = sum(report.stages.values())
    stages = sorted(report.stages.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {s / total:.0%}" for name, s in stages)
    print(f"of the processes' time: {shares}")
  counts = ", ".join(f"{split} {n}" for split, n in report.records.items())
  for split in dataset.SPLITS:
    if not report.records.get(split):
      print(
        f"note: {split} is empty: name clips for it in --splits, or change "
        "--val_fraction and --test_fraction, before you train"
      )
  print(
    f"kept {report.kept} clip(s) ({report.reused} from earlier "
    f"runs), set aside {len(report.set_aside)}; records: {counts}\n"
    f"report: {os.path.join(_OUTPUT.value, 'report.json')}"
  )


if __name__ == "__main__":
  app.run(main)
