"""Parts of a batch give the gradient of the whole."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from w2l_jax.accumulation import accumulated


def squares(params):
  """Mean of (x . params - y)^2, and a carry that counts parts."""

  def part_fn(carry, part):
    def loss_fn(p):
      return jnp.mean((part["x"] @ p - part["y"]) ** 2)

    loss, grad = jax.value_and_grad(loss_fn)(params)
    return carry + 1, {"loss": loss, "grad": grad}

  return part_fn


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_make_up_the_whole(parts):
  rng = np.random.default_rng(0)
  batch = {
    "x": jnp.asarray(rng.standard_normal((8, 3)), jnp.float32),
    "y": jnp.asarray(rng.standard_normal(8), jnp.float32),
  }
  part_fn = squares(jnp.arange(3.0))
  _, whole = part_fn(0, batch)
  carry, found = jax.jit(lambda b: accumulated(part_fn, 0, b, parts))(batch)
  assert carry == parts
  for key, value in whole.items():
    np.testing.assert_allclose(found[key], value, rtol=1e-6)


def test_accelerators_loop():
  """Where the program is for one, not where it is lowered; a CPU unrolls."""
  batch = {"x": jnp.zeros((8, 3)), "y": jnp.zeros(8)}
  step = jax.jit(lambda b: accumulated(squares(jnp.arange(3.0)), 0, b, 4))
  for platform in ("cpu", "cuda", "tpu"):
    text = jax.export.export(step, platforms=[platform])(batch).mlir_module()
    assert ("stablehlo.while" in text) == (platform != "cpu")


def test_groups_stay_together():
  rows = jnp.arange(12)
  seen = []

  def part_fn(carry, part):
    seen.append(part["rows"].shape)
    # Windows of one clip: each group of three is whole.
    groups = part["rows"].reshape(-1, 3)
    ok = jnp.all(groups == groups[:, :1] + jnp.arange(3)[None])
    return carry, ok.astype(jnp.float32)

  _, together = accumulated(part_fn, 0, {"rows": rows}, 2, group=3)
  assert together == 1.0
  assert set(seen) == {(6,)}


def test_what_does_not_divide_is_an_error():
  with pytest.raises(ValueError, match="batch_size 6 does not divide .* 4"):
    accumulated(lambda c, p: (c, 0), 0, {"x": jnp.zeros(6)}, 4)
  with pytest.raises(ValueError, match="times 3 windows of a clip"):
    accumulated(lambda c, p: (c, 0), 0, {"x": jnp.zeros(9)}, 2, group=3)
