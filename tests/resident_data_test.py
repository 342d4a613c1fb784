"""Windows gathered on the device are the loader's, bit for bit."""

import pickle
import types

import jax
import ml_collections
import numpy as np
import pytest
from conftest import (
  SETTINGS,
  STEPS,
  assert_trees_equal,
  expert_config,
  gan_config,
)

from w2l_jax import dataset, resident_data, train_expert, train_generator
from w2l_jax.dataset import DatasetError, Split
from w2l_jax.input_pipeline import make_batches
from w2l_jax.window_sampler import WindowSpec

BATCH = 6
SPECS = {
  "usual": WindowSpec(),
  "other": WindowSpec(frames=3, mel_columns=10, frame_mel_offset=0),
  "grouped": WindowSpec(windows_per_clip=3, min_negative_distance=2),
}


@pytest.fixture(scope="module")
def split(data_dir) -> Split:
  return Split(dataset.builder_dir(data_dir, SETTINGS.image_size), "train")


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("stage", ["expert", "generator"])
def test_batches_are_the_loaders(split, stage, name):
  spec = SPECS[name]
  config = ml_collections.ConfigDict(
    {"seed": 3, "data": {"batch_size": BATCH}, "train": {"num_steps": 5}}
  )
  data = resident_data.load(split, progress=False)
  gather = jax.jit(lambda rows, data: resident_data.gather(rows, data, spec))
  local_rows = np.array([1, 4, 5])
  found = list(
    resident_data.train_batches(split, spec, stage, config, local_rows)(2)
  )
  expected = list(
    make_batches(
      split,
      spec,
      stage,
      seed=3,
      batch_size=BATCH,
      first_step=2,
      last_step=5,
      local_rows=local_rows,
    )
  )
  assert len(found) == len(expected) == 3
  for rows, batch in zip(found, expected, strict=True):
    gathered = gather(rows, data)
    assert gathered.keys() == batch.keys()
    for key, value in batch.items():
      assert gathered[key].dtype == value.dtype
      np.testing.assert_array_equal(gathered[key], value, err_msg=key)


@pytest.mark.parametrize("room", [0.5, 10.0])
def test_kept_pictures_are_the_same(split, room):
  """With room for some clips, and for all of them."""
  data = resident_data.load(split, progress=False)
  whole = data["frames"].nbytes + data["mel"].nbytes
  kept = Split(split.directory, split.name, room * whole / 1e9)
  for _ in range(2):
    for i in range(len(split)):
      there, clip = split.clip(i), kept.clip(i)
      np.testing.assert_array_equal(clip.mel, there.mel)
      np.testing.assert_array_equal(
        clip.pictures(slice(2, 9)), there.pictures(slice(2, 9))
      )
  in_memory = sum(
    isinstance(kept.clip(i).frames, np.ndarray) for i in range(len(split))
  )
  assert 0 < in_memory < len(split) if room < 1 else in_memory == len(split)
  # Another process begins with an empty one of the same size.
  again = pickle.loads(pickle.dumps(kept))
  assert again._kept == {}
  assert abs(again._room - room * whole) <= 1


def test_a_run_with_its_data_on_the_device_is_the_same_run(
  expert_run, data_dir, tmp_path
):
  config = expert_config(data_dir)
  config.data.on_device = True
  state = train_expert.train_and_evaluate(config, str(tmp_path))
  assert_trees_equal(state, expert_run[1])


def test_stage_2_too(gan_run, expert_run, data_dir, tmp_path):
  config = gan_config(data_dir, expert_run[0], STEPS)
  config.data.on_device = True
  state = train_generator.train_and_evaluate(config, str(tmp_path))
  assert_trees_equal(state, gan_run[1])


def test_a_set_too_large_for_the_device_is_named(split, monkeypatch):
  data = resident_data.load(split, progress=False)
  limit = data["frames"].nbytes + data["mel"].nbytes
  device = types.SimpleNamespace(
    memory_stats=lambda: {"bytes_limit": limit, "bytes_in_use": 0}
  )
  monkeypatch.setattr(jax, "local_devices", lambda: [device])
  with pytest.raises(DatasetError, match="on_device at False"):
    resident_data.load(split)
