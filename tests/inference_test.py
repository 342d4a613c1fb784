"""A trained generator at use: mel windows, batches, references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2l_jax import inference


@pytest.mark.parametrize("fps", [25, 29.97, 30, 50])
@pytest.mark.parametrize("offset", [0, -1, -2])
def test_frame_mels(fps, offset):
  """Against one frame at a time, silence wherever there is no column."""
  mel = np.random.default_rng(0).normal(size=(97, 80)).astype(np.float32)
  got = inference.frame_mels(mel, 60, fps, 16, offset)
  assert got.shape == (60, 16, 80)
  for f in range(60):
    # The window begins offset / 25 s after the frame does.
    start = int(np.floor(80 * (f / fps + offset / 25) + 1e-9))
    for k in range(16):
      column = start + k
      inside = 0 <= column < len(mel)
      expected = mel[column] if inside else np.full(80, -4.0)
      np.testing.assert_array_equal(got[f, k], expected)


def test_frame_mels_are_trainings():
  """At 25 frames a second, the windows that training takes."""
  from w2l_jax import windows

  mel = np.random.default_rng(0).normal(size=(200, 80)).astype(np.float32)
  at_use = inference.frame_mels(mel, 40, 25.0, 16, -1)
  in_training = windows.frame_mel_windows(mel, 7, 5, 16, -1)
  np.testing.assert_array_equal(at_use[7:12], in_training)


@pytest.mark.parametrize(
  ("seconds", "frames"), [(1, 22), (2, 47), (5, 122), (10, 247)]
)
def test_the_originals_frame_count(seconds, frames):
  """Its loop over windows, written out; and numbers known of it."""
  columns = 1 + seconds * 80
  for fps in (25, 29.97, 30, 50):
    count = 0
    while int(count * 80 / fps) + 16 <= columns:
      count += 1
    count += 1
    assert inference.original_frame_count(columns, fps, 16, 0) == count
  assert inference.original_frame_count(columns, 25, 16, 0) == frames


def test_rgb_networks_draw_the_same_pictures(gan_run):
  """With their colours' weights in the other order."""
  variables, config = inference.load_generator(gan_run[0])
  rng = np.random.default_rng(0)
  size = config["image_size"]
  crops = rng.integers(0, 256, (3, size, size, 3), np.uint8)
  mels = rng.normal(size=(3, 16, 80)).astype(np.float32)
  expected = inference.FaceGenerator(config, 3)(variables, crops, mels)
  params = jax.tree.map(jnp.asarray, variables["params"])
  first = params["face_encoder_blocks_0_0"]["conv"]
  first["kernel"] = first["kernel"][:, :, jnp.array([2, 1, 0, 5, 4, 3])]
  last = params["output_block_1"]
  last |= {"kernel": last["kernel"][..., ::-1], "bias": last["bias"][::-1]}
  found = inference.FaceGenerator({**config, "channel_order": "rgb"}, 3)(
    {**variables, "params": params}, crops, mels
  )
  # Sums in another order: a number at the border may round the other way.
  difference = np.abs(np.int16(found) - expected)
  assert difference.max() <= 1 and difference.mean() < 0.01


@pytest.mark.parametrize("size", [1, 7, 20, 33])
def test_batching_does_not_matter(gan_run, size):
  variables, config = inference.load_generator(gan_run[0])
  rng = np.random.default_rng(0)
  crops = rng.integers(0, 255, (20, 24, 24, 3), dtype=np.uint8)
  mels = rng.normal(size=(20, 16, 80)).astype(np.float32)
  whole = inference.FaceGenerator(config, 20)(variables, crops, mels)
  parts = inference.FaceGenerator(config, size)(variables, crops, mels)
  assert parts.shape == (20, 24, 24, 3)
  assert np.abs(np.int16(parts) - whole).max() <= 1


def test_one_reference_for_all(gan_run):
  """The networks' own answer to that pair of faces, frame by frame."""
  variables, config = inference.load_generator(gan_run[0])
  rng = np.random.default_rng(0)
  crops = rng.integers(0, 256, (5, 24, 24, 3), np.uint8)
  mel = rng.normal(size=(40, 80)).astype(np.float32)
  generator = inference.FaceGenerator(config, 2)
  model = inference.make_model(config)
  spec = config["windows"]
  found = {}
  for word in ("own", "first"):
    chosen = {**config, "inference": {"reference": word}}
    taken, found[word] = inference.lipsync_crops(
      generator, variables, chosen, crops, mel, 7
    )
    np.testing.assert_array_equal(taken, crops[[0, 1, 2, 3, 4, 0, 1]])
    references = taken if word == "own" else np.stack([crops[0]] * 7)
    faces = np.concatenate([taken, references], axis=-1) / np.float32(255)
    faces[:, 12:, :, :3] = 0
    mels = inference.frame_mels(
      mel, 7, 25, spec["mel_columns"], spec["inference_mel_offset"]
    )
    expected = model.apply(variables, mels.swapaxes(1, 2)[..., None], faces)
    expected = np.floor(np.asarray(expected) * 255)
    assert np.abs(found[word] - expected).max() <= 1
  assert np.abs(np.int16(found["own"]) - found["first"])[1:].max() > 1


def test_drawing_in_parts_changes_nothing(gan_run):
  """On a CPU, 16 frames are drawn 8 at a time."""
  variables, config = inference.load_generator(gan_run[0])
  model = inference.make_model(config)
  rng = np.random.default_rng(0)
  mels, faces = (
    rng.uniform(size=(16, *x.shape[1:])).astype(np.float32)
    for x in inference.model_inputs(config)
  )
  drawn = jax.jit(lambda *args: inference.draw(model, *args))(
    variables, mels, faces
  )
  whole = jax.jit(model.apply)(variables, mels, faces)
  np.testing.assert_allclose(drawn, whole, atol=1e-6)
