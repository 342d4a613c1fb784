"""Training runs of the twins and of our train steps; mistakes on purpose."""

import contextlib
from unittest import mock

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import tqdm

from configs import expert_lrs2, gan_lrs2
from tests.parity import torch_training
from tests.parity.both_sides import (
  Plan,
  cast,
  make_twins,
  network_state,
  precision,
  relative,
  statistics,
  variables_of,
)
from w2l_jax import losses, torch_checkpoint, train_expert, train_generator
from w2l_jax.models import layers
from w2l_jax.train_state import ExpertTrainState, GeneratorTrainState


def expert_config(width: float):
  """The original's stage 1 at a width."""
  config = expert_lrs2.get_config()
  config.width = width
  return config


def gan_config(width: float):
  """The original's stage 2 at a width, its sync loss on from the start."""
  config = gan_lrs2.get_config()
  config.width = width
  config.loss.sync_weight_initial = config.loss.sync_weight
  return config


def _adam(network, config):
  return torch.optim.Adam(
    network.parameters(),
    lr=config.learning_rate,
    betas=(config.b1, config.b2),
    eps=config.eps,
  )


def _result(steps: list[dict], state_dicts: dict) -> dict:
  return {
    "losses": {k: np.array([s[k] for s in steps]) for k in steps[0]},
    "statistics": np.concatenate(
      [statistics(d) for n, d in state_dicts.items() if "disc" not in n]
    ),
    "weights": np.concatenate(
      [
        v.ravel()
        for d in state_dicts.values()
        for k, v in d.items()
        if k.endswith(("weight", "bias"))
      ]
    ),
  }


def _steps(side: str, stage: str, steps: int, dtype) -> tqdm.tqdm:
  """Counts a run's steps, and shows how far it is."""
  name = f"{side}, {stage}, {np.dtype(dtype)}"
  return tqdm.trange(steps, desc=name, leave=False)


def torch_run(
  stage: str, plan: Plan, steps: int, dtype, reverse: bool = False
) -> dict:
  """Trains the twins; returns losses of each step and what came out.

  `reverse` turns round the order of each batch's windows: the same training,
  but for the rounding of sums.
  """

  def batch(*args):
    data = torch_training.batch(*args)
    return {k: v[::-1] for k, v in data.items()} if reverse else data

  twins = make_twins(plan.trajectory_width, dtype)
  if stage == "expert":
    trained = ("sync_expert",)
    config = expert_config(plan.trajectory_width)
    optimizer = _adam(twins["sync_expert"], config.optimizer)
    found = [
      torch_training.expert_step(
        twins["sync_expert"],
        optimizer,
        batch(100 + i, plan.expert_windows),
      )
      for i in _steps("PyTorch", stage, steps, dtype)
    ]
  else:
    trained = ("generator", "quality_discriminator")
    config = gan_config(plan.trajectory_width)
    networks = {
      "generator": twins["generator"],
      "discriminator": twins["quality_discriminator"],
      # In train mode, as the original leaves it.
      "expert": twins["sync_expert"].requires_grad_(False),
    }
    optimizers = {
      "generator": _adam(networks["generator"], config.optimizer),
      "discriminator": _adam(
        networks["discriminator"], config.discriminator_optimizer
      ),
    }
    found = [
      torch_training.gan_step(
        networks,
        optimizers,
        batch(200 + i, plan.gan_windows),
        config.loss.sync_weight,
        config.loss.adversarial_weight,
      )
      for i in _steps("PyTorch", stage, steps, dtype)
    ]
  return _result(
    found,
    {
      n: {k: v.detach().numpy() for k, v in twins[n].state_dict().items()}
      for n in trained
    },
  )


