"""The three blocks that every network is made of, and PyTorch's default init.

Convolutions, normalisation and activation live here; network shapes do not.
Called by the network modules beside this one.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from w2l_jax.models import convolution

# PyTorch's BatchNorm defaults: its momentum 0.1 is Flax's 0.9.
BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5
LEAKY_RELU_SLOPE = 0.01


def _unit_uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draws float32 from U[0, 1): MurmurHash3's finaliser over a counter.

  jax.random compiles a Threefry of its own for every parameter, which takes
  half a minute for the generator; this takes a second and is as good for
  initial weights.
  """
  data = jax.random.key_data(key).ravel()
  offset, stride = data[0], data[1]
  x = jax.lax.iota(jnp.uint32, int(np.prod(shape))) * (stride | 1) + offset
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  x = x ^ (x >> 16)
  return ((x >> 8).astype(jnp.float32) / 2**24).reshape(shape)


# Flax traces a param's initialiser in every call of a network, to compare the
# shape: under jit, each shape is traced once.
@functools.partial(jax.jit, static_argnums=(1, 2))
def _uniform(key: jax.Array, shape: tuple[int, ...], bound: float) -> jax.Array:
  return (2 * _unit_uniform(key, shape) - 1) * bound


@functools.partial(jax.jit, static_argnums=(1, 2))
def _normal(
  key: jax.Array, shape: tuple[int, ...], deviation: float
) -> jax.Array:
  uniform = jnp.maximum(_unit_uniform(key, shape), 1e-7)
  return jax.scipy.special.ndtri(uniform) * deviation


def uniform_init(fan_in: int) -> Callable:
  """Returns an initialiser drawing from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

  What PyTorch's convolutions start from, weights and biases alike, and the
  original never overrides.
  """
  bound = float(1 / np.sqrt(fan_in))

  def init(key, shape, dtype=jnp.float32):
    return _uniform(key, shape, bound).astype(dtype)

  return init


def he_normal_init(fan_in: int) -> Callable:
  """Returns an initialiser drawing from N(0, 2 / fan_in) for kernels.

  A rectified layer of it passes signals and gradients on at their size; one of
  PyTorch's default shrinks both to a sixth of their variance.
  """

  deviation = float(np.sqrt(2 / fan_in))

  def init(key, shape, dtype=jnp.float32):
    del dtype
    return _normal(key, shape, deviation)

  return init


def compute_dtype(config) -> jnp.dtype | None:
  """Returns config.compute_dtype as the networks take it.

  Raises:
    ValueError: if it is another word.
  """
  word = config.get("compute_dtype", "float32")
  if word not in ("float32", "bfloat16"):
    raise ValueError(
      f"config.compute_dtype is {word!r}, expected 'float32' or 'bfloat16'"
    )
  # None: of input and params, so that float64 stays float64.
  return jnp.bfloat16 if word == "bfloat16" else None


def scaled(channels: int, width: float) -> int:
  """Returns `channels` times the width multiplier, at least 1."""
  return max(1, round(channels * width))


def num_stages(image_size: int, final_size: int) -> int:
  """Counts the stride-2 stages from `image_size` down to `final_size`.

  Raises:
    ValueError: if `image_size` is not 96 doubled or halved (24 at the least).
  """
  stages = int(np.log2(max(image_size, 1) / final_size))
  if image_size < 24 or final_size * 2**stages != image_size:
    raise ValueError(
      f"image_size is {image_size}; the networks take 96 doubled or halved: "
      "24, 48, 96, 192, 384, ..."
    )
  return stages


