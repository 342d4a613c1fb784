r"""How fast and how exact single convolutions are: XLA's, ours and PyTorch's.

  pip install -e '.[torch]'
  python -m tests.measurements.convolution_rates

Prints four tables: gradients by the kernel (convolution.kernel_gradient),
convolutions as training and inference have them (conv2d, conv2d_for_inference),
strided ones with their gradients by the input, and transposed ones.  The sides
take turns; rates are medians of wall time, errors are against float64.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags

from w2l_jax.models import convolution

_BATCH = flags.DEFINE_integer("batch_size", 16, "Pictures.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Turns of each side.", 1)

# Side of the map, channels before and after, side of the kernel: the networks'.
_GRADIENTS = (
  (96, 64, 64, 3),
  (48, 128, 128, 3),
  (48, 64, 64, 5),
  (24, 256, 256, 3),
  (24, 128, 128, 5),
  (12, 384, 384, 3),
  (12, 256, 256, 5),
  (6, 512, 512, 3),
)
_FORWARD = (
  (96, 64, 64, 3),
  (96, 80, 32, 3),
  (48, 128, 128, 3),
  (48, 32, 32, 3),
  (48, 64, 64, 5),
  (24, 256, 256, 3),
  (24, 128, 128, 5),
  (12, 384, 384, 3),
  (12, 128, 128, 3),
  (12, 256, 256, 5),
  (6, 512, 512, 3),
)
# Height, width, channels before and after, side of the kernel, strides.
_STRIDED = (
  (48, 96, 32, 64, 5, (1, 2)),
  (48, 48, 64, 128, 3, (2, 2)),
  (24, 24, 128, 256, 3, (2, 2)),
  (12, 12, 256, 512, 3, (2, 2)),
  (6, 6, 512, 512, 3, (2, 2)),
)
# Side of the map before it is doubled.
_TRANSPOSED = (
  (48, 160, 64),
  (24, 320, 128),
  (12, 512, 256),
  (6, 768, 384),
)


def rates(sides: dict, operations: float) -> dict[str, float]:
  """Returns GFLOP a second of {label: what to time, which waits for its end}.

  Args:
    sides: to be timed, in turns.
    operations: floating-point operations of each.
  """
  seconds = {label: [] for label in sides}
  for run in sides.values():
    run()
  for _ in range(_ROUNDS.value):
    for label, run in sides.items():
      began = time.perf_counter()
      run()
      seconds[label].append(time.perf_counter() - began)
  return {
    k: operations / 1e9 / statistics.median(v) for k, v in seconds.items()
  }


def relative(found, expected) -> float:
  """|a - b| / |b|."""
  found = np.asarray(found, np.float64)
  return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def drawn(size: int, before: int, after: int, kernel: int) -> list[np.ndarray]:
  """Returns pictures, a kernel and a gradient of the output."""
  rng = np.random.default_rng(0)
  n = _BATCH.value
  return [
    rng.normal(size=shape).astype(np.float32)
    for shape in (
      (n, size, size, before),
      (kernel, kernel, before, after),
      (n, size, size, after),
    )
  ]


def torch_kernel_gradient(x, y_grad, kernel, dtype):
  """Returns a function that gives PyTorch's gradient [h, w, C, C']."""
  x, y_grad = (
    torch.from_numpy(a).to(dtype).permute(0, 3, 1, 2).contiguous()
    for a in (x, y_grad)
  )
  shape = (y_grad.shape[1], x.shape[1], kernel, kernel)

  def run():
    return torch.nn.grad.conv2d_weight(x, shape, y_grad, padding=kernel // 2)

  return run


def line(label: str, found: dict[str, float], errors: list[float]) -> str:
  """Returns a line of a table."""
  cells = [f"{v:.0f}" for v in found.values()] + [f"{e:.1e}" for e in errors]
  return "| " + " | ".join([label, *cells]) + " |"


def gradient_row(size: int, before: int, after: int, kernel: int) -> str:
  """Returns a line of the first table."""
  x, weights, y_grad = drawn(size, before, after, kernel)
  geometry = ((1, 1), ((kernel // 2,) * 2,) * 2)
  ours = jax.jit(
    lambda x, g: convolution.kernel_gradient(x, g, (kernel, kernel), *geometry)
  )

  def native(x, y_grad):
    _, vjp = jax.vjp(
      lambda k: jax.lax.conv_general_dilated(
        x, k, *geometry, dimension_numbers=("NHWC", "HWIO", "NHWC")
      ),
      jnp.asarray(weights),
    )
    return vjp(y_grad)[0]

  native = jax.jit(native)
  x_, y_grad_ = jnp.asarray(x), jnp.asarray(y_grad)
  theirs = torch_kernel_gradient(x, y_grad, kernel, torch.float32)
  truth = torch_kernel_gradient(x, y_grad, kernel, torch.float64)()
  truth = truth.permute(2, 3, 1, 0).numpy()
  sides = {
    "XLA": lambda: native(x_, y_grad_).block_until_ready(),
    "here": lambda: ours(x_, y_grad_).block_until_ready(),
    "PyTorch": theirs,
  }
  found = rates(sides, 2.0 * x.size * kernel**2 * after)
  errors = [
    relative(a, truth)
    for a in (
      native(x_, y_grad_),
      ours(x_, y_grad_),
      theirs().permute(2, 3, 1, 0).numpy(),
    )
  ]
  return line(
    f"{kernel}x{kernel}, {before} to {after}, {size}x{size}", found, errors
  )


def forward_row(size: int, before: int, after: int, kernel: int) -> str:
  """Returns a line of the second table."""
  x, weights, _ = drawn(size, before, after, kernel)
  geometry = ((1, 1), ((kernel // 2,) * 2,) * 2)
  x_, weights_ = jnp.asarray(x), jnp.asarray(weights)

  def native(x, kernel, *geometry):
    return jax.lax.conv_general_dilated(
      x, kernel, *geometry, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  ours = {
    label: jax.jit(lambda x, k, f=f: f(x, k, *geometry))
    for label, f in (
      ("XLA", native),
      ("training", convolution.conv2d),
      ("inference", convolution.conv2d_for_inference),
    )
  }
  x64, weights64 = (
    torch.from_numpy(x).double().permute(0, 3, 1, 2),
    torch.from_numpy(weights).double().permute(3, 2, 0, 1),
  )
  x32, weights32 = x64.float().contiguous(), weights64.float().contiguous()

  def theirs(x, weights):
    return torch.nn.functional.conv2d(x, weights, padding=kernel // 2)

  truth = theirs(x64, weights64).permute(0, 2, 3, 1).numpy()
  sides = {
    label: lambda f=f: f(x_, weights_).block_until_ready()
    for label, f in ours.items()
  } | {"PyTorch": lambda: theirs(x32, weights32)}
  found = rates(sides, 2.0 * x.size * kernel**2 * after)
  results = [f(x_, weights_) for f in ours.values()]
  results.append(theirs(x32, weights32).permute(0, 2, 3, 1).numpy())
  errors = [relative(a, truth) for a in results]
  return line(
    f"{kernel}x{kernel}, {before} to {after}, {size}x{size}", found, errors
  )


def strided_rows(height, width, before, after, kernel, strides) -> str:
  """Returns two lines of the third table: forward, gradient by the input."""
  rng = np.random.default_rng(0)
  shape = (_BATCH.value, height, width, before)
  x = rng.normal(size=shape).astype(np.float32)
  weights = rng.normal(size=(kernel, kernel, before, after)).astype(np.float32)
  padding = ((kernel // 2,) * 2,) * 2

  def native(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  def native_gradient(y_grad, kernel):
    return jax.vjp(lambda x: native(x, kernel), jnp.asarray(x))[1](y_grad)[0]

  def ours(x, kernel):
    return convolution.conv2d(x, kernel, strides, padding)

  def our_gradient(y_grad, kernel):
    return convolution.input_gradient(
      y_grad, kernel, (height, width), strides, padding
    )

  def theirs(x, weights):
    return torch.nn.functional.conv2d(
      x, weights, stride=strides, padding=kernel // 2
    )

  def their_gradient(y_grad, weights):
    return torch.nn.grad.conv2d_input(
      (len(x), before, height, width),
      weights,
      y_grad,
      stride=strides,
      padding=kernel // 2,
    )

  y_shape = jax.eval_shape(native, x, weights).shape
  y_grad = rng.normal(size=y_shape).astype(np.float32)
  label = (
    f"{kernel}x{kernel}, strides {strides}, {before} to {after}, "
    f"{height}x{width}"
  )
  others = (
    2.0 * y_grad.size * kernel**2 * before,
    torch.from_numpy(weights).permute(3, 2, 0, 1),
  )
  return "\n".join(
    (
      _row(
        label, (x, weights), (jax.jit(native), jax.jit(ours), theirs), *others
      ),
      _row(
        "its gradient by the input",
        (y_grad, weights),
        (jax.jit(native_gradient), jax.jit(our_gradient), their_gradient),
        *others,
      ),
    )
  )


def transposed_row(size: int, before: int, after: int) -> str:
  """Returns a line of the fourth table."""
  x, weights, _ = drawn(size, before, after, 3)

  def native(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (1, 1),
      ((1, 2), (1, 2)),
      lhs_dilation=(2, 2),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  def theirs(x, weights):
    return torch.nn.functional.conv_transpose2d(
      x, weights, stride=2, padding=1, output_padding=1
    )

  return _row(
    f"{before} to {after}, from {size}x{size}",
    (x, weights),
    (jax.jit(native), jax.jit(convolution.conv_transpose_stride2), theirs),
    2.0 * x.size * 9 * after,
    # PyTorch's is [in, out, h, w], turned by 180 degrees.
    torch.from_numpy(weights[::-1, ::-1].copy()).permute(2, 3, 0, 1),
  )


def _row(label, arrays, sides, operations, torch_weights) -> str:
  """Returns a line of XLA's, ours and PyTorch's rates and errors."""
  native, ours, theirs = sides
  x, weights = (jnp.asarray(a) for a in arrays)
  x64 = torch.from_numpy(arrays[0]).double().permute(0, 3, 1, 2)
  x32, weights32 = x64.float().contiguous(), torch_weights.contiguous()
  truth = theirs(x64, torch_weights.double()).permute(0, 2, 3, 1).numpy()
  found = rates(
    {
      "XLA": lambda: native(x, weights).block_until_ready(),
      "here": lambda: ours(x, weights).block_until_ready(),
      "PyTorch": lambda: theirs(x32, weights32),
    },
    operations,
  )
  results = (
    native(x, weights),
    ours(x, weights),
    theirs(x32, weights32).permute(0, 2, 3, 1).numpy(),
  )
  return line(label, found, [relative(a, truth) for a in results])


def main(argv):
  """Prints the tables."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  print(
    "| kernel gradient | XLA | here | PyTorch | error: XLA | here | PyTorch |\n"
    "|---|---|---|---|---|---|---|"
  )
  for row in _GRADIENTS:
    print(gradient_row(*row), flush=True)
  print(
    "\n| forward | XLA | training | inference | PyTorch | error: XLA "
    "| training | inference | PyTorch |\n|---|---|---|---|---|---|---|---|---|"
  )
  with torch.inference_mode():
    for row in _FORWARD:
      print(forward_row(*row), flush=True)
    for label, function, rows in (
      ("strided", strided_rows, _STRIDED),
      ("transposed", transposed_row, _TRANSPOSED),
    ):
      print(
        f"\n| {label} | XLA | here | PyTorch | error: XLA | here | PyTorch |\n"
        "|---|---|---|---|---|---|---|"
      )
      for row in rows:
        print(function(*row), flush=True)


if __name__ == "__main__":
  app.run(main)
