"""Convolutions that are fast where XLA's are not; functions, no parameters.

XLA's CPU backend takes the gradient by a kernel as one convolution with the
whole map for its kernel: at large maps five times as slow as the forward pass,
and a sum of so many terms in a row that it loses a digit.  There the gradient
is written as matrix products here, some images at a time.  So are wide 3x3
convolutions of stride 2, their gradients by the input, 5x5 ones of stride
(1, 2), and transposed convolutions.  3x3 and 5x5 convolutions of stride 1 and
their gradients are Winograd's where channels and maps are large enough
(winograd.py has the algorithm), odd numbers of channels are filled up with
zeros, and the gradient by the input of other strided ones is taken in phases.
Accelerators keep XLA's own of all these, except that a TPU takes a transposed
convolution in its four phases, and a GPU gets gradients by kernels in the order
that the kernels have.
docs/PERFORMANCE.md has the figures; layers.py has the blocks that call this.
"""

import functools

import jax
import jax.numpy as jnp

from w2l_jax.models import image_blocks, winograd

_NHWC = ("NHWC", "HWIO", "NHWC")

Padding = tuple[tuple[int, int], tuple[int, int]]


def _convolution(x, kernel, strides, padding) -> jax.Array:
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=_NHWC
  )


# Pixels of a map: below the first number, tiles do not pay; from the second on,
# those of 4x4 outputs are faster than those of 2x2 (below, it is the kernel's
# transform that takes the time).
_LEAST_TILED_MAP, _LEAST_MAP_OF_LARGE_TILES = 36, 144
# Of the narrower side of a kernel, for tiles, for products in place of XLA's
# forward and input gradient, and for phases of the latter.  Of narrow networks
# some runs are asked to have the same bits (resident_data_test.py), which
# phases of few channels do not keep: a program that holds more than the step
# rounds them otherwise.
_LEAST_CHANNELS = 32
# What odd numbers of input channels are filled up to a multiple of, by zeros: a
# 7x7 kernel is 1.9 times as fast over 16 of them as over 15, and 4 times as
# fast over 4 as over 3.
_VECTOR = 4
# Kernels and strides of which a CPU is faster by products, of those measured.
_OF_PRODUCTS = {(3, 3, 2, 2), (5, 5, 1, 2)}
# Bytes of operands, or of a result that is larger than they are, of products of
# some images at a time; on processors of 1 MB a core and 32 MB together, these
# were fastest.
_OPERAND_BYTES, _RESULT_BYTES = 4_000_000, 11_000_000


def _is_winograds(x, kernel_shape, strides, padding) -> bool:
  """Whether a CPU is faster by Winograd's algorithm."""
  h, w, c_in, c_out = kernel_shape
  border = (h // 2, h // 2)
  return (
    h == w
    and h in (3, 5)
    and (strides, padding) == ((1, 1), (border, border))
    and x.shape[1] * x.shape[2] >= _LEAST_TILED_MAP
    and min(c_in, c_out) >= _LEAST_CHANNELS
    and x.dtype == jnp.float32
    and jax.device_count() == 1  # See `kernel_gradient`.
  )


def _is_of_products(kernel_shape, strides, dtype) -> bool:
  """Whether a CPU is faster at this strided convolution by products."""
  h, w, c_in, c_out = kernel_shape
  return (
    (h, w, *strides) in _OF_PRODUCTS
    and min(c_in, c_out) >= _LEAST_CHANNELS
    and dtype == jnp.float32
    and jax.device_count() == 1  # See `kernel_gradient`.
  )


def _largest_tile(x, kernel_size) -> int:
  """The side of the tiles that are fastest."""
  large = x.shape[1] * x.shape[2] >= _LEAST_MAP_OF_LARGE_TILES
  return 4 if large and kernel_size == (3, 3) else 2


def _fastest_convolution(x, kernel, strides, padding, tile) -> jax.Array:
  """A convolution; on a CPU by whichever of the ways below is fastest.

  `tile` is the side of Winograd's.
  """

  def native(x, kernel):
    return _convolution(x, kernel, strides, padding)

  def by_products(x, kernel):
    return _strided_by_products(x, kernel, strides, padding)

  def of_whole_vectors(x, kernel):
    more = -x.shape[-1] % _VECTOR
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more)))
    return native(x, jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0))))

  if _is_winograds(x, kernel.shape, strides, padding):
    faster = functools.partial(winograd.conv2d, m=tile)
  elif _is_of_products(kernel.shape, strides, x.dtype):
    faster = by_products
  elif x.shape[-1] % 2 and x.shape[-1] > 1:  # One picture's three, five's 15.
    faster = of_whole_vectors
  else:
    return native(x, kernel)
  return jax.lax.platform_dependent(x, kernel, cpu=faster, default=native)


