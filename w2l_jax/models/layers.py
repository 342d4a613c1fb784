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

  Returns:
    [N, H', W', features].
  """
  y, bias = _Conv(
    features,
    kernel_size,
    strides,
    padding,
    dtype,
    initializer,
    name=name,
  )(x)
  bias = bias.astype(y.dtype)
  if y.shape[1:3] == (1, 1):
    return _add_bias(y[:, 0, 0], bias)[:, None, None]
  return y + _of_channels(bias)


class _Conv(nn.Module):
  """A convolution, and its bias, which is not added.

  Attributes:
    for_inference: see convolution.conv2d_for_inference.
    (The others are arguments of `conv`.)
  """

  features: int
  kernel_size: int | tuple[int, int]
  strides: int | tuple[int, int] = 1
  padding: int = 0
  dtype: jnp.dtype | None = None
  initializer: str = "torch"
  for_inference: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps [N, H, W, C] to [N, H', W', features] and [features]."""
    size = _pair(self.kernel_size)
    fan_in = size[0] * size[1] * x.shape[-1]
    if self.initializer == "torch":
      kernel_init = bias_init = uniform_init(fan_in)
    elif self.initializer == "he":
      kernel_init, bias_init = he_normal_init(fan_in), nn.initializers.zeros
    else:
      raise ValueError(
        f"initializer {self.initializer!r}, expected 'torch' or 'he'"
      )
    kernel = self.param(
      "kernel", kernel_init, (*size, x.shape[-1], self.features)
    )
    bias = self.param("bias", bias_init, (self.features,))
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    if self.padding == 0 and x.shape[1:3] == size:
      return _whole_conv(x, kernel), bias
    if self.for_inference:
      convolve = convolution.conv2d_for_inference
    else:
      convolve = convolution.conv2d
    border = (self.padding, self.padding)
    return convolve(x, kernel, _pair(self.strides), (border, border)), bias


def _whole_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A convolution whose kernel covers all of its input: a matrix product."""
  features = kernel.shape[-1]
  x = x.reshape(len(x), -1)
  kernel = kernel.reshape(-1, features)
  # In slices, so that the gradient by `x` is a sum of a few short sums: XLA's
  # CPU backend adds up 512 products one after another, with 2.5 times the
  # rounding error of PyTorch's.
  slices = jnp.array_split(kernel, max(1, features // 64), axis=-1)
  y = jnp.concatenate([x @ k for k in slices], axis=-1)
  return y[:, None, None, :]


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


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns mean and biased variance [C] of images [N, H, W, C].

  Two passes: E[x^2] - E[x]^2 cancels in float32 where a channel's mean is large
  beside its deviation, and parity with PyTorch goes with it.
  """
  mean = jnp.mean(x, axis=(0, 1, 2))
  return mean, jnp.mean(jnp.square(x - _of_channels(mean)), axis=(0, 1, 2))


