r"""Keeps a data set's records that are in sync, and shifts those that can be.

  python -m launch.filter_sync --data_dir=data/mine --checkpoint=runs/expert \
    --output=data/mine_synced

The expert lays each record's speech beside its faces at every offset of up to
15 frames.  The best is the offset; how far it stands out is the confidence.
Records whose confidence could as well be that of another record's sound are
dropped; offsets are undone.  OUTPUT/sync.json has every record's figures.
"""

import os
import sys

from absl import app, flags, logging

from data_prep import prepare, sync_filter, synced_set
from w2l_jax import checkpoints, dataset

_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Prepared data set.", required=True
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", None, "Expert: a workdir or a step folder.", required=True
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "Folder of the new data set.", required=True
)
_KEEP_WITHIN = flags.DEFINE_integer(
  "keep_within", 1, "Offsets of up to so many frames stay.", lower_bound=0
)
_MAX_OFFSET = flags.DEFINE_integer(
  "max_offset",
  10,
  "Records of a greater offset, in frames, are dropped.",
  lower_bound=0,
  upper_bound=sync_filter.MAX_SHIFT,
)
_MISMATCHED = flags.DEFINE_float(
  "max_mismatched",
  0.01,
  "Share of records with another one's sound that may pass.",
  lower_bound=0.0,
  upper_bound=1.0,
)
_MIN_CONFIDENCE = flags.DEFINE_float(
  "min_confidence", None, "Least confidence; unset: by --max_mismatched."
)


def main(argv):
  """Filters, then prints the table of offsets."""
  logging.set_verbosity(logging.ERROR)  # TFDS tells every step it takes.
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  try:
    report = synced_set.filter_set(
      _DATA_DIR.value,
      _OUTPUT.value,
      _CHECKPOINT.value,
      sync_filter.Thresholds(
        keep_within=_KEEP_WITHIN.value,
        max_offset=_MAX_OFFSET.value,
        max_mismatched=_MISMATCHED.value,
        min_confidence=_MIN_CONFIDENCE.value,
      ),
    )
  except KeyboardInterrupt:
    sys.exit("\ninterrupted: the set that was there before is as it was")
  except (
    checkpoints.CheckpointError,
    dataset.DatasetError,
    prepare.PrepareError,
    ValueError,
  ) as e:
    sys.exit(f"error: {e}")
  print(synced_set.table(report))
  for reason, count in sorted(report["reasons"].items()):
    print(f"{count:6d}  {reason}")
  print(
    f"min_confidence {report['thresholds']['min_confidence']:.3f}; figures of "
    f"every record: {os.path.join(_OUTPUT.value, synced_set.REPORT_FILE)}"
  )


if __name__ == "__main__":
  app.run(main)