def jax_run(
  stage: str,
  plan: Plan,
  steps: int,
  dtype,
  change=lambda config: None,
  discriminator_first: bool = False,
  flip_labels: bool = False,
) -> dict:
  """Trains with our own train steps; the last three break something."""
  width = plan.trajectory_width
  twins = make_twins(width, dtype)
  config = (expert_config if stage == "expert" else gan_config)(width)
  change(config)
  found = []
  with precision(dtype):
    variables = {
      name: variables_of(twin, name, width, dtype)
      for name, twin in twins.items()
    }
    if stage == "expert":
      state = ExpertTrainState(
        jnp.int32(0), network_state(variables["sync_expert"], config.optimizer)
      )
      step = train_expert.make_train_step(config)
      seed, windows, frozen = 100, plan.expert_windows, {}
    else:
      state = GeneratorTrainState(
        jnp.int32(0),
        network_state(variables["generator"], config.optimizer),
        network_state(
          variables["quality_discriminator"], config.discriminator_optimizer
        ),
        jnp.asarray(config.loss.sync_weight_initial, dtype),
      )
      step = train_generator.make_train_step(config, expert_config(width))
      seed, windows = 200, plan.gan_windows
      frozen = {"expert": variables["sync_expert"]}
    step = jax.jit(step)
    for i in _steps("JAX", stage, steps, dtype):
      data = cast(torch_training.batch(seed + i, windows), dtype)
      if flip_labels:
        data["in_sync"] = 1 - data["in_sync"]
      new, metrics = step(state, data, frozen)
      if discriminator_first:
        own = new.discriminator
        new, _ = step(state.replace(discriminator=own), data, frozen)
        new = new.replace(discriminator=own)
      state = new
      found.append(
        {k: float(v) for k, v in metrics.items() if k.startswith("loss")}
      )
  networks = (
    {"sync_expert": state.expert}
    if stage == "expert"
    else {
      "generator": state.generator,
      "quality_discriminator": state.discriminator,
    }
  )
  return _result(
    found,
    {
      name: torch_checkpoint.to_state_dict(
        jax.device_get(network.variables), name
      )
      for name, network in networks.items()
    },
  )


def by_step(a: dict, b: dict) -> np.ndarray:
  """Largest relative difference of any loss at each step, [steps]."""
  return np.max(
    [np.abs(a["losses"][k] - v) / np.abs(v) for k, v in b["losses"].items()],
    axis=0,
  )


def distance(a: dict, b: dict) -> dict:
  """How far run `a` is from run `b`."""
  return {
    "losses": float(by_step(a, b).max()),
    "running statistics": relative(a["statistics"], b["statistics"]),
    "weights": relative(a["weights"], b["weights"]),
  }


def _patched(module, name, value):
  return lambda: mock.patch.object(module, name, value)


def _soft_labels(real_logits, fake_logits):
  """A mistake: real pictures labelled 0.9."""
  cross_entropy = losses.generator_adversarial_loss  # Against label 1.
  real = 0.9 * cross_entropy(real_logits) + 0.1 * cross_entropy(-real_logits)
  return real + cross_entropy(-fake_logits)


# name: (stage, arguments of jax_run, what is patched meanwhile)
_NOTHING = contextlib.nullcontext
BREAKAGES = {
  "sync weight 0.033 for 0.03": (
    "gan",
    {"change": lambda c: c.loss.update(sync_weight_initial=0.033)},
    _NOTHING,
  ),
  "adversarial weight 0.08 for 0.07": (
    "gan",
    {"change": lambda c: c.loss.update(adversarial_weight=0.08)},
    _NOTHING,
  ),
  "the expert's BatchNorm in eval mode": (
    "gan",
    {"change": lambda c: c.update(expert_batch_norm="running")},
    _NOTHING,
  ),
  "the discriminator's step first": (
    "gan",
    {"discriminator_first": True},
    _NOTHING,
  ),
  "label 0.9 for real pictures": (
    "gan",
    {},
    _patched(losses, "discriminator_loss", _soft_labels),
  ),
  "Adam's b1 0.9 for 0.5": (
    "gan",
    {"change": lambda c: c.optimizer.update(b1=0.9)},
    _NOTHING,
  ),
  "Adam's epsilon 1e-7 for 1e-8": (
    "expert",
    {"change": lambda c: c.optimizer.update(eps=1e-7)},
    _NOTHING,
  ),
  "stage 1's labels the other way": ("expert", {"flip_labels": True}, _NOTHING),
  "BatchNorm's epsilon 1e-3 for 1e-5": (
    "expert",
    {},
    _patched(layers, "BATCH_NORM_EPSILON", 1e-3),
  ),
  "BatchNorm's momentum 0.99 for 0.9": (
    "expert",
    {},
    _patched(layers, "BATCH_NORM_MOMENTUM", 0.99),
  ),
  "the biased running variance": (
    "expert",
    {"change": lambda c: c.update(running_variance="biased")},
    _NOTHING,
  ),
}


