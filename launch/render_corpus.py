r"""Renders a corpus of synthetic talking faces as ordinary mp4 files.

  python -m launch.render_corpus --output=CORPUS --identities=24,3,4 --clips=5
  python -m launch.prepare_data --input=CORPUS/videos \
    --splits=CORPUS/splits --output=DATA_DIR

Beside the videos it keeps the true mouth shape of every frame.  Needs the
speech synthesiser of the extra "demo".  Run again, it renders what is missing.
"""

import os
import sys

from absl import app, flags

from data_prep import rendered_corpus, speech_synthesis

_OUTPUT = flags.DEFINE_string("output", None, "Folder.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "The same seed, the same corpus.")
_IDENTITIES = flags.DEFINE_list(
  "identities", ["24", "3", "4"], "Faces in train,val,test."
)
_CLIPS = flags.DEFINE_integer("clips", 5, "Clips of each face.", lower_bound=1)
_WORKERS = flags.DEFINE_integer(
  "workers", os.cpu_count(), "Processes.", lower_bound=1
)


@flags.validator("identities", "expected three whole numbers: 24,3,4")
def _check_identities(values):
  return len(values) == 3 and all(v.strip().isdigit() for v in values)


def main(argv):
  """Renders."""
  if len(argv) > 1:
    raise app.UsageError(
      f"unexpected argument {argv[1]!r}; lists are written with commas: "
      "--identities=24,3,4"
    )
  spec = rendered_corpus.CorpusSpec(
    _SEED.value, tuple(map(int, _IDENTITIES.value)), _CLIPS.value
  )
  try:
    clips = rendered_corpus.render(spec, _OUTPUT.value, _WORKERS.value)
  except (speech_synthesis.SynthesisError, OSError, ValueError) as e:
    sys.exit(f"error: {e}")
  print(f"{_OUTPUT.value}: {len(clips)} clips")


if __name__ == "__main__":
  app.run(main)
