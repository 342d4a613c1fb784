"""Convolutions and their gradients, against sums written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2l_jax.models import convolution, winograd

# Height, width, kernel, strides, padding: those of the networks and odd ones.
SETTINGS = {
  "3x3": (12, 13, (3, 3), (1, 1), ((1, 1), (1, 1))),
  "stem": (19, 17, (7, 7), (1, 1), ((3, 3), (3, 3))),
  "halving": (24, 24, (3, 3), (2, 2), ((1, 1), (1, 1))),
  "5x5": (14, 12, (5, 5), (1, 1), ((2, 2), (2, 2))),
  "lips": (20, 24, (5, 5), (1, 2), ((1, 1), (1, 1))),
  "speech": (26, 31, (3, 3), (3, 1), ((1, 1), (1, 1))),
  "speech's last": (27, 25, (3, 3), (3, 2), ((1, 1), (1, 1))),
  "1x1": (9, 10, (1, 1), (1, 1), ((0, 0), (0, 0))),
  "steps over pixels": (33, 35, (1, 2), (3, 4), ((0, 0), (0, 0))),
  "one side": (40, 41, (2, 4), (3, 3), ((0, 1), (2, 0))),
  "small map": (3, 3, (3, 3), (1, 1), ((1, 1), (1, 1))),
  "smallest map": (2, 2, (3, 3), (1, 1), ((1, 1), (1, 1))),
}


def brute_force(x, kernel, y_grad, strides, padding):
  """Returns the convolution and both gradients of sum(y * y_grad)."""
  (h, w), (row, column) = kernel.shape[:2], strides
  padded = np.pad(x, ((0, 0), *padding, (0, 0)))
  y = np.zeros(y_grad.shape)
  padded_grad, kernel_grad = np.zeros(padded.shape), np.zeros(kernel.shape)
  for i in range(y.shape[1]):
    for j in range(y.shape[2]):
      here = np.s_[:, i * row : i * row + h, j * column : j * column + w]
      y[:, i, j] = np.einsum("nhwc,hwcd->nd", padded[here], kernel)
      kernel_grad += np.einsum("nhwc,nd->hwcd", padded[here], y_grad[:, i, j])
      padded_grad[here] += np.einsum("hwcd,nd->nhwc", kernel, y_grad[:, i, j])
  (top, _), (left, _) = padding
  x_grad = padded_grad[:, top:, left:][:, : x.shape[1], : x.shape[2]]
  return y, x_grad, kernel_grad


@pytest.mark.parametrize("channels", [(3, 4), (5, 4), (32, 33)])
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("setting", SETTINGS)
def test_value_and_gradients(setting, devices, channels, monkeypatch):
  """Some images at a time as on one device, and all at once as on several.

  From 32 channels on, a CPU takes tiles, products and phases; odd numbers are
  filled up.
  """
  monkeypatch.setattr(jax, "device_count", lambda: devices)
  # One, two or four images, by the setting.
  monkeypatch.setattr(convolution, "_OPERAND_BYTES", 40_000)
  monkeypatch.setattr(convolution, "_RESULT_BYTES", 400_000)
  height, width, size, strides, padding = SETTINGS[setting]
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, height, width, channels[0]))
  kernel = rng.normal(size=(*size, *channels))
  shape = jax.eval_shape(
    lambda: convolution.conv2d(
      jnp.asarray(x), jnp.asarray(kernel), strides, padding
    )
  ).shape
  y_grad = rng.normal(size=shape)
  y, vjp = jax.vjp(
    lambda x, k: convolution.conv2d(x, k, strides, padding),
    jnp.asarray(x, jnp.float32),
    jnp.asarray(kernel, jnp.float32),
  )
  found = (y, *vjp(jnp.asarray(y_grad, jnp.float32)))
  # Tiles of six points round more: 5x5, and the gradient by a 3x3 kernel.
  tiled = {"5x5": (True,) * 3, "3x3": (False, False, True)}
  six_points = tiled.get(setting) if (channels[0], devices) == (32, 1) else None
  for a, b, more in zip(
    found,
    brute_force(x, kernel, y_grad, strides, padding),
    six_points or (False,) * 3,
    strict=True,
  ):
    assert a.shape == b.shape
    assert np.linalg.norm(a - b) <= (2e-6 if more else 1e-6) * np.linalg.norm(b)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_gpus_kernel_gradient(setting, as_on):
  """In the order of the kernel, whatever the convolution's own is."""
  as_on("cuda")
  height, width, size, strides, padding = SETTINGS[setting]
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
  kernel = rng.normal(size=(*size, 3, 4)).astype(np.float32)
  y, vjp = jax.vjp(
    lambda k: convolution.conv2d(jnp.asarray(x), k, strides, padding), kernel
  )
  y_grad = rng.normal(size=y.shape).astype(np.float32)
  *_, expected = brute_force(x, kernel, y_grad, strides, padding)
  found = vjp(jnp.asarray(y_grad))[0]
  assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


