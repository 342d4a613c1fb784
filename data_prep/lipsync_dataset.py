"""The TFDS builder that packs prepared clips into ArrayRecord shards.

It runs without TensorFlow (only Tensor, Text and Sequence features, which TFDS
encodes by itself); what it writes is read by
`tfds.builder_from_directory(...).as_data_source()` and by Grain.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from data_prep import records
from data_prep.settings import Settings

NAME = "lipsync_dataset"


@dataclasses.dataclass(kw_only=True)
class LipsyncConfig(tfds.core.BuilderConfig):
  """What to pack.

  Attributes:
    splits: for each split, the paths of its prepared clips.
    settings: how the clips were made.
    beam: whether a Beam pipeline packs them.
  """

  splits: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  settings: Settings = dataclasses.field(default_factory=Settings)
  beam: bool = False


class LipsyncDataset(tfds.core.GeneratorBasedBuilder):
  """Face crops and the speech that belongs to them, one face track a record."""

  VERSION = tfds.core.Version("1.0.0")
  name = NAME

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description="Square face crops at 25 frames a second and the log-mel "
      "spectrogram of their speech, prepared by w2l_jax.",
      features=tfds.features.FeaturesDict(
        {
          "id": tfds.features.Text(),
          # JPEG bytes, each frame by itself; Text holds raw bytes.
          "frames": tfds.features.Sequence(tfds.features.Text()),
          "mel": tfds.features.Tensor(shape=(None, 80), dtype=np.float32),
          "audio": tfds.features.Text(),  # FLAC bytes
          "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
          "fps": tfds.features.Scalar(dtype=np.float32),
          "source": {
            "file": tfds.features.Text(),
            "start": tfds.features.Scalar(dtype=np.float32),
            "sha256": tfds.features.Text(),
          },
          "speaker": tfds.features.Text(),
          "crop_rule": tfds.features.Text(),
          "detector": tfds.features.Text(),
          "confidence": tfds.features.Scalar(dtype=np.float32),
          "sharpness": tfds.features.Scalar(dtype=np.float32),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {
      split: self._generate_examples(paths)
      for split, paths in self.builder_config.splits.items()
    }

  def _generate_examples(self, paths):
    if not self.builder_config.beam:
      return itertools.chain.from_iterable(map(examples, paths))
    import apache_beam as beam

    # Reshuffled: a runner may otherwise keep all of them on one worker.
    return beam.Create(paths) | beam.Reshuffle() | beam.FlatMap(examples)


def examples(path: str) -> Iterator[tuple[str, dict]]:
  """Yields the keys and examples of one prepared clip."""
  for i, record in enumerate(records.load_records(path)):
    settings = json.loads(record.settings)
    yield (
      # TFDS wants unique keys: a second record `a_1` and a video may share
      # their id, and no video's id holds a double slash.
      f"{record.id}//{i}" if i else record.id,
      {
        "id": record.id,
        "frames": record.frames,
        "mel": record.mel,
        "audio": record.audio,
        "boxes": record.boxes,
        "fps": 25.0,
        "source": {
          "file": record.file,
          "start": record.start,
          "sha256": record.sha256,
        },
        "speaker": record.speaker,
        "crop_rule": settings["crop_rule"],
        "detector": settings["detector"],
        "confidence": record.confidence,
        "sharpness": record.sharpness,
      },
    )
