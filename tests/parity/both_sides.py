"""What every comparison needs: the twins, their weights here, and distances."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import torch

from tests.parity.make_stored import randomise_statistics
from tests.parity.torch_networks import TWINS
from w2l_jax import models, torch_checkpoint
from w2l_jax.train_state import NetworkState, make_optimizer

MODELS = {
  "sync_expert": models.SyncExpert,
  "generator": models.Generator,
  "quality_discriminator": models.QualityDiscriminator,
}


@dataclasses.dataclass(frozen=True)
class Plan:
  """How much is compared.

  Attributes:
    width: of forward passes and gradients.
    expert_windows, generator_windows: in their batches.
    discriminator_batches: that its float32 errors are measured over.
    trajectory_width: of the training runs.
    expert_steps, gan_steps: of the training runs.
    gan_windows: in stage 2's training batches.
    broken_steps: of the runs with something broken.
    breakages: which of BREAKAGES; all if empty.
    bound_float32: whether float32 gradients must keep to FLOAT32_RATIO.  In
      narrow networks a single ReLU or sign of a difference that rounding tips
      over is a large part of a tensor.
  """

  width: float = 1.0
  expert_windows: int = 16
  generator_windows: int = 4
  discriminator_batches: int = 6
  trajectory_width: float = 0.25
  expert_steps: int = 100
  gan_steps: int = 50
  gan_windows: int = 8
  broken_steps: int = 5
  breakages: tuple[str, ...] = ()
  bound_float32: bool = True


def relative(a, b) -> float:
  """|a - b| / |b|."""
  a, b = np.float64(a), np.float64(b)
  return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-300))


@contextlib.contextmanager
def precision(dtype):
  """Lets JAX compute in float64 where that is asked for."""
  jax.config.update("jax_enable_x64", dtype == np.float64)
  try:
    yield
  finally:
    jax.config.update("jax_enable_x64", False)


def make_twins(width: float, dtype=np.float32) -> dict:
  """Returns the three twins, always with the same weights, in train mode."""
  torch.manual_seed(0)
  twins = {name: cls(width) for name, cls in TWINS.items()}
  for twin in twins.values():
    randomise_statistics(twin)
  torch_dtype = torch.float64 if dtype == np.float64 else torch.float32
  return {name: twin.to(torch_dtype) for name, twin in twins.items()}


def variables_of(twin, name: str, width: float, dtype) -> dict:
  """A twin's weights and statistics as Flax variables on the device."""
  arrays = {k: v.numpy() for k, v in twin.state_dict().items()}
  return jax.device_put(
    torch_checkpoint.from_state_dict(arrays, name, width=width, dtype=dtype)
  )


def network_state(variables: dict, optimizer) -> NetworkState:
  """Variables with their optimiser's first state, by a config's fields."""
  tx = make_optimizer(**optimizer)
  return NetworkState(
    variables["params"],
    variables.get("batch_stats", {}),
    tx.init(variables["params"]),
  )


def cast(data: dict, dtype) -> dict:
  """A batch in a precision."""
  return {k: jnp.asarray(v, dtype) for k, v in data.items()}


def statistics(state_dict: dict) -> np.ndarray:
  """All running means and variances in one array."""
  return np.concatenate(
    [
      v.ravel()
      for k, v in state_dict.items()
      if k.endswith(("running_mean", "running_var"))
    ]
  )
