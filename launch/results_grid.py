r"""Trains and measures all recipes for GRID's speaker 1, and compares them.

  python -m launch.results_grid --videos=GRID --splits=GRID/splits \
    --workdir=runs/results

Prepares, trains the independent judge, the experts and the generators, and
evaluates them on the test clips; then writes WORKDIR/RESULTS.md and pictures.
Interrupted, it goes on where it was; what is done is not done again.  Full
width on an accelerator; on a CPU alone, a quarter of it (--size).

--ablations trains the improved recipe without one of its parts at a time, a
third of the steps each, measures them on validation clips by the judge, and
writes WORKDIR/ABLATIONS.md.
"""

from absl import app, flags, logging

from launch import flag_parsing, grid_recipes

_VIDEOS = flags.DEFINE_string(
  "videos", None, "Folder that holds GRID's s1/ of videos.", required=True
)
_SPLITS = flags.DEFINE_string(
  "splits", None, "Folder of train.txt, val.txt and test.txt.", required=True
)
_OTHERS = flags.DEFINE_string(
  "others", None, "Folder of videos of other people, for a table of their own."
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/results", "Folder.")
_SIZE = flags.DEFINE_enum("size", None, ["full", "small"], "Of the networks.")
_CLIPS = flags.DEFINE_integer(
  "clips",
  None,
  "Of each evaluation; unset: 50, of ablations 16.",
  lower_bound=1,
)
_ONLY = flags.DEFINE_list(
  "only", None, "Names of runs, whose experts come along; unset: all."
)
_ABLATIONS = flags.DEFINE_bool(
  "ablations", False, "These in place of the runs."
)


def main(argv):
  """Does what is left to do, and says where the tables are."""
  logging.set_verbosity(logging.WARNING)
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  choices = {"size": _SIZE.value, "only": _ONLY.value}
  if _CLIPS.value:
    choices["clips"] = _CLIPS.value
  where = (_WORKDIR.value, _VIDEOS.value, _SPLITS.value)
  if _ABLATIONS.value:
    path = grid_recipes.ablate(*where, **choices)
  else:
    path = grid_recipes.run(*where, others=_OTHERS.value, **choices)
  print(f"written: {path}")


if __name__ == "__main__":
  app.run(main, flags_parser=flag_parsing.parse)
