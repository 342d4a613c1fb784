"""The blocks of the networks: arithmetic, statistics, gradients, precision."""

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from w2l_jax.models import convolution, layers


def naive_conv(x, kernel, bias, strides, padding):
  """Convolution by loops over taps, float64."""
  x, kernel = np.float64(x), np.float64(kernel)
  sh, sw = strides
  x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  kh, kw = kernel.shape[:2]
  h = (x.shape[1] - kh) // sh + 1
  w = (x.shape[2] - kw) // sw + 1
  out = np.zeros((x.shape[0], h, w, kernel.shape[-1]))
  for i in range(kh):
    for j in range(kw):
      tap = x[:, i : i + sh * (h - 1) + 1 : sh, j : j + sw * (w - 1) + 1 : sw]
      out += tap @ kernel[i, j]
  return out + np.float64(bias)


def naive_conv_transpose(x, kernel, bias, stride, padding, output_padding):
  """PyTorch's definition: every input pixel adds its kernel to the output.

  `kernel` is [k, k, in, out] in PyTorch's orientation, not flipped.
  """
  n, h, w, _ = x.shape
  k = kernel.shape[0]
  size = lambda s: (s - 1) * stride + k + output_padding  # noqa: E731
  full = np.zeros((n, size(h), size(w), kernel.shape[-1]))
  for i in range(h):
    for j in range(w):
      full[:, i * stride : i * stride + k, j * stride : j * stride + k] += (
        np.einsum("nc,hwcf->nhwf", np.float64(x[:, i, j]), np.float64(kernel))
      )
  end = lambda s: size(s) - padding  # noqa: E731
  return full[:, padding : end(h), padding : end(w)] + np.float64(bias)


def naive_batch_norm(y, params, stats, train):
  if train:
    mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
  else:
    mean, var = np.float64(stats["mean"]), np.float64(stats["var"])
  return (y - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]


