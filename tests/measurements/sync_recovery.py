r"""How well an expert finds known offsets, and tells sound of other clips.

  python -m tests.measurements.sync_recovery --data_dir=data/grid \
    --checkpoint=runs/expert

Clips of the test split are laid beside their speech 10 frames early to 10
frames late, and beside the speech of every other test clip.  The least
confidence is chosen on the val split: nothing is fitted to what is judged.
"""

import collections
import itertools
import json

import numpy as np
from absl import app, flags

from data_prep import records, sync_filter
from w2l_jax import dataset, judges

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Set.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Expert.", required=True)
_CLIPS = flags.DEFINE_integer("clips", 50, "Clips of each split.")
_SHIFTS = range(-10, 11)


def moved(features, k):
  """The same clip with its pictures k frames late."""
  n = len(features.lips)
  lips, speech = max(0, -k), max(0, k)
  return judges.Features(
    features.lips[lips : n - speech],
    features.speech[speech : n - lips],
    features.has_speech[speech : n - lips],
  )


def main(argv):
  """Prints the figures."""
  del argv
  judge = sync_filter.load_judge(_CHECKPOINT.value)
  directory = dataset.builder_dir(_DATA_DIR.value, judge.picture_size)

  def features(split):
    for i in range(min(_CLIPS.value, len(split))):
      yield sync_filter.features_of(judge, split[i])

  val = list(features(dataset.Split(directory, "val")))
  test_split = dataset.Split(directory, "test")
  test = list(features(test_split))
  every = [sync_filter.measure(a, b) for a, b in itertools.permutations(val, 2)]
  thresholds = sync_filter.choose_confidence(
    sync_filter.Thresholds(), [sync for sync in every if sync]
  )
  print(f"chosen on val: {thresholds}")
  found = collections.defaultdict(list)
  kept = []
  for clip in test:
    for k in _SHIFTS:
      sync = sync_filter.measure(*[moved(clip, k)] * 2)
      found[k].append(sync.offset - k if sync else np.nan)
      kept.append(sync_filter.decide(sync, thresholds)[0] != "dropped")
  errors = np.array([found[k] for k in _SHIFTS])
  print("shift  exact  within 1")
  for k, row in zip(_SHIFTS, errors, strict=True):
    print(f"{k:+4d} {np.mean(row == 0):7.3f} {np.mean(abs(row) <= 1):9.3f}")
  print(
    f"{len(test)} clips, all shifts: exact {np.mean(errors == 0):.4f}, within "
    f"one frame {np.mean(abs(errors) <= 1):.4f}; kept or shifted back "
    f"{np.mean(kept):.4f}"
  )
  pairs = [
    sync_filter.decide(sync_filter.measure(a, b), thresholds)[0]
    for a, b in itertools.permutations(test, 2)
  ]
  print(
    f"{len(pairs)} pairs of pictures and another clip's speech: dropped "
    f"{np.mean([what == 'dropped' for what in pairs]):.4f}"
  )
  # Above, windows were moved; here records are cut and everything made anew.
  settings = dataset.preparation(directory)
  for i, k in ((0, 7), (1, -4)):
    record = records.from_example(test_split[i], settings)
    record = sync_filter.shift(record, -k, settings["audio_padding"])
    again = sync_filter.features_of(
      judge,
      {
        "frames": np.array(record.frames, object),
        "audio": record.audio,
        "mel": record.mel,
      },
    )
    sync = sync_filter.measure(again, again)
    print(json.dumps({"clip": i, "cut": k, "found": sync.offset}))


if __name__ == "__main__":
  app.run(main)
