"""How windows are laid out for the networks, against loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from w2l_jax import network_inputs


def test_expert_faces_are_frame_major():
  rng = np.random.default_rng(0)
  frames = rng.uniform(size=(2, 5, 8, 8, 3)).astype(np.float32)
  got = np.asarray(network_inputs.expert_faces(jnp.asarray(frames)))
  assert got.shape == (2, 4, 8, 15)
  for t in range(5):
    for c in range(3):
      np.testing.assert_array_equal(got[..., 3 * t + c], frames[:, t, 4:, :, c])


def test_generator_faces_are_masked_target_then_reference():
  rng = np.random.default_rng(0)
  target, reference = rng.uniform(0.1, 1, (2, 3, 8, 8, 3)).astype(np.float32)
  got = np.asarray(
    network_inputs.generator_faces(jnp.asarray(target), reference)
  )
  np.testing.assert_array_equal(got[:, :4, :, :3], target[:, :4])
  assert np.all(got[:, 4:, :, :3] == 0)
  np.testing.assert_array_equal(got[..., 3:], reference)


def test_mel_image():
  mel = np.arange(2 * 16 * 80, dtype=np.float32).reshape(2, 16, 80)
  got = np.asarray(network_inputs.mel_image(mel))
  assert got.shape == (2, 80, 16, 1)
  assert got[1, 7, 3, 0] == mel[1, 3, 7]


def test_fold_time_is_batch_major():
  x = np.arange(6).reshape(2, 3, 1)
  np.testing.assert_array_equal(
    np.ravel(network_inputs.fold_time(x)), [0, 1, 2, 3, 4, 5]
  )


def test_to_float():
  np.testing.assert_allclose(
    network_inputs.to_float(jnp.array([0, 51, 255], jnp.uint8)), [0, 0.2, 1]
  )


def test_channel_order():
  """Pictures are BGR; what the networks take and give may be RGB."""
  pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
  floats = network_inputs.to_float(jnp.asarray(pictures), "rgb")
  np.testing.assert_allclose(floats, pictures[..., ::-1] / 255, rtol=1e-6)
  # What is float is already what the networks take.
  assert network_inputs.to_float(floats, "rgb") is floats
  for order in ("bgr", "rgb"):
    there = network_inputs.to_float(jnp.asarray(pictures), order)
    np.testing.assert_array_equal(
      network_inputs.to_pictures(there, order), pictures
    )
  with pytest.raises(ValueError, match="'gbr', expected one of"):
    network_inputs.to_float(floats, "gbr")


def test_pictures_are_rounded_and_clipped():
  values = jnp.array([[[-0.1, 0.4 / 255, 0.6 / 255], [1.1, 1.0, 0.5]]])
  np.testing.assert_array_equal(
    network_inputs.to_pictures(values), [[[0, 0, 1], [255, 255, 128]]]
  )