def test_kernel_gradient_keeps_its_digits_at_large_maps():
  """A sum over 36 864 pixels, 2.5e-7 off; XLA's own, in a row, is 3.4e-6."""
  rng = np.random.default_rng(0)
  x, y_grad = (
    rng.normal(size=(4, 96, 96, 64)).astype(np.float32) for _ in range(2)
  )
  expected = np.einsum(
    "nhwc,nhwd->cd",
    x.astype(np.float64),
    y_grad.astype(np.float64),
    optimize=True,
  )

  def error(found):
    return np.linalg.norm(found[0, 0] - expected) / np.linalg.norm(expected)

  geometry = ((1, 1), ((0, 0), (0, 0)))
  found = convolution.kernel_gradient(x, y_grad, (1, 1), *geometry)
  _, native = jax.vjp(
    lambda kernel: jax.lax.conv_general_dilated(
      x, kernel, *geometry, dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    jnp.zeros((1, 1, 64, 64)),
  )
  assert error(found) <= 1e-6
  # So that the case is one in which it matters.
  assert error(native(y_grad)[0]) > 1e-6


def test_accelerators_keep_their_own_kernel_gradient(monkeypatch):
  """A GPU's program has the convolution, not the CPU's loop of products."""
  monkeypatch.setattr(convolution, "_OPERAND_BYTES", 1)
  x = jnp.zeros((4, 16, 16, 8))
  gradient = jax.jit(
    lambda x: convolution.kernel_gradient(
      x, x, (3, 3), (1, 1), ((1, 1), (1, 1))
    )
  )
  text = {
    platform: jax.export.export(gradient, platforms=[platform])(x).mlir_module()
    for platform in ("cpu", "cuda", "tpu")
  }
  for platform in ("cpu", "cuda", "tpu"):
    assert ("stablehlo.while" in text[platform]) == (platform == "cpu")
    assert ("stablehlo.dot_general" in text[platform]) == (platform == "cpu")
    assert ("stablehlo.convolution" in text[platform]) == (platform != "cpu")


def test_bfloat16_is_summed_in_float32():
  """3 000 ones are 3 000; in bfloat16, adding one to 256 leaves 256."""
  ones = jnp.ones((3, 20, 50, 4), jnp.bfloat16)
  found = convolution.kernel_gradient(
    ones, ones, (1, 1), (1, 1), ((0, 0), (0, 0))
  )
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(found.astype(np.float32), 3000, rtol=1e-2)


@pytest.mark.parametrize(("size", "on_cpu"), [(3, 0), (5, 4)])
def test_accelerators_keep_their_own_input_gradient(size, on_cpu):
  """One convolution over dilated maps; on a CPU, a product or four phases."""
  y_grad, kernel = jnp.zeros((2, 8, 8, 32)), jnp.zeros((size, size, 32, 32))
  padding = ((size // 2,) * 2,) * 2
  gradient = jax.jit(
    lambda y_grad, kernel: convolution.input_gradient(
      y_grad, kernel, (16, 16), (2, 2), padding
    )
  )
  for platform, count in (("cpu", on_cpu), ("cuda", 1), ("tpu", 1)):
    text = jax.export.export(gradient, platforms=[platform])(
      y_grad, kernel
    ).mlir_module()
    assert text.count("stablehlo.convolution") == count
    assert ("lhs_dilate = [2, 2]" in text) == (platform != "cpu")


def test_accelerators_keep_their_own_strided_convolutions():
  """On a TPU a transposed one is four phases; on a CPU, both are products."""
  x, kernel = jnp.zeros((2, 16, 16, 32)), jnp.zeros((3, 3, 32, 32))
  geometry = (2, 2), ((1, 1), (1, 1))
  for function, counts in (
    (lambda x, k: convolution.conv2d(x, k, *geometry), (0, 1, 1)),
    (convolution.conv_transpose_stride2, (0, 1, 4)),
  ):
    for platform, count in zip(("cpu", "cuda", "tpu"), counts, strict=True):
      text = jax.export.export(jax.jit(function), platforms=[platform])(
        x, kernel
      ).mlir_module()
      assert text.count("stablehlo.convolution") == count


def test_accelerators_keep_their_own_3x3_convolutions():
  """Forward, and both gradients: three convolutions; on a CPU, products."""
  x, kernel = jnp.zeros((2, 16, 16, 32)), jnp.zeros((3, 3, 32, 32))
  same = ((1, 1), ((1, 1), (1, 1)))
  gradients = jax.jit(
    jax.grad(lambda x, k: (convolution.conv2d(x, k, *same) ** 2).sum(), (0, 1))
  )
  for platform, count in (("cpu", 0), ("cuda", 3), ("tpu", 3)):
    text = jax.export.export(gradients, platforms=[platform])(
      x, kernel
    ).mlir_module()
    assert text.count("stablehlo.convolution") == count


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (2, 5)])
@pytest.mark.parametrize(
  ("images", "size", "channels"),
  [
    (3, (48, 24), (64, 32)),
    (2, (72, 64), (80, 32)),
    (2, (46, 49), (32, 32)),
    (2, (7, 9), (32, 64)),
  ],
)
def test_winograds_algorithm(images, size, channels, m, r):
  """Against sums in float64, which it equals but for rounding.

  In blocks of all images and of one; sides that are not whole tiles.
  """
  rng = np.random.default_rng(0)
  x = rng.normal(size=(images, *size, channels[0]))
  kernel = rng.normal(size=(r, r, *channels))
  y_grad = rng.normal(size=(images, *size, channels[1]))
  padded = np.pad(x, ((0, 0), (r // 2,) * 2, (r // 2,) * 2, (0, 0)))
  y, kernel_grad = np.zeros_like(y_grad), np.zeros_like(kernel)
  for i in range(r):
    for j in range(r):
      moved = padded[:, i : i + size[0], j : j + size[1]]
      y += moved @ kernel[i, j]
      kernel_grad[i, j] = np.tensordot(moved, y_grad, ((0, 1, 2),) * 2)

  def errors(dtype):
    arrays = [jnp.asarray(a, dtype) for a in (x, kernel, y_grad)]
    found = jax.jit(
      lambda x, kernel, y_grad: (
        winograd.conv2d(x, kernel, m),
        winograd.kernel_gradient(x, y_grad, m, r),
      )
    )(*arrays)
    return [
      np.linalg.norm(a - b) / np.linalg.norm(b)
      for a, b in zip(found, (y, kernel_grad), strict=True)
    ]

  assert max(errors(jnp.float32)) <= (1e-6 if m + r == 5 else 4e-6)
  with jax.enable_x64(True):
    assert max(errors(jnp.float64)) <= 1e-14


def test_tiles_in_training_round_no_more_than_the_plain_convolution():
  """Forward, and so in the gradient by the input, which is the same."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 48, 48, 64)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 64, 64)).astype(np.float32)
  same = ((1, 1), ((1, 1), (1, 1)))

  def plain(x):
    return jax.lax.conv_general_dilated(
      x, kernel, *same, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  def error(found):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)

  padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
  expected = sum(
    padded[:, i : i + 48, j : j + 48] @ kernel[i, j].astype(np.float64)
    for i in range(3)
    for j in range(3)
  )
  found = convolution.conv2d(x, kernel, *same)
  assert error(found) < error(plain(x))
  assert (found != plain(x)).any()


@pytest.mark.parametrize(
  ("images", "size", "channels"),
  [
    (3, (48, 24), (64, 32)),
    (6, (24, 24), (64, 64)),
    (4, (96, 96), (80, 32)),
    (2, (46, 49), (32, 32)),
  ],
)
def test_inference_takes_larger_tiles(images, size, channels):
  """Against the plain convolution in float64, and beside training's."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(images, *size, channels[0])).astype(np.float32)
  kernel = rng.normal(size=(3, 3, *channels)).astype(np.float32)
  padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
  expected = sum(
    padded[:, i : i + size[0], j : j + size[1]] @ kernel[i, j].astype(float)
    for i in range(3)
    for j in range(3)
  )
  same = ((1, 1), ((1, 1), (1, 1)))
  errors = [
    np.linalg.norm(
      jax.jit(f, static_argnums=(2, 3))(x, kernel, *same) - expected
    )
    / np.linalg.norm(expected)
    for f in (convolution.conv2d, convolution.conv2d_for_inference)
  ]
  assert errors[1] <= 3e-6
  # It is the other algorithm: training's is nearer.
  assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("size", [(48, 48), (12, 20), (3, 3)])
def test_transposed_convolution(size, monkeypatch):
  """By products and by phases, against the dilated convolution in float64."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, *size, 40)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 40, 32)).astype(np.float32)
  expected = np.zeros((4, 2 * size[0] + 1, 2 * size[1] + 1, 32))
  for i in range(3):
    for j in range(3):
      # A kernel of jax.lax.conv_transpose is the correlation's: flipped.
      expected[:, i : i + 2 * size[0] : 2, j : j + 2 * size[1] : 2] += x.astype(
        np.float64
      ) @ kernel[2 - i, 2 - j].astype(np.float64)
  expected = expected[:, 1:, 1:]
  found = []
  for devices in (1, 8):
    monkeypatch.setattr(jax, "device_count", lambda n=devices: n)
    f = jax.jit(lambda x, k: convolution.conv_transpose_stride2(x, k))
    found.append(f(x, kernel))
    assert found[-1].shape == expected.shape
    difference = np.linalg.norm(found[-1] - expected)
    assert difference <= 1e-6 * np.linalg.norm(expected)
  # They are two algorithms, which round in different orders.
  assert (found[0] != found[1]).any()


@pytest.mark.parametrize(
  ("size", "channels", "dtype"),
  [
    ((3, 3), (64, 64), jnp.float32),
    ((6, 6), (64, 64), jnp.float32),
    ((48, 48), (16, 64), jnp.float32),
    ((48, 48), (64, 64), jnp.bfloat16),
  ],
)
def test_other_convolutions_for_inference_are_the_plain_one(
  size, channels, dtype
):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, *size, channels[0])), dtype)
  kernel = jnp.asarray(rng.normal(size=(3, 3, *channels)), dtype)
  same = ((1, 1), ((1, 1), (1, 1)))
  np.testing.assert_array_equal(
    convolution.conv2d_for_inference(x, kernel, *same),
    convolution.conv2d(x, kernel, *same),
  )