def drawn(model, *inputs):
  """Random variables for a block's inputs."""
  shapes = jax.eval_shape(
    lambda key: model.init(key, *inputs), jax.random.key(0)
  )
  rng = np.random.default_rng(3)
  return jax.tree.map(
    lambda x: (
      rng.uniform(0.2, 1.0, x.shape).astype(np.float32)
      * rng.choice([-1, 1] if x.ndim == 4 else [1], x.shape).astype(np.float32)
    ),
    shapes,
  )


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
  ("kernel_size", "strides", "padding", "residual"),
  [(3, 1, 1, True), (3, 2, 1, False), (5, (1, 2), 1, False), (7, 1, 3, False),
   (3, (3, 1), 1, False), (3, 1, 0, False)],
)  # fmt: skip
def test_conv_block(
  kernel_size, strides, padding, residual, train, platform, as_on
):
  """Convolution, BatchNorm, residual, ReLU in this order, against NumPy."""
  as_on(platform)
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, 9, 11, 6)).astype(np.float32)
  block = layers.ConvBlock(6, kernel_size, strides, padding, residual)
  variables = drawn(block, x, train)
  out, updates = block.apply(variables, x, train, mutable=["batch_stats"])
  params, stats = (
    variables["params"], variables["batch_stats"]["batch_norm"]
  )  # fmt: skip
  y = naive_conv(
    x,
    params["conv"]["kernel"],
    params["conv"]["bias"],
    (strides, strides) if isinstance(strides, int) else strides,
    padding,
  )
  expected = naive_batch_norm(y, params["batch_norm"], stats, train)
  expected = np.maximum(expected + x if residual else expected, 0)
  np.testing.assert_allclose(out, expected, atol=2e-5)
  if train:  # PyTorch's momentum 0.1; the variance is the biased one.
    new = updates["batch_stats"]["batch_norm"]
    np.testing.assert_allclose(
      new["mean"], 0.9 * stats["mean"] + 0.1 * y.mean((0, 1, 2)), atol=1e-5
    )
    np.testing.assert_allclose(
      new["var"], 0.9 * stats["var"] + 0.1 * y.var((0, 1, 2)), rtol=1e-5
    )
    # PyTorch's, on demand; all else stays.
    apply = layers.training_apply(block, "unbiased")
    same, updates = apply(variables, x, train, mutable=["batch_stats"])
    np.testing.assert_array_equal(same, out)
    unbiased = updates["batch_stats"]["batch_norm"]
    np.testing.assert_array_equal(unbiased["mean"], new["mean"])
    np.testing.assert_allclose(
      unbiased["var"],
      0.9 * stats["var"] + 0.1 * y.var((0, 1, 2), ddof=1),
      rtol=1e-5,
    )


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("train", [False, True])
def test_normalisation_is_flaxs(train, platform, as_on):
  """Values, statistics and gradients of a block, beside nn.BatchNorm.

  But the gradient by the convolution's bias in training, which is zero.
  """
  as_on(platform)

  class Reference(nn.Module):
    """The same block of Flax's own parts."""

    @nn.compact
    def __call__(self, x):
      y = nn.Conv(6, (3, 3), padding=[(1, 1)] * 2, name="conv")(x)
      norm = nn.BatchNorm(
        use_running_average=not train, momentum=0.9, name="batch_norm"
      )
      return nn.relu(x + norm(y))

  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 4, 9, 11, 6))
    block = layers.ConvBlock(6, 3, 1, 1, residual=True)
    variables = jax.tree.map(np.float64, drawn(block, x, train))

    def loss(apply):
      def function(params, x):
        y, updates = apply(
          {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        return (y * weights).sum(), updates

      return jax.value_and_grad(function, (0, 1), has_aux=True)(
        variables["params"], x
      )

    found = loss(lambda v, x, **kwargs: block.apply(v, x, train, **kwargs))
    expected = loss(Reference().apply)
    if train:
      bias_grad = found[1][0]["conv"]["bias"]
      np.testing.assert_array_equal(bias_grad, 0)
      np.testing.assert_allclose(
        expected[1][0]["conv"].pop("bias"), bias_grad, atol=1e-12
      )
      del found[1][0]["conv"]["bias"]
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
      found,
      expected,
    )


@pytest.mark.parametrize("mean", [0, 1e3])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 6)])
def test_moments_in_one_pass(size, mean):
  """They keep digits where a mean is a thousand deviations.

  Images have means of their own, as faces have.
  """
  rng = np.random.default_rng(0)
  x = mean + rng.normal(size=(8, 1, 1, 16)) + rng.normal(size=(8, *size, 16))
  x = x.astype(np.float32)
  wide = np.float64(x)
  expected = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
  # float32 has the images' means to 6e-8 of themselves.
  for moments, lost in (
    (layers._moments, 3e-7),
    (layers._moments_in_one_pass, 3e-7 + 2e-8 * mean),
  ):
    found = moments(x)
    np.testing.assert_allclose(found[0], expected[0], rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(found[1], expected[1], rtol=lost)
  # So that the case is one in which it matters.
  if mean:
    naive = jnp.mean(x * x, (0, 1, 2)) - jnp.mean(x, (0, 1, 2)) ** 2
    assert np.abs(naive - expected[1]).max() > 0.01


def test_moments_where_the_first_pixel_is_far_from_all_others():
  """No more is lost than H W roundings, and no variance is below zero."""
  rng = np.random.default_rng(0)
  for far in (10, 1e3, 1e5):
    x = rng.normal(size=(4, 48, 48, 8)).astype(np.float32)
    x[:, 24, 24] += far
    _, var = layers._moments_in_one_pass(x)
    np.testing.assert_allclose(var, np.float64(x).var((0, 1, 2)), rtol=2e-4)


def test_a_gpus_program_has_its_own_way():
  """What saves its memory traffic is in it, and in no other's.

  Two barriers: around the kernel's gradient and the kept result.  Sums over
  each image: of BatchNorm's one pass.
  """
  x = jnp.zeros((2, 6, 6, 4))
  block = layers.ConvBlock(4, 3, 1, 1, residual=True)
  variables = block.init(jax.random.key(0), x, True)

  def gradient(variables, x):
    return jax.grad(
      lambda v: block.apply(v, x, True, mutable=["batch_stats"])[0].sum()
    )(variables)

  for platform in ("cpu", "cuda", "tpu"):
    text = jax.export.export(jax.jit(gradient), platforms=[platform])(
      variables, x
    ).mlir_module()
    on_gpu = platform == "cuda"
    assert text.count("stablehlo.optimization_barrier") == 2 * on_gpu
    assert text.count("across dimensions = [1, 2]") == 2 * on_gpu


def test_moments_of_the_same_number():
  """The variance is zero."""
  x = jnp.full((3, 5, 5, 2), 0.1, jnp.float32)
  mean, var = layers._moments_in_one_pass(x)
  np.testing.assert_allclose(mean, 0.1, rtol=1e-6)
  assert np.all((var >= 0) & (var < 1e-15))


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (4, 7)])
def test_conv_transpose_block(size):
  """Against PyTorch's definition of a transposed convolution."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, *size, 5)).astype(np.float32)
  block = layers.ConvTransposeBlock(4)
  variables = drawn(block, x, False)
  out = block.apply(variables, x, False)
  params = variables["params"]
  torch_kernel = params["kernel"][::-1, ::-1]
  setting = (1, 0, 0) if size == (1, 1) else (2, 1, 1)
  y = naive_conv_transpose(x, torch_kernel, params["bias"], *setting)
  expected = naive_batch_norm(
    y, params["batch_norm"], variables["batch_stats"]["batch_norm"], False
  )
  assert out.shape == expected.shape
  np.testing.assert_allclose(out, np.maximum(expected, 0), atol=2e-5)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("channels", [(3, 4), (32, 40)])
def test_transposed_convolution_equals_the_dilated_one(
  channels, platform, as_on, monkeypatch
):
  """Value and both gradients, against jax.lax.conv_transpose.

  Phases of few channels; products of many, one image at a time.
  """
  as_on(platform)
  monkeypatch.setattr(convolution, "_OPERAND_BYTES", 1)
  monkeypatch.setattr(convolution, "_RESULT_BYTES", 1)
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 5, 6, channels[0])).astype(np.float32)
  kernel = rng.normal(size=(3, 3, *channels)).astype(np.float32)
  weight = rng.normal(size=(2, 10, 12, channels[1])).astype(np.float32)

  def dilated(x, kernel):
    return jax.lax.conv_transpose(x, kernel, (2, 2), [(1, 2), (1, 2)])

  results = []
  for f in (convolution.conv_transpose_stride2, dilated):
    results.append(
      jax.value_and_grad(
        lambda x, k, f=f: jnp.sum(f(x, k) * weight), argnums=(0, 1)
      )(x, kernel)
    )
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    if channels[0] < 32:
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    # Sums of ten times as many terms, by another order: as a whole.
    assert np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(b)


def test_leaky_block():
  x = np.array([[[[1.0]], [[-1.0]]]], np.float32)
  block = layers.LeakyConvBlock(1, 1)
  variables = {
    "params": {"conv": {"kernel": np.ones((1, 1, 1, 1)), "bias": np.zeros(1)}}
  }
  np.testing.assert_allclose(
    np.ravel(block.apply(variables, x)), [1.0, -0.01], rtol=1e-6
  )


def test_l2_normalize_has_a_finite_gradient_at_zero():
  grad = jax.grad(lambda x: layers.l2_normalize(x).sum())(jnp.zeros((2, 3)))
  assert np.all(np.isfinite(grad))


def test_unknown_running_variance():
  with pytest.raises(ValueError, match="'sample', expected 'biased' or"):
    layers.training_apply(layers.ConvBlock(1, 1), "sample")


def test_the_unbiased_variance_of_one_number():
  """PyTorch stops there, too."""
  x = np.ones((1, 1, 1, 3), np.float32)
  block = layers.ConvBlock(2, 1)
  apply = layers.training_apply(block, "unbiased")
  with pytest.raises(ValueError, match="give larger batches"):
    apply(drawn(block, x, True), x, True, mutable=["batch_stats"])


def test_compute_dtype_is_a_known_word():
  assert layers.compute_dtype({}) is None
  assert layers.compute_dtype({"compute_dtype": "float32"}) is None
  assert layers.compute_dtype({"compute_dtype": "bfloat16"}) == jnp.bfloat16
  with pytest.raises(ValueError, match="'fp16', expected 'float32' or"):
    layers.compute_dtype({"compute_dtype": "fp16"})


def test_remat_changes_no_gradient():
  """And keeps BatchNorm's statistics, of one pass."""
  x = np.random.default_rng(0).standard_normal((4, 6, 6, 3)).astype(np.float32)
  found = []
  for remat in (False, True):
    block = layers.rematerialized(layers.ConvBlock, remat)(5, 3, 1, 1)
    variables = block.init(jax.random.key(0), x, False)

    def loss_fn(params, block=block, variables=variables):
      y, updates = block.apply(
        {**variables, "params": params}, x, True, mutable=["batch_stats"]
      )
      return jnp.sum(y**2), updates

    found.append(jax.grad(loss_fn, has_aux=True)(variables["params"]))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *found
  )
