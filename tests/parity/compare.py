r"""Holds the networks and the training against PyTorch, and writes a report.

  make compare-torch
  python -m tests.parity.compare --outdir=runs/compare_torch [--short]

Forward passes, gradients, round trips, and training runs of the twins and of
our own train steps from the same weights on the same batches, in float64 for
the proof and in float32 for the picture; then the same runs with one thing
broken at a time.  Writes report.md, trajectories.png and results.json; exits
with 1 if a bound does not hold.  --short: narrow networks and few steps.
"""

import contextlib
import dataclasses
import json
import os
import platform
import sys
import time
from unittest import mock

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from absl import app, flags

from configs import expert_lrs2, gan_lrs2
from tests.parity import torch_training
from tests.parity.make_stored import randomise_statistics
from tests.parity.torch_networks import TWINS
from w2l_jax import (
  losses,
  models,
  network_inputs,
  torch_checkpoint,
  train_expert,
  train_generator,
)
from w2l_jax.models import layers
from w2l_jax.train_state import (
  ExpertTrainState,
  GeneratorTrainState,
  NetworkState,
  make_optimizer,
)

_OUTDIR = flags.DEFINE_string("outdir", "runs/compare_torch", "For the report.")
_SHORT = flags.DEFINE_bool("short", False, "Narrow networks and few steps.")

MODELS = {
  "sync_expert": models.SyncExpert,
  "generator": models.Generator,
  "quality_discriminator": models.QualityDiscriminator,
}
# Bounds of the report.
FORWARD = 1e-5
FLOAT64 = 1e-8
FLOAT32_RATIO = 2.0