def conv(
  x: jax.Array,
  features: int,
  kernel_size: int | tuple[int, int],
  strides: int | tuple[int, int] = 1,
  padding: int = 0,
  dtype: jnp.dtype | None = None,
  name: str = "conv",
  initializer: str = "torch",
  for_inference: bool = False,
) -> jax.Array:
  """A convolution with bias and symmetric explicit padding.

  To be called from a compact method, of which it becomes the submodule `name`.

  Args:
    x: [N, H, W, C].
    features: output channels.
    kernel_size, strides: one number, or one each for height and width.
    padding: rows and columns of zeros on every side.
    dtype: of the computation; None is that of the input and params.
    name: of the submodule.
    initializer: "torch", PyTorch's default for kernel and bias, or "he", normal
      with variance 2 / fan_in for the kernel and zeros for the bias.
    for_inference: whether a faster algorithm may round more.

  Returns:
    [N, H', W', features].
  """
  kh, kw = _pair(kernel_size)
  fan_in = kh * kw * x.shape[-1]
  if initializer == "torch":
    kernel_init = bias_init = uniform_init(fan_in)
  elif initializer == "he":
    kernel_init, bias_init = he_normal_init(fan_in), nn.initializers.zeros
  else:
    raise ValueError(f"initializer {initializer!r}, expected 'torch' or 'he'")
  if for_inference:
    convolve = convolution.conv2d_for_inference
  else:
    convolve = convolution.conv2d
  if padding == 0 and x.shape[1:3] == (kh, kw):
    return _WholeConv(features, kernel_init, bias_init, dtype, name=name)(x)
  return nn.Conv(
    features,
    (kh, kw),
    _pair(strides),
    padding=[(padding, padding)] * 2,
    kernel_init=kernel_init,
    bias_init=bias_init,
    dtype=dtype,
    name=name,
    conv_general_dilated=_as_flax_calls(convolve),
  )(x)


def _as_flax_calls(convolve: Callable) -> Callable:
  """Returns what nn.Conv calls with arguments that are always the same here."""

  def convolution(x, kernel, strides, padding, **kwargs):
    del kwargs
    return convolve(x, kernel, tuple(strides), tuple(padding))

  return convolution


class _WholeConv(nn.Module):
  """A convolution whose kernel covers all of its input: a matrix product."""

  features: int
  kernel_init: Callable
  bias_init: Callable
  dtype: jnp.dtype | None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to [N, 1, 1, features]."""
    kernel = self.param(
      "kernel", self.kernel_init, (*x.shape[1:], self.features)
    )
    bias = self.param("bias", self.bias_init, (self.features,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    x = x.reshape(len(x), -1)
    kernel = kernel.reshape(-1, self.features)
    # In slices, so that the gradient by `x` is a sum of a few short sums: XLA's
    # CPU backend adds up 512 products one after another, with 2.5 times the
    # rounding error of PyTorch's.
    slices = jnp.array_split(kernel, max(1, self.features // 64), axis=-1)
    y = jnp.concatenate([x @ k for k in slices], axis=-1)
    return _add_bias(y, bias)[:, None, None, :]


@jax.custom_vjp
def _add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
  """Adds a bias [C] to [N, C]; its gradient keeps digits where N are alike.

  At the discriminator's last bias all real pictures' gradients are nearly the
  same, and nearly the opposite of the generated ones': what a long sum loses
  is then a good part of what is left.
  """
  return y + bias[None]


def _add_bias_backward(_, y_grad):
  wide = y_grad.astype(jnp.promote_types(y_grad.dtype, jnp.float32))
  first = wide[:1]
  bias_grad = len(wide) * first[0] + jnp.sum(wide - first, axis=0)
  return y_grad, bias_grad.astype(y_grad.dtype)


_add_bias.defvjp(lambda y, bias: (_add_bias(y, bias), None), _add_bias_backward)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
  return (value, value) if isinstance(value, int) else tuple(value)


def _batch_norm(train: bool, dtype) -> nn.BatchNorm:
  # Two-pass variance: E[x^2] - E[x]^2 cancels in float32 where a channel's
  # mean is large beside its deviation, and parity with PyTorch goes with it.
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=BATCH_NORM_MOMENTUM,
    epsilon=BATCH_NORM_EPSILON,
    use_fast_variance=False,
    dtype=dtype,
    name="batch_norm",
  )


def training_apply(model: nn.Module, running_variance: str) -> Callable:
  """Returns `model.apply`, collecting the running variance as asked.

  Both normalise by the biased variance in training; what is collected for use
  differs by n / (n - 1), n being how many numbers of a channel are in a batch.
  At the 1x1 maps that is the batch size alone.

  Args:
    model: any network.
    running_variance: "biased", Flax's, the variance that training normalises
      by, or "unbiased", PyTorch's.
  """
  if running_variance == "biased":
    return model.apply
  if running_variance != "unbiased":
    raise ValueError(
      f"running_variance is {running_variance!r}, expected 'biased' or "
      "'unbiased'"
    )

  def unbias(next_fun, args, kwargs, context):
    norm = context.module
    if (
      not isinstance(norm, nn.BatchNorm)
      or context.method_name != "__call__"
      or norm.use_running_average
      or not norm.is_mutable_collection("batch_stats")
    ):
      return next_fun(*args, **kwargs)
    before = norm.get_variable("batch_stats", "var")
    y = next_fun(*args, **kwargs)
    after = norm.get_variable("batch_stats", "var")
    n = args[0].size // args[0].shape[-1]
    if n < 2:
      raise ValueError(
        f"the unbiased variance of one number is not defined: BatchNorm's "
        f"input is {args[0].shape}; give larger batches"
      )
    # What this batch has added, momentum included.
    added = after - norm.momentum * before
    norm.put_variable("batch_stats", "var", after + added / (n - 1))
    return y

  def apply(*args, **kwargs):
    with nn.intercept_methods(unbias):
      return model.apply(*args, **kwargs)

  return apply


class ConvBlock(nn.Module):
  """Convolution, BatchNorm, optional residual, ReLU.

  The input is added *before* the ReLU (original: models/conv.py).

  Attributes:
    for_inference: see `conv`.
  """

  features: int
  kernel_size: int | tuple[int, int]
  strides: int | tuple[int, int] = 1
  padding: int = 0
  residual: bool = False
  dtype: jnp.dtype | None = None
  for_inference: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to [N, H', W', features]."""
    y = conv(
      x,
      self.features,
      self.kernel_size,
      self.strides,
      self.padding,
      self.dtype,
      for_inference=self.for_inference,
    )
    y = _batch_norm(train, self.dtype)(y)
    return nn.relu(x + y if self.residual else y)