def _strided_by_products(x, kernel, strides, padding) -> jax.Array:
  """A convolution as matrix products, as `_kernel_gradient_by_products`.

  The columns' taps are laid side by side in the input's channels, those of the
  rows that leave the same remainder by the stride in the product's, whose parts
  are then added up where they meet.
  """
  h, w, c_in, c_out = kernel.shape
  row_stride, column_stride = strides
  rows, columns = (
    (x.shape[1 + i] + sum(padding[i]) - kernel.shape[i]) // strides[i] + 1
    for i in range(2)
  )

  def of_some(x):
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    parts = []
    for remainder in range(min(row_stride, h)):
      by_tap = kernel[remainder::row_stride]
      shifts = len(by_tap)
      some = x[:, remainder::row_stride][:, : rows + shifts - 1]
      taps = [some[:, :, j::column_stride][:, :, :columns] for j in range(w)]
      product = jnp.concatenate(taps, axis=-1).reshape(-1, w * c_in) @ (
        by_tap.reshape(shifts, w * c_in, c_out)
        .swapaxes(0, 1)
        .reshape(w * c_in, -1)
      )
      product = product.reshape(len(x), -1, columns, shifts, c_out)
      parts += [product[:, i : i + rows, :, i] for i in range(shifts)]
    return sum(parts)

  operand = x.shape[1] * columns * w * c_in * x.dtype.itemsize
  return image_blocks.mapped(of_some, _OPERAND_BYTES / operand, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(
  x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding
) -> jax.Array:
  """A convolution, as `jax.lax.conv_general_dilated` has it.

  On a CPU, wide 3x3 and 5x5 ones of stride 1 are Winograd's: 3x3 in tiles of
  2x2 outputs, which round less than XLA's own, 5x5 up to 3.3 times as much.

  Args:
    x: [N, H, W, C].
    kernel: [h, w, C, C'], of x's dtype.
    strides: of rows and columns.
    padding: zeros before and after the rows and the columns.

  Returns:
    [N, H', W', C'].
  """
  return _fastest_convolution(x, kernel, strides, padding, 2)


def _conv2d_forward(x, kernel, strides, padding):
  return conv2d(x, kernel, strides, padding), (x, kernel)


def _conv2d_backward(strides, padding, saved, y_grad):
  x, kernel = saved
  x_grad = input_gradient(y_grad, kernel, x.shape[1:3], strides, padding)
  kernel_grad = kernel_gradient(x, y_grad, kernel.shape[:2], strides, padding)
  return x_grad, kernel_grad


conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def input_gradient(
  y_grad: jax.Array,
  kernel: jax.Array,
  size: tuple[int, int],
  strides: tuple[int, int],
  padding: Padding,
) -> jax.Array:
  """The gradient of `conv2d` by its input.

  Args:
    y_grad: [N, H', W', C'], the gradient by its output.
    kernel: [h, w, C, C'].
    size: H and W of its input.
    strides, padding: its own.

  Returns:
    [N, H, W, C].
  """

  def native(y_grad, kernel):
    x = jnp.zeros((len(y_grad), *size, kernel.shape[2]), y_grad.dtype)
    _, vjp = jax.vjp(lambda x: _convolution(x, kernel, strides, padding), x)
    return vjp(y_grad)[0]

  def by_phases(y_grad, kernel):
    return _transposed_by_phases(y_grad, kernel, size, strides, padding)

  def by_product(y_grad, kernel):
    return _transposed_by_product(y_grad, kernel, size, strides, padding)

  def by_tiles(y_grad, kernel):
    return winograd.conv2d(y_grad, kernel, 2, transposed=True)

  if _is_winograds(y_grad, kernel.shape, strides, padding):
    faster = by_tiles
  elif strides == (1, 1) or min(kernel.shape[2:]) < _LEAST_CHANNELS:
    return native(y_grad, kernel)
  elif kernel.shape[:2] == (3, 3) and _is_of_products(
    kernel.shape, strides, y_grad.dtype
  ):
    faster = by_product
  else:
    faster = by_phases
  return jax.lax.platform_dependent(y_grad, kernel, cpu=faster, default=native)


def _transposed_by_product(y, kernel, size, strides, padding) -> jax.Array:
  """`input_gradient` as a matrix product.

  It gives what each pixel of `y` adds by each tap; these are then added up
  where they meet.
  """
  h, w, c_in, c_out = kernel.shape
  rows, columns = y.shape[1:3]
  # As many taps meet in a pixel; so many pixels are found, borders included.
  meet = [-(-kernel.shape[i] // strides[i]) for i in range(2)]
  found = [
    max(
      -(-(size[i] + padding[i][0]) // strides[i]), y.shape[1 + i] + meet[i] - 1
    )
    for i in range(2)
  ]
  by_tap = kernel.transpose(3, 0, 1, 2).reshape(c_out, -1)

  def of_some(y):
    taps = (y.reshape(-1, c_out) @ by_tap).reshape(*y.shape[:3], h, w, c_in)

    def phase(row, column):
      """Pixels whose numbers leave these remainders by the strides."""
      parts = []
      for i in range(row, h, strides[0]):
        for j in range(column, w, strides[1]):
          below, right = i // strides[0], j // strides[1]
          around = (
            (below, found[0] - rows - below),
            (right, found[1] - columns - right),
          )
          parts.append(jnp.pad(taps[:, :, :, i, j], ((0, 0), *around, (0, 0))))
      return sum(parts)

    x = jnp.stack(
      [
        jnp.stack([phase(i, j) for j in range(strides[1])], axis=3)
        for i in range(strides[0])
      ],
      axis=2,
    )
    x = x.reshape(len(y), found[0] * strides[0], found[1] * strides[1], c_in)
    top, left = padding[0][0], padding[1][0]
    return x[:, top : top + size[0], left : left + size[1]]

  result = rows * columns * h * w * c_in * y.dtype.itemsize
  return image_blocks.mapped(of_some, _RESULT_BYTES / result, y)


def _transposed_by_phases(y, kernel, size, strides, padding) -> jax.Array:
  """`input_gradient` phase by phase.

  Rows and columns of the result whose numbers leave the same remainders by the
  strides are a convolution of `y` by the taps that meet them: no zeros are put
  between the pixels of `y`, most of which would be multiplied.
  """

  def phases(axis):
    """For each remainder: (slice of its taps, their number, the padding)."""
    stride, (before, _) = strides[axis], padding[axis]
    pixels, taps = -(-size[axis] // stride), kernel.shape[axis]
    for remainder in range(stride):
      first = (remainder + before) % stride
      count = len(range(first, taps, stride))
      # By tap `first`, pixel m meets y's pixel m + last; by the next, the one
      # before.
      last = (remainder + before) // stride
      around = (count - 1 - last, pixels + last - y.shape[1 + axis])
      yield slice(first, None, stride), count, around

  rows = []
  for row_taps, height, rows_around in phases(0):
    columns = []
    for column_taps, width, columns_around in phases(1):
      if height and width:
        taps = _flipped(kernel[row_taps, column_taps])
        part = _convolution(y, taps, (1, 1), (rows_around, columns_around))
      else:  # Strides larger than the kernel step over these pixels.
        pixels = (-(-s // t) for s, t in zip(size, strides, strict=True))
        part = jnp.zeros((len(y), *pixels, kernel.shape[2]), y.dtype)
      columns.append(part)
    rows.append(jnp.stack(columns, axis=3))
  x = jnp.stack(rows, axis=2)
  n, h, row_stride, w, column_stride, c = x.shape
  x = x.reshape(n, h * row_stride, w * column_stride, c)
  return x[:, : size[0], : size[1]]


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
    def of_some(x, y_grad):
      return _kernel_gradient_by_products(
        x, y_grad, kernel_size, strides, padding
      )

    most = len(x)
    # The compiler splits a product by the batch, but not a loop over it.
    if jax.device_count() == 1:
      most = _OPERAND_BYTES / _operands(x, y_grad, kernel_size, strides)
    return image_blocks.summed(of_some, most, x, y_grad).astype(x.dtype)

  def by_tiles(x, y_grad):
    tile = _largest_tile(x, kernel_size)
    return winograd.kernel_gradient(x, y_grad, tile, kernel_size[0])

  def in_order(x, y_grad):
    # cuDNN's order is [C', h, w, C].  XLA would keep it up to the optimiser,
    # and turn what that holds in float32 round, there and back.
    flat = jax.lax.optimization_barrier(native(x, y_grad).reshape(-1))
    return flat.reshape(kernel_shape)

  kernel_shape = (*kernel_size, x.shape[-1], y_grad.shape[-1])
  if _is_winograds(x, kernel_shape, strides, padding):
    on_cpu = by_tiles
  elif y_grad.shape[1] * y_grad.shape[2] < 9 or x.shape[-1] < 4:
    # Building the products' operands takes longer than it saves.
    on_cpu = native
  else:
    on_cpu = products
  return jax.lax.platform_dependent(
    x, y_grad, cpu=on_cpu, cuda=in_order, default=native
  )


def _operands(x, y_grad, kernel_size, strides) -> int:
  """Bytes of one image's operands in `_kernel_gradient_by_products`."""
  (h, w), (row_stride, _) = kernel_size, strides
  _, rows, columns, c_out = y_grad.shape
  shifts = -(-h // row_stride)
  pixels = (rows + shifts - 1) * columns
  return pixels * (w * x.shape[-1] + shifts * c_out) * x.dtype.itemsize


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
  """A 3x3 transposed convolution of stride 2.

  Equal to dilating `x` by 2 and padding it by (1, 2), but no zeros are
  multiplied: on a GPU it is cuDNN's gradient of a convolution, wide ones on
  CPUs are a matrix product, others their four phases, that is, each parity of
  output rows and columns by itself: even outputs take the middle tap of x[m],
  odd ones the outer taps over x[m], x[m + 1].  Its gradients are those of the
  convolution that it is the transpose of.

  Args:
    x: [N, H, W, C].
    kernel: [3, 3, C, C'], as `jax.lax.conv_transpose` takes it.

  Returns:
    [N, 2H, 2W, C'].
  """
  size = (2 * x.shape[1], 2 * x.shape[2])

  def by_phases(x, kernel):
    return _transposed_by_phases(x, _flipped(kernel), size, *_STRIDE2)

  def by_product(x, kernel):
    return _transposed_by_product(x, _flipped(kernel), size, *_STRIDE2)

  def native(x, kernel):
    y = jnp.zeros((len(x), *size, kernel.shape[3]), x.dtype)
    _, vjp = jax.vjp(lambda y: _convolution(y, _flipped(kernel), *_STRIDE2), y)
    return vjp(x)[0]

  wide = _is_of_products(kernel.shape, _STRIDE2[0], x.dtype)
  on_cpu = by_product if wide else by_phases
  return jax.lax.platform_dependent(
    x, kernel, cpu=on_cpu, cuda=native, default=by_phases
  )


# Strides and padding of the convolution that it is the transpose of.  The zeros
# below and to the right meet no window; without them cuDNN, which pads both
# sides alike, is given a copy of the map.
_STRIDE2 = ((2, 2), ((1, 1), (1, 1)))


def _flipped(kernel) -> jax.Array:
  """The kernel [h, w, C', C] of the transpose of a convolution by `kernel`."""
  return kernel[::-1, ::-1].swapaxes(2, 3)


def _conv_transpose_forward(x, kernel):
  return conv_transpose_stride2(x, kernel), (x, kernel)


def _conv_transpose_backward(saved, y_grad):
  x, kernel = saved
  x_grad = conv2d(y_grad, _flipped(kernel), *_STRIDE2)
  flipped_grad = kernel_gradient(y_grad, x, (3, 3), *_STRIDE2)
  return x_grad, _flipped(flipped_grad)


conv_transpose_stride2.defvjp(_conv_transpose_forward, _conv_transpose_backward)


def conv2d_for_inference(
  x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding
) -> jax.Array:
  """`conv2d`, on a CPU in larger tiles.

  They round two to three times as much: too much for training beside PyTorch, a
  hundredth of a level in a picture.  Arguments and result are those of
  `conv2d`.
  """
  return _fastest_convolution(
    x, kernel, strides, padding, _largest_tile(x, kernel.shape[:2])
  )