@dataclasses.dataclass(frozen=True)
class Plan:
  """How much is compared.

  Attributes:
    width: of forward passes and gradients.
    expert_windows, generator_windows: in their batches.
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
  trajectory_width: float = 0.25
  expert_steps: int = 100
  gan_steps: int = 50
  gan_windows: int = 8
  broken_steps: int = 5
  breakages: tuple[str, ...] = ()
  bound_float32: bool = True


# Short runs take longer to compile than to compute.
_QUICK = {"xla_backend_optimization_level": 0}
SHORT = Plan(
  width=1 / 16,
  trajectory_width=1 / 16,
  expert_steps=10,
  gan_steps=4,
  broken_steps=2,
  bound_float32=False,
  breakages=(
    "sync weight 0.033 for 0.03",
    "Adam's epsilon 1e-7 for 1e-8",
    "the biased running variance",
  ),
)


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


def cast(data: dict, dtype) -> dict:
  """A batch in a precision."""
  return {k: jnp.asarray(v, dtype) for k, v in data.items()}


# --- Forward passes and gradients -------------------------------------------


def forward(width: float) -> dict:
  """Relative errors of eval-mode outputs, float32 on both sides."""
  found = {}
  rng = np.random.default_rng(0)
  shapes = {
    "sync_expert": ((4, 80, 16, 1), (4, 48, 96, 15)),
    "generator": ((4, 80, 16, 1), (4, 96, 96, 6)),
    "quality_discriminator": ((4, 48, 96, 3),),
  }
  for name, twin in make_twins(width).items():
    inputs = [rng.random(s, np.float32) for s in shapes[name]]
    tensors = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in inputs]
    twin.eval()
    with torch.no_grad():
      expected = (
        twin.logits(*tensors)
        if name == "quality_discriminator"
        else twin(*tensors)
      )
    if name == "generator":
      expected = expected.permute(0, 2, 3, 1)
    got = jax.jit(MODELS[name](width=width).apply)(
      variables_of(twin, name, width, np.float32), *inputs
    )
    found[name] = max(
      relative(a, b.numpy())
      for a, b in zip(
        jax.tree.leaves(got),
        expected if isinstance(expected, tuple) else [expected],
        strict=True,
      )
    )
  return found


def torch_gradients(plan: Plan, dtype) -> tuple[dict, dict]:
  """({(network, loss): {key: gradient}}, {what: output of train mode})."""
  twins = make_twins(plan.width, dtype)
  expert, generator, discriminator = (
    twins[n] for n in ("sync_expert", "generator", "quality_discriminator")
  )
  grads = {}

  def collect(name, loss_name, loss):
    named = dict(twins[name].named_parameters())
    values = torch.autograd.grad(loss, list(named.values()), retain_graph=True)
    grads[name, loss_name] = {
      k: v.numpy() for k, v in zip(named, values, strict=True)
    }

  data = torch_training.batch(2, plan.generator_windows)
  fake, real = torch_training.generate(generator, data)
  expert.eval()
  for loss_name, loss in (
    ("l1", torch.nn.functional.l1_loss(fake, real)),
    ("sync", torch_training.sync_loss(expert, data, fake)),
    (
      "adversarial",
      torch_training.probability_loss(discriminator, fake, 1.0),
    ),
  ):
    collect("generator", loss_name, loss)
  collect(
    "quality_discriminator",
    "real and fake",
    torch_training.probability_loss(discriminator, real, 1.0)
    + torch_training.probability_loss(discriminator, fake.detach(), 0.0),
  )
  expert.train()
  data = torch_training.batch(1, plan.expert_windows)
  loss = torch_training.expert_loss(expert, data)
  collect("sync_expert", "cosine BCE", loss)
  outputs = {"generator's frames": _by_window(fake.detach().numpy())}
  outputs["expert's loss"] = loss.item()
  for name in ("generator", "sync_expert"):
    outputs[f"{name}'s running statistics"] = _statistics(
      {k: v.numpy() for k, v in twins[name].state_dict().items()}
    )
  return grads, outputs


def _by_window(frames: np.ndarray) -> np.ndarray:
  """Time-major [T B, 3, S, S] to [B T, S, S, 3]."""
  frames = frames.reshape(torch_training.WINDOW, -1, *frames.shape[1:])
  return frames.transpose(1, 0, 3, 4, 2).reshape(-1, *frames.shape[3:], 3)


def _statistics(state_dict: dict) -> np.ndarray:
  """All running means and variances in one array."""
  return np.concatenate(
    [
      v.ravel()
      for k, v in state_dict.items()
      if k.endswith(("running_mean", "running_var"))
    ]
  )


def jax_gradients(plan: Plan, dtype) -> tuple[dict, dict]:
  """As torch_gradients, by our networks and losses."""
  twins = make_twins(plan.width, dtype)
  with precision(dtype):
    variables = {
      name: variables_of(twin, name, plan.width, dtype)
      for name, twin in twins.items()
    }
    apply = {
      name: layers.training_apply(cls(width=plan.width), "unbiased")
      for name, cls in MODELS.items()
    }
    config = {"channel_order": "bgr"}

    @jax.jit
    def of_generator(variables, data):
      def generate(params):
        real, (fake, updates) = train_generator.generate(
          apply["generator"],
          config,
          {**variables["generator"], "params": params},
          data,
          train=True,
          mutable=["batch_stats"],
        )
        return fake, (real, updates)

      fake, pull_back, (real, updates) = jax.vjp(
        generate, variables["generator"]["params"], has_aux=True
      )

      def judge(params, frames):
        return apply["quality_discriminator"](
          {"params": params}, network_inputs.lower_half(frames)
        )

      def sync(fake):
        frames = fake.reshape(data["frames"].shape)
        audio, face = train_expert.embed(
          apply["sync_expert"], config, variables["sync_expert"], data, frames
        )
        return jnp.mean(losses.sync_losses(audio, face))

      params = variables["quality_discriminator"]["params"]
      found = {
        name: pull_back(jax.grad(loss)(fake))[0]
        for name, loss in {
          "l1": lambda fake: losses.l1_loss(fake, real),
          "sync": sync,
          "adversarial": lambda fake: losses.generator_adversarial_loss(
            judge(params, fake)
          ),
        }.items()
      }
      own = jax.grad(
        lambda params: losses.discriminator_loss(
          judge(params, real), judge(params, fake)
        )
      )(params)
      return found, own, fake, updates

    @jax.jit
    def of_expert(variables, data):
      def loss(params):
        (audio, face), updates = train_expert.embed(
          apply["sync_expert"],
          config,
          {**variables, "params": params},
          data,
          data["frames"],
          train=True,
          mutable=["batch_stats"],
        )
        return losses.cosine_bce(audio, face, data["in_sync"]), updates

      return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    data = cast(torch_training.batch(2, plan.generator_windows), dtype)
    found, own, fake, updates = of_generator(variables, data)
    data = cast(torch_training.batch(1, plan.expert_windows), dtype)
    (loss, expert_updates), expert_grads = of_expert(
      variables["sync_expert"], data
    )
  grads = {("generator", k): v for k, v in found.items()}
  grads["quality_discriminator", "real and fake"] = own
  grads["sync_expert", "cosine BCE"] = expert_grads
  grads = {
    key: torch_checkpoint.to_state_dict({"params": value}, key[0])
    for key, value in grads.items()
  }
  outputs = {
    "generator's frames": np.asarray(fake),
    "expert's loss": float(loss),
    "generator's running statistics": _statistics(
      torch_checkpoint.to_state_dict(updates, "generator")
    ),
    "sync_expert's running statistics": _statistics(
      torch_checkpoint.to_state_dict(expert_updates, "sync_expert")
    ),
  }
  return grads, outputs


def _is_before_batch_norm(network: str, key: str) -> bool:
  """Whether a bias's true gradient is zero."""
  return network != "quality_discriminator" and key.endswith(
    "conv_block.0.bias"
  )


