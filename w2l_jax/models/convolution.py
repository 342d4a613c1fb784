"""Convolutions that are fast where XLA's are not; functions, no parameters.

XLA's CPU backend takes the gradient by a kernel as one convolution with the
whole map for its kernel: at large maps five times as slow as the forward pass,
and a sum of so many terms in a row that it loses a digit.  There the gradient
is written as matrix products here, image by image.  In inference, large 3x3
convolutions are Winograd's and large transposed ones are matrix products.
Accelerators keep XLA's own of all these, except that a transposed convolution
is its four phases everywhere.  docs/PERFORMANCE.md has the figures; layers.py
has the blocks that call this.
"""

import functools

import jax
import jax.numpy as jnp

_NHWC = ("NHWC", "HWIO", "NHWC")

Padding = tuple[tuple[int, int], tuple[int, int]]


def _convolution(x, kernel, strides, padding) -> jax.Array:
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=_NHWC
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(
  x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding
) -> jax.Array:
  """A convolution, as `jax.lax.conv_general_dilated` has it.

  Args:
    x: [N, H, W, C].
    kernel: [h, w, C, C'], of x's dtype.
    strides: of rows and columns.
    padding: zeros before and after the rows and the columns.

  Returns:
    [N, H', W', C'].
  """
  return _convolution(x, kernel, strides, padding)


def _conv2d_forward(x, kernel, strides, padding):
  return _convolution(x, kernel, strides, padding), (x, kernel)


def _conv2d_backward(strides, padding, saved, y_grad):
  x, kernel = saved
  _, input_vjp = jax.vjp(lambda x: _convolution(x, kernel, strides, padding), x)
  kernel_grad = kernel_gradient(x, y_grad, kernel.shape[:2], strides, padding)
  return (*input_vjp(y_grad), kernel_grad)


conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def kernel_gradient(
  x: jax.Array,
  y_grad: jax.Array,
  kernel_size: tuple[int, int],
  strides: tuple[int, int],
  padding: Padding,
) -> jax.Array:
  """The gradient of `conv2d` by its kernel.

  Args:
    x: [N, H, W, C], its input.
    y_grad: [N, H', W', C'], the gradient by its output.
    kernel_size: h and w.
    strides, padding: its own.

  Returns:
    [h, w, C, C'].
  """

  def native(x, y_grad):
    kernel = jnp.zeros((*kernel_size, x.shape[-1], y_grad.shape[-1]), x.dtype)
    _, vjp = jax.vjp(lambda k: _convolution(x, k, strides, padding), kernel)
    return vjp(y_grad)[0]

  def products(x, y_grad):
    def add(total, image):
      x, y_grad = (a[None] for a in image)
      return total + _kernel_gradient_by_products(
        x, y_grad, kernel_size, strides, padding
      ), None

    if jax.device_count() > 1:
      # The compiler splits a product by the batch, but not a loop over it.
      return _kernel_gradient_by_products(
        x, y_grad, kernel_size, strides, padding
      ).astype(x.dtype)
    # One image after another stays in the processor's cache.
    total = jnp.zeros(
      (*kernel_size, x.shape[-1], y_grad.shape[-1]), _sum_dtype(x)
    )
    return jax.lax.scan(add, total, (x, y_grad))[0].astype(x.dtype)

  # Below this, building the products' operands takes longer than it saves.
  if y_grad.shape[1] * y_grad.shape[2] < 64 or x.shape[-1] < 4:
    return native(x, y_grad)
  return jax.lax.platform_dependent(x, y_grad, cpu=products, default=native)


def _sum_dtype(x) -> jnp.dtype:
  """What sums over pixels are kept in: float32 where x is bfloat16."""
  return jnp.promote_types(x.dtype, jnp.float32)


def _kernel_gradient_by_products(x, y_grad, kernel_size, strides, padding):
  """`kernel_gradient` as matrix products over the pixels of all images.

  The columns' taps are laid side by side in the input's channels, the rows'
  taps in the gradient's: one product [w C, pixels] x [pixels, h C'] then holds
  every pair of them, without one operation too many.  (Patches of all h w taps
  would be three times as large, and products for each tap by itself too narrow
  to be fast.)  With a stride, rows are taken apart by their remainder first.
  """
  (h, w), (row_stride, column_stride) = kernel_size, strides
  n, rows, columns, c_out = y_grad.shape
  c_in = x.shape[-1]
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  taps = [None] * h
  for remainder in range(min(row_stride, h)):
    shifts = len(range(remainder, h, row_stride))
    height = rows + shifts - 1
    part = x[:, remainder::row_stride][:, :height]
    left = jnp.concatenate(
      [part[:, :, j::column_stride][:, :, :columns] for j in range(w)], axis=-1
    )
    right = jnp.concatenate(
      [
        jnp.pad(y_grad, ((0, 0), (i, shifts - 1 - i), (0, 0), (0, 0)))
        for i in range(shifts)
      ],
      axis=-1,
    )
    product = jax.lax.dot_general(
      left.reshape(n * height * columns, w * c_in),
      right.reshape(n * height * columns, shifts * c_out),
      (((0,), (0,)), ((), ())),
      preferred_element_type=_sum_dtype(x),
    ).reshape(w, c_in, shifts, c_out)
    for i in range(shifts):
      taps[remainder + i * row_stride] = product[:, :, i]
  return jnp.stack(taps)