class LeakyConvBlock(nn.Module):
  """Convolution and LeakyReLU, no normalisation: the discriminator's block."""

  features: int
  kernel_size: int | tuple[int, int]
  strides: int | tuple[int, int] = 1
  padding: int = 0
  dtype: jnp.dtype | None = None
  initializer: str = "torch"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] to [N, H', W', features]."""
    y = conv(
      x,
      self.features,
      self.kernel_size,
      self.strides,
      self.padding,
      self.dtype,
      initializer=self.initializer,
    )
    return nn.leaky_relu(y, LEAKY_RELU_SLOPE)


class ConvTransposeBlock(nn.Module):
  """Transposed 3x3 convolution, BatchNorm, ReLU.

  A 1x1 map becomes 3x3 (PyTorch: stride 1, padding 0), any other map doubles
  (stride 2, padding 1, output padding 1).  The kernel is stored as
  `jax.lax.conv_transpose` takes it: [3, 3, in, out], PyTorch's (in, out, 3, 3)
  flipped in both spatial axes.

  Attributes:
    for_inference: see `conv`.
  """

  features: int
  dtype: jnp.dtype | None = None
  for_inference: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, 1, 1, C] to [N, 3, 3, features] and doubles other maps."""
    # PyTorch takes fan_in from dimension 1 of its (in, out, k, k) weight.
    init = uniform_init(9 * self.features)
    kernel = self.param("kernel", init, (3, 3, x.shape[-1], self.features))
    bias = self.param("bias", init, (self.features,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    if x.shape[1:3] == (1, 1):
      y = jnp.einsum("nc,hwcf->nhwf", x[:, 0, 0], kernel[::-1, ::-1])
    else:
      convolve = convolution.conv_transpose_stride2
      if self.for_inference:
        convolve = convolution.conv_transpose_for_inference
      y = convolve(x, kernel)
    y = _batch_norm(train, self.dtype)(y + bias.reshape(1, 1, 1, -1))
    return nn.relu(y)


def rematerialized(block: type[nn.Module], remat: bool) -> type[nn.Module]:
  """Returns a block whose inner values are computed anew for the gradient.

  Args:
    block: its `__call__` takes (x, train).
    remat: if not, the block itself.
  """
  return nn.remat(block, static_argnums=(2,)) if remat else block


def l2_normalize(x: jax.Array, eps: float = 1e-12) -> jax.Array:
  """Scales the last axis to unit length, in float32.

  As torch.nn.functional.normalize: x / max(|x|, eps).  The gradient at x = 0
  is finite (a plain norm's is NaN there).
  """
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  norm = jnp.sqrt(
    jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), eps * eps)
  )
  return x / norm