def _moments_in_one_pass(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """`_moments`, reading the images once, as a GPU's compiler joins two sums.

  The differences from a pixel of each image are summed, and their squares: by
  rule that pixel is near the image's mean, so little is cancelled, and where it
  is far from all others the variance has the square of that distance over H W
  in it, so no more than H W roundings are.  Then the images' moments are those
  of the batch.

  Args, returns: as `_moments`.
  """
  n, h, w, c = x.shape
  shift = x[:, h // 2, w // 2]
  shifted = x - shift[:, None, None]
  first = jnp.mean(shifted, axis=(1, 2))
  second = jnp.mean(jnp.square(shifted), axis=(1, 2))
  within = second - jnp.square(first)
  mean, between = _moments((shift + first).reshape(n, 1, 1, c))
  return mean, between + jnp.mean(within, axis=0)


@jax.custom_vjp
def _normalized(
  x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalises images [N, H, W, C] by their own mean and variance.

  Its gradient is written out, two sums and one map: of JAX's own, XLA's CPU
  backend makes four sums over as many maps that it stores for them.

  Args:
    x: [N, H, W, C].
    scale, bias: [C].

  Returns:
    The images, the mean and the biased variance [C]; no gradient goes back
    through the latter two.
  """
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  mean, var = jax.lax.platform_dependent(
    wide, cuda=_moments_in_one_pass, default=_moments
  )
  centered = wide - _of_channels(mean)
  factor = scale * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
  y = centered * _of_channels(factor) + _of_channels(bias)
  return y.astype(x.dtype), mean, var


def _of_channels(values: jax.Array) -> jax.Array:
  """[C] as [1, 1, 1, C], to go with images."""
  return values[None, None, None]


def _normalized_forward(x, scale, bias):
  y, mean, var = _normalized(x, scale, bias)
  return (y, mean, var), (x, scale, mean, var)


def _normalized_backward(saved, grads):
  x, scale, mean, var = saved
  y_grad = grads[0].astype(mean.dtype)
  centered = x.astype(mean.dtype) - _of_channels(mean)
  inverse = jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
  count = x.size // x.shape[-1]
  bias_grad = jnp.sum(y_grad, axis=(0, 1, 2))
  scale_grad = jnp.sum(y_grad * centered, axis=(0, 1, 2)) * inverse
  x_grad = _of_channels(scale * inverse) * (
    y_grad
    - _of_channels(bias_grad / count)
    - centered * _of_channels(scale_grad * inverse / count)
  )
  return (
    x_grad.astype(x.dtype),
    scale_grad.astype(scale.dtype),
    bias_grad.astype(scale.dtype),
  )


_normalized.defvjp(_normalized_forward, _normalized_backward)


class _BatchNorm(nn.Module):
  """Adds a convolution's bias and normalises, as Flax's and PyTorch's.

  In training the bias is taken away again with the mean.  So it is not added at
  all, but to the running mean, and its gradient is zero: PyTorch's is what
  rounding leaves of it.  That saves two passes over every map.
  """

  @nn.compact
  def __call__(
    self, x: jax.Array, conv_bias: jax.Array, train: bool, /
  ) -> jax.Array:
    """Maps [N, H, W, C] to the same shape; conv_bias is [C]."""
    c = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
    mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
    var = self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
    if train:
      y, batch_mean, batch_var = _normalized(x, scale, bias)
      if (
        self.is_mutable_collection("batch_stats") and not self.is_initializing()
      ):
        keep = BATCH_NORM_MOMENTUM
        mean.value = keep * mean.value + (1 - keep) * (batch_mean + conv_bias)
        var.value = keep * var.value + (1 - keep) * batch_var
      return y
    factor = scale * jax.lax.rsqrt(var.value + BATCH_NORM_EPSILON)
    y = x + _of_channels(conv_bias) - _of_channels(mean.value)
    y = y * _of_channels(factor) + _of_channels(bias)
    return y.astype(x.dtype)


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
      not isinstance(norm, _BatchNorm)
      or context.method_name != "__call__"
      or not args[2]  # Not in training.
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
    added = after - BATCH_NORM_MOMENTUM * before
    norm.put_variable("batch_stats", "var", after + added / (n - 1))
    return y

  def apply(*args, **kwargs):
    with nn.intercept_methods(unbias):
      return model.apply(*args, **kwargs)

  return apply


@jax.custom_vjp
def _relu_of_sum(x: jax.Array) -> jax.Array:
  """relu(x) of any shape, x being a sum; for the gradient the result is kept.

  The next convolution keeps it, too.  A GPU's compiler would rather compute the
  sum again, of two maps.
  """
  return nn.relu(x)


def _relu_of_sum_forward(x):
  y = _relu_of_sum(x)
  return y, y


def _relu_of_sum_backward(y, y_grad):
  y = jax.lax.platform_dependent(
    y, cuda=jax.lax.optimization_barrier, default=lambda y: y
  )
  return (jnp.where(y > 0, y_grad, 0),)


_relu_of_sum.defvjp(_relu_of_sum_forward, _relu_of_sum_backward)


class ConvBlock(nn.Module):
  """Convolution, BatchNorm, optional residual, ReLU.

  The input is added *before* the ReLU (original: models/conv.py).

  Attributes:
    for_inference: see convolution.conv2d_for_inference.
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
    y, bias = _Conv(
      self.features,
      self.kernel_size,
      self.strides,
      self.padding,
      self.dtype,
      for_inference=self.for_inference,
      name="conv",
    )(x)
    y = _BatchNorm(name="batch_norm")(y, bias, train)
    return _relu_of_sum(x + y) if self.residual else nn.relu(y)


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
  """

  features: int
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, 1, 1, C] to [N, 3, 3, features] and doubles other maps."""
    # PyTorch takes fan_in from dimension 1 of its (in, out, k, k) weight.
    init = uniform_init(9 * self.features)
    kernel = self.param("kernel", init, (3, 3, x.shape[-1], self.features))
    bias = self.param("bias", init, (self.features,))
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    if x.shape[1:3] == (1, 1):
      y = jnp.einsum("nc,hwcf->nhwf", x[:, 0, 0], kernel[::-1, ::-1])
    else:
      y = convolution.conv_transpose_stride2(x, kernel)
    y = _BatchNorm(name="batch_norm")(y, bias, train)
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