@jax.custom_vjp
def conv_transpose_stride2(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 3x3 transposed convolution of stride 2, as its four phases.

  Equal to dilating `x` by 2 and padding it by (1, 2), but each parity of
  output rows and columns is computed by itself: even outputs take the middle
  tap of x[m], odd ones the outer taps over x[m], x[m + 1].  Its gradients are
  those of the convolution that it is the transpose of.

  Args:
    x: [N, H, W, C].
    kernel: [3, 3, C, C'], as `jax.lax.conv_transpose` takes it.

  Returns:
    [N, 2H, 2W, C'].
  """
  even, odd = slice(1, 2), slice(0, 3, 2)

  def phase(rows, columns):
    taps = kernel[rows, columns]
    padding = ((0, taps.shape[0] - 1), (0, taps.shape[1] - 1))
    return _convolution(x, taps, (1, 1), padding)

  rows = [
    jnp.stack([phase(row, even), phase(row, odd)], axis=3)
    for row in (even, odd)
  ]
  n, h, w, _ = x.shape
  return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, kernel.shape[-1])


_STRIDE2 = ((2, 2), ((1, 0), (1, 0)))


def _conv_transpose_forward(x, kernel):
  return conv_transpose_stride2(x, kernel), (x, kernel)


def _conv_transpose_backward(saved, y_grad):
  x, kernel = saved
  flipped = kernel[::-1, ::-1].swapaxes(2, 3)
  x_grad = _convolution(y_grad, flipped, *_STRIDE2)
  flipped_grad = kernel_gradient(y_grad, x, (3, 3), *_STRIDE2)
  return x_grad, flipped_grad.swapaxes(2, 3)[::-1, ::-1]


conv_transpose_stride2.defvjp(_conv_transpose_forward, _conv_transpose_backward)


def conv_transpose_for_inference(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """`conv_transpose_stride2`, as one matrix product a picture on CPUs.

  Its phases are too narrow to be fast on large maps: the product gives all nine
  taps of every pixel at once, which are then added where they overlap.
  Arguments and result are those of `conv_transpose_stride2`.
  """
  if (
    x.shape[1] * x.shape[2] < 2304  # Below, the phases are as fast.
    or x.dtype != jnp.float32
    or jax.device_count() > 1  # See `kernel_gradient`.
  ):
    return conv_transpose_stride2(x, kernel)
  return jax.lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: jax.lax.map(
      lambda image: _conv_transpose_by_product(image, kernel), x
    ),
    default=conv_transpose_stride2,
  )


def _conv_transpose_by_product(x, kernel) -> jax.Array:
  """`conv_transpose_stride2` of one picture [H, W, C]."""
  h, w, c_in = x.shape
  c_out = kernel.shape[-1]
  taps = x.reshape(h * w, c_in) @ kernel.transpose(2, 0, 1, 3).reshape(c_in, -1)
  taps = jnp.pad(
    taps.reshape(h, w, 3, 3, c_out), ((0, 1), (0, 1), *((0, 0),) * 3)
  )

  # What a pixel (and the next ones below and to the right) adds to each output.
  def tap(i, j, below=0, right=0):
    return taps[below : h + below, right : w + right, i, j]

  even_rows = jnp.stack([tap(1, 1), tap(1, 0) + tap(1, 2, right=1)], axis=2)
  odd_rows = jnp.stack(
    [
      tap(0, 1) + tap(2, 1, below=1),
      tap(0, 0)
      + tap(0, 2, right=1)
      + tap(2, 0, below=1)
      + tap(2, 2, below=1, right=1),
    ],
    axis=2,
  )
  y = jnp.stack([even_rows, odd_rows], axis=1)
  return y.reshape(2 * h, 2 * w, c_out)


# Winograd's transforms for 4x4 outputs of a 3x3 kernel, at the points 0, 1, -1,
# 2, -2 and infinity: of the input, the kernel and the output (Lavin and Gray,
# "Fast Algorithms for Convolutional Neural Networks", 2015, section 4.3).
_INPUT_TRANSFORM = (
  (4, 0, -5, 0, 1, 0),
  (0, -4, -4, 1, 1, 0),
  (0, 4, -4, -1, 1, 0),
  (0, -2, -1, 2, 1, 0),
  (0, 2, -1, -2, 1, 0),
  (0, 4, 0, -5, 0, 1),
)
_KERNEL_TRANSFORM = (
  (1 / 4, 0, 0),
  (-1 / 6, -1 / 6, -1 / 6),
  (-1 / 6, 1 / 6, -1 / 6),
  (1 / 24, 1 / 12, 1 / 6),
  (1 / 24, -1 / 12, 1 / 6),
  (0, 0, 1),
)
_OUTPUT_TRANSFORM = (
  (1, 1, 1, 1, 1, 0),
  (0, 1, -1, 2, -2, 0),
  (0, 1, 1, 4, 4, 0),
  (0, 1, -1, 8, -8, 1),
)
# Numbers of a map that are transformed together: 5 MB, which stay in cache.
_WINOGRAD_BLOCK = 1_200_000
# Pixels of the smallest map for it: below, it is the kernel's transform that
# takes the time.
_LEAST_WINOGRAD_MAP = 144


def conv2d_for_inference(
  x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding
) -> jax.Array:
  """`conv2d`, by Winograd's algorithm where a CPU is faster by it.

  That is a quarter of the multiplications and five times the rounding error,
  3e-6: too much for training beside PyTorch, a hundredth of a level in a
  picture.  Arguments and result are those of `conv2d`.
  """
  _, h, w, c_in = x.shape
  if (
    kernel.shape[:2] != (3, 3)
    or strides != (1, 1)
    or padding != ((1, 1), (1, 1))
    or h * w < _LEAST_WINOGRAD_MAP
    or c_in < 32
    or kernel.shape[-1] < 32
    or x.dtype != jnp.float32
    or jax.device_count() > 1  # See `kernel_gradient`.
  ):
    return conv2d(x, kernel, strides, padding)
  return jax.lax.platform_dependent(
    x,
    kernel,
    cpu=_winograd,
    default=lambda x, kernel: conv2d(x, kernel, strides, padding),
  )


def _winograd(x, kernel) -> jax.Array:
  n, h, w, c_in = x.shape
  # Adding taps up, not a product with the transform: a tenth of the time.
  rows = jnp.stack(_combined(_KERNEL_TRANSFORM, list(kernel)))
  kernel = jnp.stack(
    _combined(_KERNEL_TRANSFORM, [rows[:, j] for j in range(3)])
  ).reshape(36, *kernel.shape[2:])
  most = max(1, _WINOGRAD_BLOCK // (h * w * c_in))
  images = max(k for k in range(1, min(n, most) + 1) if n % k == 0)
  if images == n:
    return _winograd_block(x, kernel)
  blocks = x.reshape(n // images, images, h, w, c_in)
  y = jax.lax.map(lambda block: _winograd_block(block, kernel), blocks)
  return y.reshape(n, h, w, -1)


def _winograd_block(x, kernel) -> jax.Array:
  """A 3x3 convolution of some images as 36 matrix products, one a point."""
  n, h, w, c_in = x.shape
  rows, columns = -(-h // 4), -(-w // 4)
  below, right = 4 * rows - h, 4 * columns - w
  x = jnp.pad(x, ((0, 0), (1, 1 + below), (1, 1 + right), (0, 0)))
  by_row = jnp.stack(
    _combined(_INPUT_TRANSFORM, [x[:, i::4][:, :rows] for i in range(6)])
  )
  tiles = jnp.stack(
    _combined(
      _INPUT_TRANSFORM,
      [by_row[:, :, :, j::4][:, :, :, :columns] for j in range(6)],
    )
  ).reshape(36, n * rows * columns, c_in)
  products = jax.lax.dot_general(tiles, kernel, (((2,), (1,)), ((0,), (0,))))
  products = products.reshape(6, 6, n, rows, columns, -1)
  by_column = jnp.stack(_combined(_OUTPUT_TRANSFORM, list(products)), axis=4)
  y = jnp.stack(_combined(_OUTPUT_TRANSFORM, list(by_column)), axis=2)
  return y.reshape(n, 4 * rows, 4 * columns, -1)[:, :h, :w]


def _combined(matrix, arrays) -> list[jax.Array]:
  """Returns one linear combination of the arrays for each row of a matrix."""
  return [
    sum(a if c == 1 else a * c for c, a in zip(row, arrays, strict=True) if c)
    for row in matrix
  ]
