"""Winograd's algorithm for 3x3 and 5x5 convolutions.

Tiles of m x m outputs of an r x r kernel are transformed to n x n points, n =
m + r - 1, where a convolution is a product of channels at each point, that is,
n^2 matrix products.  So is its gradient by the kernel.  Tiles of 2x2 outputs of
a 3x3 kernel take 2.25 times fewer multiplications and round less than a plain
convolution; those of 4x4 take four times fewer, and those of 2x2 of a 5x5
kernel 2.8 times, with two to three times the error.  Convolutions here have
stride 1, and zeros at the borders so that maps keep their size.  convolution.py
chooses where it is used.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from w2l_jax.models import image_blocks

# Points at which the polynomials of a tile are taken, beside infinity.  Those
# of six round a third less than 0, 1, -1, 2, -2, the usual ones (Barabasz et
# al., "Error Analysis and Improving the Accuracy of Winograd Convolution for
# Deep Neural Networks", 2020, on unsymmetric points).
_POINTS = {4: (0.0, 1.0, -1.0), 6: (0.0, 1.0, -1.0, 0.5, -2.0)}

# Numbers of the points that are computed together: 9 MB, which stay in cache.
_BLOCK = 2_300_000

Matrix = list[list[float]]


@functools.cache
def transforms(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
  """The transforms of an input tile, a kernel and an output tile, of one side.

  Cook and Toom's: a kernel and an output tile are coefficients of polynomials,
  whose product is found from its values at the points, and a convolution is the
  transpose of that product (Lavin and Gray, "Fast Algorithms for Convolutional
  Neural Networks", 2015, call them B^T, G and A^T).

  Args:
    m: outputs of a tile.
    r: taps of a kernel.  m + r - 1 is 4 or 6.

  Returns:
    Matrices [n, n], [n, r] and [m, n] with n = m + r - 1.
  """
  points = np.array(_POINTS[m + r - 1])
  others = [np.delete(points, k) for k in range(len(points))]
  # np.poly has the highest power first.
  of_input = [[*np.poly(o)[::-1], 0] for o in others] + [np.poly(points)[::-1]]
  of_kernel = [
    p ** np.arange(r) / np.prod(p - o)
    for p, o in zip(points, others, strict=True)
  ] + [np.eye(r)[-1]]
  of_output = [*np.vander(points, m, increasing=True), np.eye(m)[-1]]
  return tuple(
    np.array(a).tolist() for a in (of_input, of_kernel, np.transpose(of_output))
  )


def conv2d(
  x: jax.Array, kernel: jax.Array, m: int, transposed: bool = False
) -> jax.Array:
  """A convolution, or the transpose of one: its gradient by its input.

  Args:
    x: [N, H, W, C], float32.
    kernel: [r, r, C, C'], r odd; [r, r, C', C] of the one to be transposed.
    m: side of a tile; m + r - 1 is 4 or 6.
    transposed: whether `kernel` is another convolution's.

  Returns:
    [N, H, W, C'].
  """
  r = len(kernel)
  _, of_kernel, _ = transforms(m, r)
  if transposed:  # The channels change places in the product, without a copy.
    kernel = kernel[::-1, ::-1]
  points = _transformed(of_kernel, kernel).reshape(-1, *kernel.shape[2:])
  # Smaller blocks than the kernel's own points would be a matter of reading it.
  return image_blocks.mapped(
    lambda block: _conv2d_block(block, points, m, r, transposed),
    max(_BLOCK, points.size) / _points_of(x, m, r),
    x,
  )


def kernel_gradient(
  x: jax.Array, y_grad: jax.Array, m: int, r: int
) -> jax.Array:
  """The gradient of a convolution by its kernel.

  Args:
    x: [N, H, W, C], its input, float32.
    y_grad: [N, H, W, C'], the gradient by its output.
    m: side of a tile; m + r - 1 is 4 or 6.
    r: side of the kernel, odd.

  Returns:
    [r, r, C, C'].
  """
  _, of_kernel, of_output = transforms(m, r)
  back, of_gradient = (
    list(zip(*a, strict=True)) for a in (of_kernel, of_output)
  )

  def product(x, y_grad):
    return jax.lax.dot_general(
      _input_points(x, m, r),
      _points(of_gradient, _padded(y_grad, m), m, _tiles(y_grad, m)),
      (((1,), (1,)), ((0,), (0,))),
    )

  n = m + r - 1
  sizes = [_points_of(a, m, r) for a in (x, y_grad)]
  # Blocks smaller than the sum would be a matter of adding it up.
  least = n * n * x.shape[-1] * y_grad.shape[-1]
  most = max(_BLOCK / sum(sizes), least / max(sizes))
  total = image_blocks.summed(product, most, x, y_grad)
  return _transformed(back, total.reshape(n, n, *total.shape[1:]))


def _points_of(x, m, r) -> float:
  """How many numbers the points of one image of `x` are."""
  return x[0].size * ((m + r - 1) / m) ** 2


def _conv2d_block(x, kernel_points, m, r, transposed) -> jax.Array:
  """`conv2d` of some images: a matrix product for each point."""
  images, h, w, _ = x.shape
  (rows, columns), n = _tiles(x, m), m + r - 1
  channels = ((2,), (2 if transposed else 1,))
  products = jax.lax.dot_general(
    _input_points(x, m, r), kernel_points, (channels, ((0,), (0,)))
  ).reshape(n, n, images, rows, columns, -1)
  _, _, of_output = transforms(m, r)
  by_column = _combined(of_output, list(products))
  if m == 2:  # Both ways in one pass: so few sums are cheaper than memory.
    parts = [_combined(of_output, list(a)) for a in by_column]
    parts = [jnp.stack(a, axis=3) for a in zip(*parts, strict=True)]
  else:
    parts = _combined(of_output, list(jnp.stack(by_column, axis=4)))
  y = jnp.stack(parts, axis=2)
  return y.reshape(images, m * rows, m * columns, -1)[:, :h, :w]


def _input_points(x, m, r) -> jax.Array:
  """The points of images [N, H, W, C], whose tiles overlap by r - 1."""
  of_input, _, _ = transforms(m, r)
  return _points(of_input, _padded(x, m, border=r // 2), m, _tiles(x, m))


def _tiles(x, m) -> tuple[int, int]:
  """How many tiles of outputs cover a map's rows and its columns."""
  return -(-x.shape[1] // m), -(-x.shape[2] // m)


def _padded(x, m, border=0) -> jax.Array:
  """Images with zeros up to whole tiles, and at the borders."""
  (rows, columns), (h, w) = _tiles(x, m), x.shape[1:3]
  below, right = m * rows - h, m * columns - w
  sides = ((border, border + below), (border, border + right))
  return jnp.pad(x, ((0, 0), *sides, (0, 0)))


def _points(transform, x, m, tiles) -> jax.Array:
  """Tiles of images, m apart, transformed both ways: [points, tiles, C]."""
  rows, columns = tiles
  side = range(len(transform[0]))
  by_row = jnp.stack(_combined(transform, [x[:, i::m][:, :rows] for i in side]))
  points = jnp.stack(
    _combined(
      transform, [by_row[:, :, :, j::m][:, :, :, :columns] for j in side]
    )
  )
  return points.reshape(len(transform) ** 2, -1, x.shape[-1])


def _transformed(matrix, a) -> jax.Array:
  """[i, j, ...] transformed along its first two axes: [j', i', ...].

  By sums of arrays: as a product with the matrix it took ten times as long.
  """
  a = jnp.stack(_combined(matrix, list(a)))
  # Of a transposed array, each would be a copy first.
  return jnp.stack(_combined(matrix, [a[:, j] for j in range(a.shape[1])]))


def _combined(matrix, arrays) -> list[jax.Array]:
  """Returns one linear combination of the arrays for each row of a matrix."""
  return [
    sum(a if c == 1 else a * c for c, a in zip(row, arrays, strict=True) if c)
    for row in matrix
  ]
