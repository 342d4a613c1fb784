"""What training carries from step to step, as pytrees of arrays alone.

Modules and optimisers stay in the step factories' closures; the frozen expert
is in neither: it is an argument of the stage-2 step.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class NetworkState:
  """One trained network.

  Attributes:
    params: what the optimiser changes.
    batch_stats: BatchNorm's running mean and (biased) variance; {} if none.
    opt_state: the optimiser's.
  """

  params: Any
  batch_stats: Any
  opt_state: Any

  @property
  def variables(self) -> dict:
    """What `Module.apply` takes."""
    if not self.batch_stats:
      return {"params": self.params}
    return {"params": self.params, "batch_stats": self.batch_stats}

  def updated(self, grads, tx: optax.GradientTransformation, batch_stats):
    """Returns the state after one optimiser step."""
    updates, opt_state = tx.update(grads, self.opt_state, self.params)
    return NetworkState(
      optax.apply_updates(self.params, updates), batch_stats, opt_state
    )


@flax.struct.dataclass
class ExpertTrainState:
  """Stage 1.

  Attributes:
    step: how many steps have been made; also the data position.
    expert: the sync expert.
  """

  step: jax.Array
  expert: NetworkState


@flax.struct.dataclass
class GeneratorTrainState:
  """Stage 2.

  Attributes:
    step: how many steps have been made; also the data position.
    generator: the generator.
    discriminator: the quality discriminator; None without adversarial loss.
    sync_weight: the sync loss's weight now; evaluation switches it on.
    ema_params: moving average of the generator's params; None when off.  The
      running statistics have no other average than BatchNorm's own.
  """

  step: jax.Array
  generator: NetworkState
  discriminator: NetworkState | None
  sync_weight: jax.Array
  ema_params: Any = None

  def variables(self, ema: bool) -> dict:
    """The generator's, with the averaged params if asked."""
    if not ema:
      return self.generator.variables
    return self.generator.replace(params=self.ema_params).variables


def make_optimizer(
  learning_rate: float,
  b1: float,
  b2: float,
  eps: float,
  decay_steps: int,
  clip_norm: float,
  warmup_steps: int = 0,
) -> optax.GradientTransformation:
  """Returns Adam, at a constant rate or one that rises first or falls to 0.

  Args:
    learning_rate: at the start, or when it has risen.
    b1, b2, eps: Adam's.
    decay_steps: the step at which the rate, falling along a half cosine, is 0;
      0 keeps it constant, as the original does.
    clip_norm: gradients longer than this are shortened to it; 0 leaves them,
      as the original does.
    warmup_steps: over how many steps the rate rises from 0 first.

  Raises:
    ValueError: if the rate would rise for longer than it falls.
  """
  if decay_steps and warmup_steps >= decay_steps:
    raise ValueError(
      f"warmup_steps is {warmup_steps}, expected less than decay_steps "
      f"{decay_steps}"
    )
  rate = learning_rate
  if decay_steps:
    rate = optax.cosine_decay_schedule(
      learning_rate, decay_steps - warmup_steps
    )
  if warmup_steps:
    rise = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    rest = rate if decay_steps else optax.constant_schedule(learning_rate)
    rate = optax.join_schedules([rise, rest], [warmup_steps])
  adam = optax.adam(rate, b1, b2, eps)
  if clip_norm:
    return optax.chain(optax.clip_by_global_norm(clip_norm), adam)
  return adam


def _is_adam(x) -> bool:
  return isinstance(x, optax.ScaleByAdamState)


def adam_of(opt_state) -> optax.ScaleByAdamState:
  """Returns Adam's own part of `make_optimizer`'s state."""
  parts = jax.tree.leaves(opt_state, is_leaf=_is_adam)
  (adam,) = (part for part in parts if _is_adam(part))
  return adam


def with_adam(opt_state, adam: optax.ScaleByAdamState):
  """Returns `make_optimizer`'s state with Adam's part replaced.

  A decaying rate still starts at its beginning.
  """
  return jax.tree.map(
    lambda part: adam if _is_adam(part) else part, opt_state, is_leaf=_is_adam
  )


def init_network(
  model: nn.Module,
  rng: jax.Array,
  tx: optax.GradientTransformation,
  *inputs: jax.ShapeDtypeStruct,
) -> NetworkState:
  """Initialises a network and its optimiser from its inputs' shapes."""

  @jax.jit
  def init(rng):
    variables = model.init(rng, *(jnp.zeros(x.shape, x.dtype) for x in inputs))
    params = variables["params"]
    return NetworkState(
      params, variables.get("batch_stats", {}), tx.init(params)
    )

  return init(rng)