def breakages(plan: Plan) -> dict:
  """Distances from PyTorch in float64, right and with each mistake."""
  reference = {
    stage: torch_run(stage, plan, plan.broken_steps, np.float64)
    for stage in ("expert", "gan")
  }
  found = {}
  for name, (stage, arguments, patch) in {
    "nothing, stage 1": ("expert", {}, _NOTHING),
    "nothing, stage 2": ("gan", {}, _NOTHING),
    **{k: BREAKAGES[k] for k in plan.breakages or BREAKAGES},
  }.items():
    with patch():
      run = jax_run(stage, plan, plan.broken_steps, np.float64, **arguments)
    found[name] = distance(run, reference[stage])
  return found


# Pairs of runs.
OURS = "float64: JAX, PyTorch"
ROUNDING = "float64: PyTorch, itself with its batches' windows reversed"


def trajectories(plan: Plan, path: str) -> dict:
  """Both stages, both precisions; draws the picture."""
  report = {}
  figure, axes = plt.subplots(2, 2, figsize=(11, 7))
  for column, (stage, steps) in enumerate(
    (("expert", plan.expert_steps), ("gan", plan.gan_steps))
  ):
    runs = {
      (side, dtype): run(stage, plan, steps, dtype)
      for side, run in (("PyTorch", torch_run), ("JAX", jax_run))
      for dtype in (np.float64, np.float32)
    }
    truth = runs["PyTorch", np.float64]
    reverse = torch_run(stage, plan, steps, np.float64, reverse=True)
    pairs = {
      OURS: (runs["JAX", np.float64], truth),
      ROUNDING: (reverse, truth),
      "float32: JAX, PyTorch": (
        runs["JAX", np.float32],
        runs["PyTorch", np.float32],
      ),
      "PyTorch: float32, float64": (runs["PyTorch", np.float32], truth),
    }
    report[stage] = {
      k: distance(*pair) | {"by step": by_step(*pair).tolist()}
      for k, pair in pairs.items()
    }
    top, bottom = axes[0, column], axes[1, column]
    for number, name in enumerate(truth["losses"]):
      if stage == "gan" and name == "loss":
        continue
      colour = f"C{number}"
      top.plot(truth["losses"][name], color=colour, alpha=0.4, linewidth=4)
      top.plot(
        runs["JAX", np.float32]["losses"][name],
        color=colour,
        linewidth=1,
        label=name,
      )
    top.set_yscale("log")
    top.set_title(
      f"{'stage 1' if stage == 'expert' else 'stage 2'}: PyTorch float64 "
      "(broad), JAX float32 (fine)",
      fontsize=10,
    )
    top.legend(frameon=False, fontsize=8)
    for label, pair in pairs.items():
      bottom.plot(np.maximum(by_step(*pair), 1e-17), label=label)
    bottom.set_yscale("log")
    bottom.set_xlabel("step")
    bottom.set_ylabel("largest relative difference of a loss", fontsize=8)
    bottom.legend(frameon=False, fontsize=8)
  figure.tight_layout()
  figure.savefig(path, dpi=110)
  plt.close(figure)
  return report
