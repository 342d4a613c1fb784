r"""How launch.evaluate scores clips.

  python -m launch.evaluate --checkpoint=runs/gan --config.clips=50

After a colon: "faithful" scores as the published programs do (below); none
leaves out what is known to be wrong with them.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config(arg: str = "") -> ml_collections.ConfigDict:
  """Returns the protocol; `arg` is "" or "faithful".

  Raises:
    ValueError: if it is another word.
  """
  if arg not in ("", "faithful"):
    raise ValueError(
      f"the config argument is {arg!r}, expected 'faithful' or none"
    )
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.clips = 50  # or pairs, chosen by the seed; 0: all
  # A pair list; unset: random pairs by the seed, as the paper's rule has it.
  config.pairs = placeholder(str)
  config.pairs_order = "audio_video"  # lrs2.txt; ReSyncED's: "video_audio"
  # Shorter clips and face tracks are listed, not scored.
  config.min_frames = 20
  # Shifts at which a judge looks for the best, to either side.
  config.max_shift = 15
  # Features of zeros at the clip's ends, and one window fewer than there are.
  config.faithful = False
  # Least distance of the ROC's wrong pairs.
  config.roc_distance = 5
  # Weights that only measure, none of them included.  Unset: not measured.
  config.syncnet = placeholder(str)  # syncnet_v2.model
  config.lpips = placeholder(str)  # the lpips package's state_dict
  config.inception = placeholder(str)  # pt_inception-2015-12-05-6726825d.pth
  # What SyncNet sees of a video: its "tracked" faces with surroundings
  # (syncnet_python), or "whole" frames (the original's LRS scores).
  config.syncnet_pictures = "tracked"
  config.shown = 3  # clips in the report
  if arg == "faithful":
    config.faithful = True
    config.min_frames = 100  # run_pipeline.py's min_track
  return config