def gradients(plan: Plan) -> dict:
  """Train-mode outputs and all gradients, float64 and float32."""
  truth, outputs = torch_gradients(plan, np.float64)
  ours, our_outputs = jax_gradients(plan, np.float64)
  theirs32, _ = torch_gradients(plan, np.float32)
  ours32, _ = jax_gradients(plan, np.float32)
  report = {
    "train-mode outputs": {
      k: relative(our_outputs[k], outputs[k]) for k in outputs
    },
    "losses": {},
  }
  for (network, loss), expected in truth.items():
    key = network, loss
    errors, biases, ratios, error32 = [], [0.0], [], []
    scale = max(np.abs(v).max() for v in expected.values())
    for name, value in expected.items():
      if _is_before_batch_norm(network, name):
        biases.append(np.abs(ours[key][name]).max() / scale)
        continue
      errors.append((relative(ours[key][name], value), name))
      theirs = relative(theirs32[key][name], value)
      mine = relative(ours32[key][name], value)
      error32.append((mine, theirs, name))
      ratios.append((mine / theirs, name))
    report["losses"][f"{network}: {loss}"] = {
      "tensors": len(errors),
      "float64": max(errors)[0],
      "float64 biases before BatchNorm, of the largest gradient": max(biases),
      "float32, ours": max(e[0] for e in error32),
      "float32, PyTorch's": max(e[1] for e in error32),
      "largest ratio": max(ratios)[0],
      "at": max(ratios)[1],
    }
  return report


def round_trips(width: float) -> dict:
  """Whether torch to Flax to torch keeps every bit."""
  found = {}
  for name, twin in make_twins(width).items():
    variables = variables_of(twin, name, width, np.float32)
    back = torch_checkpoint.to_state_dict(jax.device_get(variables), name)
    found[name] = all(
      torch.equal(v, torch.from_numpy(back[k].copy()))
      for k, v in twin.state_dict().items()
      if not k.endswith("num_batches_tracked")
    )
  return found


# --- Training runs ----------------------------------------------------------


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
      [_statistics(d) for n, d in state_dicts.items() if "disc" not in n]
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


def torch_run(stage: str, plan: Plan, steps: int, dtype) -> dict:
  """Trains the twins; returns losses of each step and what came out."""
  twins = make_twins(plan.trajectory_width, dtype)
  if stage == "expert":
    trained = ("sync_expert",)
    config = expert_config(plan.trajectory_width)
    optimizer = _adam(twins["sync_expert"], config.optimizer)
    found = [
      torch_training.expert_step(
        twins["sync_expert"],
        optimizer,
        torch_training.batch(100 + i, plan.expert_windows),
      )
      for i in range(steps)
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
        torch_training.batch(200 + i, plan.gan_windows),
        config.loss.sync_weight,
        config.loss.adversarial_weight,
      )
      for i in range(steps)
    ]
  return _result(
    found,
    {
      n: {k: v.detach().numpy() for k, v in twins[n].state_dict().items()}
      for n in trained
    },
  )


