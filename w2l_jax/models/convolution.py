"""Convolutions whose gradients are fast where XLA's are not.

XLA's CPU backend takes the gradient by a kernel as one convolution with the
whole map for its kernel: at large maps five times as slow as the forward pass,
and a sum of so many terms in a row that it loses a digit.  There the gradient
is written as matrix products here, image by image.  Accelerators keep XLA's
own.  docs/PERFORMANCE.md has the figures.
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
