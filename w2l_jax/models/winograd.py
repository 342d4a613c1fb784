"""Winograd's algorithm for 3x3 convolutions: 36 multiplications where 144 are.

Tiles of m x m outputs are transformed to (m + 2)^2 points, where a convolution
is a product of channels at each point, that is, (m + 2)^2 matrix products.  So
is its gradient by the kernel.  With m = 2 that is 2.25 times fewer
multiplications and a smaller rounding error than a plain convolution's; with 4
four times fewer and two to three times the error.  Convolutions here have
stride 1 and one zero at each border.  convolution.py chooses where it is used.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Points at which the polynomials of a tile are taken, beside infinity.  Those
# of m = 4 round a third less than 0, 1, -1, 2, -2, the usual ones (Barabasz et
# al., "Error Analysis and Improving the Accuracy of Winograd Convolution for
# Deep Neural Networks", 2020, on unsymmetric points).
_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 1.0, -1.0, 0.5, -2.0)}

# Numbers of a map that are transformed together: 5 MB, which stay in cache.
_BLOCK = 1_200_000

Matrix = list[list[float]]


@functools.cache
def transforms(m: int) -> tuple[Matrix, Matrix, Matrix]:
  """The transforms of an input tile, a kernel and an output tile, of one side.

  Cook and Toom's: a kernel and an output tile are coefficients of polynomials,
  whose product is found from its values at the points, and a convolution is the
  transpose of that product (Lavin and Gray, "Fast Algorithms for Convolutional
  Neural Networks", 2015, call them B^T, G and A^T).

  Args:
    m: outputs of a tile, 2 or 4.

  Returns:
    Matrices [m + 2, m + 2], [m + 2, 3] and [m, m + 2].
  """
  points = np.array(_POINTS[m])
  others = [np.delete(points, k) for k in range(m + 1)]
  # np.poly has the highest power first.
  of_input = [[*np.poly(o)[::-1], 0] for o in others] + [np.poly(points)[::-1]]
  of_kernel = [
    p ** np.arange(3) / np.prod(p - o)
    for p, o in zip(points, others, strict=True)
  ] + [[0, 0, 1]]
  of_output = [*np.vander(points, m, increasing=True), np.eye(m)[-1]]
  return tuple(
    np.array(a).tolist() for a in (of_input, of_kernel, np.transpose(of_output))
  )


def conv2d(x: jax.Array, kernel: jax.Array, m: int) -> jax.Array:
  """A 3x3 convolution.

  Args:
    x: [N, H, W, C], float32.
    kernel: [3, 3, C, C'].
    m: side of a tile, 2 or 4.

  Returns:
    [N, H, W, C'].
  """
  _, of_kernel, _ = transforms(m)
  points = _transformed(of_kernel, kernel).reshape(-1, *kernel.shape[2:])
  (blocks,) = _in_blocks(x)
  if len(blocks) == 1:
    return _conv2d_block(x, points, m)
  y = jax.lax.map(lambda block: _conv2d_block(block, points, m), blocks)
  return y.reshape(*x.shape[:3], -1)


def kernel_gradient(x: jax.Array, y_grad: jax.Array, m: int) -> jax.Array:
  """The gradient of a 3x3 convolution by its kernel.

  Args:
    x: [N, H, W, C], its input, float32.
    y_grad: [N, H, W, C'], the gradient by its output.
    m: side of a tile, 2 or 4.

  Returns:
    [3, 3, C, C'].
  """
  _, of_kernel, of_output = transforms(m)
  back, of_gradient = (
    list(zip(*a, strict=True)) for a in (of_kernel, of_output)
  )

  def add(total, block):
    x, y_grad = block
    product = jax.lax.dot_general(
      _input_points(x, m),
      _points(of_gradient, _padded(y_grad, m), m, _tiles(y_grad, m)),
      (((1,), (1,)), ((0,), (0,))),
    )
    return total + product, None

  total = jnp.zeros(((m + 2) ** 2, x.shape[-1], y_grad.shape[-1]), x.dtype)
  total, _ = jax.lax.scan(add, total, _in_blocks(x, y_grad))
  return _transformed(back, total.reshape(m + 2, m + 2, *total.shape[1:]))


def _in_blocks(*arrays) -> list[jax.Array]:
  """[N, ...] arrays as [blocks, N / blocks, ...], small enough for a cache."""
  n = len(arrays[0])
  most = max(1, _BLOCK // max(a[0].size for a in arrays))
  images = max(k for k in range(1, min(n, most) + 1) if n % k == 0)
  return [a.reshape(n // images, images, *a.shape[1:]) for a in arrays]


def _conv2d_block(x, kernel_points, m) -> jax.Array:
  """`conv2d` of some images: a matrix product for each point."""
  n, h, w, _ = x.shape
  rows, columns = _tiles(x, m)
  products = jax.lax.dot_general(
    _input_points(x, m), kernel_points, (((2,), (1,)), ((0,), (0,)))
  ).reshape(m + 2, m + 2, n, rows, columns, -1)
  _, _, of_output = transforms(m)
  by_column = jnp.stack(_combined(of_output, list(products)), axis=4)
  y = jnp.stack(_combined(of_output, list(by_column)), axis=2)
  return y.reshape(n, m * rows, m * columns, -1)[:, :h, :w]


def _input_points(x, m) -> jax.Array:
  """The points of images [N, H, W, C], whose tiles overlap by 2."""
  of_input, _, _ = transforms(m)
  return _points(of_input, _padded(x, m, border=1), m, _tiles(x, m))


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
  return jnp.stack(_combined(matrix, list(a.swapaxes(0, 1))))


def _combined(matrix, arrays) -> list[jax.Array]:
  """Returns one linear combination of the arrays for each row of a matrix."""
  return [
    sum(a if c == 1 else a * c for c, a in zip(row, arrays, strict=True) if c)
    for row in matrix
  ]