def _network_state(variables, optimizer) -> NetworkState:
  tx = make_optimizer(**optimizer)
  return NetworkState(
    variables["params"],
    variables.get("batch_stats", {}),
    tx.init(variables["params"]),
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
        jnp.int32(0), _network_state(variables["sync_expert"], config.optimizer)
      )
      step = train_expert.make_train_step(config)
      seed, windows, frozen = 100, plan.expert_windows, {}
    else:
      state = GeneratorTrainState(
        jnp.int32(0),
        _network_state(variables["generator"], config.optimizer),
        _network_state(
          variables["quality_discriminator"], config.discriminator_optimizer
        ),
        jnp.asarray(config.loss.sync_weight_initial, dtype),
      )
      step = train_generator.make_train_step(config, expert_config(width))
      seed, windows = 200, plan.gan_windows
      frozen = {"expert": variables["sync_expert"]}
    step = jax.jit(step, compiler_options=_QUICK if steps <= 10 else None)
    for i in range(steps):
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


def distance(a: dict, b: dict) -> dict:
  """How far run `a` is from run `b`."""
  return {
    "losses": max(
      float(np.max(np.abs(a["losses"][k] - v) / np.abs(v)))
      for k, v in b["losses"].items()
    ),
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
    pairs = {
      "float64: JAX, PyTorch": (runs["JAX", np.float64], truth),
      "float32: JAX, PyTorch": (
        runs["JAX", np.float32],
        runs["PyTorch", np.float32],
      ),
      "PyTorch: float32, float64": (runs["PyTorch", np.float32], truth),
    }
    report[stage] = {k: distance(*pair) for k, pair in pairs.items()}
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
    for label, (a, b) in pairs.items():
      difference = np.max(
        [
          np.abs(a["losses"][k] - v) / np.abs(v) for k, v in b["losses"].items()
        ],
        axis=0,
      )
      bottom.plot(np.maximum(difference, 1e-17), label=label)
    bottom.set_yscale("log")
    bottom.set_xlabel("step")
    bottom.set_ylabel("largest relative difference of a loss", fontsize=8)
    bottom.legend(frameon=False, fontsize=8)
  figure.tight_layout()
  figure.savefig(path, dpi=110)
  plt.close(figure)
  return report


# --- The report -------------------------------------------------------------


def _table(head: list[str], rows) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(
    "| "
    + " | ".join(f"{c:.1e}" if isinstance(c, float) else str(c) for c in line)
    + " |"
    for line in lines
  )


def failures(results: dict, plan: Plan) -> list[str]:
  """What does not hold."""
  found = [
    f"forward pass of {k}: {v:.1e}"
    for k, v in results["forward"].items()
    if not v <= FORWARD
  ]
  found += [
    f"train-mode {k}: {v:.1e}"
    for k, v in results["gradients"]["train-mode outputs"].items()
    if not v <= FLOAT64
  ]
  for name, figures in results["gradients"]["losses"].items():
    if not figures["float64"] <= FLOAT64:
      found.append(f"gradient of {name}: {figures['float64']:.1e}")
    if plan.bound_float32 and not figures["largest ratio"] <= FLOAT32_RATIO:
      found.append(
        f"float32 gradient of {name} at {figures['at']}: "
        f"{figures['largest ratio']:.2f} times PyTorch's error"
      )
  found += [
    f"round trip of {k} changes bits"
    for k, v in results["round_trips"].items()
    if not v
  ]
  for stage, figures in results["trajectories"].items():
    worst = figures["float64: JAX, PyTorch"]["losses"]
    if not worst <= 1e-6:
      found.append(f"float64 training of {stage}: losses differ by {worst:.1e}")
  right = {
    "expert": results["breakages"]["nothing, stage 1"],
    "gan": results["breakages"]["nothing, stage 2"],
  }
  for name, figures in results["breakages"].items():
    if name.startswith("nothing"):
      continue
    stage = BREAKAGES[name][0]
    if not any(figures[k] > 1e3 * right[stage][k] for k in figures):
      found.append(f"a mistake is not seen: {name}")
  return found


def write_report(outdir: str, results: dict, plan: Plan) -> None:
  """Writes results.json and report.md."""
  with open(os.path.join(outdir, "results.json"), "w") as f:
    json.dump(results, f, indent=2)
    f.write("\n")
  wrong = failures(results, plan)
  gradient_rows = [
    [
      name,
      v["tensors"],
      v["float64"],
      v["float64 biases before BatchNorm, of the largest gradient"],
      v["float32, ours"],
      v["float32, PyTorch's"],
      f"{v['largest ratio']:.2f}",
    ]
    for name, v in results["gradients"]["losses"].items()
  ]
  sections = [
    "# w2l_jax held against PyTorch",
    f"{results['machine']}; {results['seconds']:.0f} s. Differences are "
    "relative, |a - b| / |b|.",
    "**Everything holds.**"
    if not wrong
    else "**Does not hold:**\n\n" + "\n".join(f"- {line}" for line in wrong),
    f"## Forward passes\n\nEval mode, float32, width {plan.width:g}, random "
    f"weights and statistics (bound {FORWARD:g}); round trip torch to Flax to "
    "torch.",
    _table(
      ["network", "difference", "round trip"],
      [
        [k, v, "bit-equal" if results["round_trips"][k] else "differs"]
        for k, v in results["forward"].items()
      ],
    ),
    f"## Train mode and gradients\n\nWidth {plan.width:g}; "
    f"{plan.expert_windows} windows for the expert, {plan.generator_windows} "
    "of five frames for the generator. float64 on both sides (bound "
    f"{FLOAT64:g}); float32 against PyTorch's float64, ours and PyTorch's own, "
    "and the largest ratio of the two on one tensor"
    + (f" (bound {FLOAT32_RATIO:g})." if plan.bound_float32 else ".")
    + " Biases before a BatchNorm have a true gradient of zero: ours, as a "
    "part of the network's largest gradient.",
    _table(
      ["train-mode output, float64", "difference"],
      results["gradients"]["train-mode outputs"].items(),
    ),
    _table(
      [
        "loss",
        "tensors",
        "float64",
        "zero biases",
        "float32 ours",
        "float32 PyTorch's",
        "ratio",
      ],
      gradient_rows,
    ),  # fmt: skip
    f"## Training\n\nWidth {plan.trajectory_width:g}, the same weights and "
    f"batches: {plan.expert_steps} steps of stage 1 with "
    f"{plan.expert_windows} windows, {plan.gan_steps} steps of stage 2 with "
    f"{plan.gan_windows} windows, all three losses and the expert's BatchNorm "
    "in batch mode, as the original has it.",
    "![loss curves](trajectories.png)",
    _table(
      [
        "stage",
        "compared",
        "losses (largest of any step)",
        "running statistics at the end",
        "weights at the end",
      ],
      [
        [stage, pair, *figures.values()]
        for stage, pairs in results["trajectories"].items()
        for pair, figures in pairs.items()
      ],
    ),  # fmt: skip
    "In float64 what is left is rounding, which training magnifies from step "
    "to step. In float32 the same magnification starts from errors a billion "
    "times larger: JAX and PyTorch are then as far from each other as "
    "PyTorch's float32 is from its own float64.",
    "## Would a mistake be seen?\n\nThe same runs in float64 for "
    f"{plan.broken_steps} steps, one thing broken at a time.",
    _table(
      ["broken", "losses", "running statistics", "weights"],
      [[k, *v.values()] for k, v in results["breakages"].items()],
    ),
  ]
  with open(os.path.join(outdir, "report.md"), "w") as f:
    f.write("\n\n".join(sections) + "\n")


def main(argv):
  """Compares, writes the report, and says where it is."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  plan = SHORT if _SHORT.value else Plan()
  os.makedirs(_OUTDIR.value, exist_ok=True)
  start = time.monotonic()
  results = {}
  for name, part in {
    "forward": lambda: forward(plan.width),
    "round_trips": lambda: round_trips(plan.width),
    "gradients": lambda: gradients(plan),
    "trajectories": lambda: trajectories(
      plan, os.path.join(_OUTDIR.value, "trajectories.png")
    ),
    "breakages": lambda: breakages(plan),
  }.items():
    began = time.monotonic()
    print(f"{name} ...", end=" ", flush=True)
    results[name] = part()
    print(f"{time.monotonic() - began:.0f} s", flush=True)
  results["seconds"] = time.monotonic() - start
  results["machine"] = (
    f"{os.cpu_count()} CPU cores, {platform.machine()}, JAX {jax.__version__}, "
    f"PyTorch {torch.__version__}"
  )
  write_report(_OUTDIR.value, results, plan)
  wrong = failures(results, plan)
  for line in wrong:
    print(f"does not hold: {line}")
  print(f"written: {os.path.join(_OUTDIR.value, 'report.md')}")
  sys.exit(1 if wrong else 0)


if __name__ == "__main__":
  app.run(main)
