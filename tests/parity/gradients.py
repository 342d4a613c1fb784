"""Forward passes, gradients and round trips of the networks, side by side."""

import contextlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch

from tests.parity import torch_networks, torch_training
from tests.parity.both_sides import (
  MODELS,
  Plan,
  cast,
  make_twins,
  precision,
  relative,
  statistics,
  variables_of,
)
from tests.parity.make_stored import nchw
from w2l_jax import (
  losses,
  network_inputs,
  torch_checkpoint,
  train_expert,
  train_generator,
)
from w2l_jax.models import layers


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
    tensors = [nchw(x) for x in inputs]
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
    outputs[f"{name}'s running statistics"] = statistics(
      {k: v.numpy() for k, v in twins[name].state_dict().items()}
    )
  return grads, outputs


def _by_window(frames: np.ndarray) -> np.ndarray:
  """Time-major [T B, 3, S, S] to [B T, S, S, 3]."""
  frames = frames.reshape(torch_training.WINDOW, -1, *frames.shape[1:])
  return frames.transpose(1, 0, 3, 4, 2).reshape(-1, *frames.shape[3:], 3)


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
    "generator's running statistics": statistics(
      torch_checkpoint.to_state_dict(updates, "generator")
    ),
    "sync_expert's running statistics": statistics(
      torch_checkpoint.to_state_dict(expert_updates, "sync_expert")
    ),
  }
  return grads, outputs


@contextlib.contextmanager
def _sides(signs: list[np.ndarray] | None = None):
  """Both sides' rectified units are on the sides of zero that `signs` say.

  Where float32 tips one of a network's millions of units over zero, gradients
  jump by a thousandth and more, on either side by chance.  What is compared is
  arithmetic, so every unit is on the side where it is in float64.

  Args:
    signs: for each block, in order, whether its units [N, C, H, W] are
      positive; None: as they come out.

  Yields:
    A list, to which PyTorch's blocks add theirs.
  """
  found = []

  def in_torch(x, slope):
    found.append((x > 0).numpy())
    side = next(torchs) if signs else found[-1]
    return torch.where(torch.from_numpy(side), x, slope * x)

  def block(self, x):
    y = self.conv_block(x)
    return in_torch(y + x if self.residual else y, 0.0)

  def leaky_block(self, x):
    return in_torch(self.conv_block(x), 0.01)

  def in_jax(x, slope=0.0):
    return jnp.where(next(jaxs).transpose(0, 2, 3, 1), x, slope * x)

  torchs, jaxs = iter(signs or ()), iter(signs or ())
  with (
    mock.patch.object(torch_networks.Block, "forward", block),
    mock.patch.object(torch_networks.LeakyBlock, "forward", leaky_block),
    mock.patch.object(layers.nn, "leaky_relu", in_jax),
    mock.patch.object(layers.nn, "relu", in_jax),
  ):
    yield found
  left = [len(list(i)) for i in (torchs, jaxs)]
  assert not signs or 0 in left, f"blocks that took no signs: {left}"


def _on_sides(name: str, width: float, torch_loss, jax_loss) -> tuple:
  """A network's gradients in float32, with float64's signs.

  Args:
    name: of the network.
    width: its.
    torch_loss: of its twin.
    jax_loss: of its variables.

  Returns:
    ({key: PyTorch's in float64}, {key: PyTorch's}, {key: ours}, how many units
    PyTorch's float32 would have tipped over zero).
  """

  def of_torch(dtype, signs=None):
    twin = make_twins(width, dtype)[name]
    with _sides(signs) as found:
      loss = torch_loss(twin)
    named = dict(twin.named_parameters())
    values = torch.autograd.grad(loss, list(named.values()))
    return {k: v.numpy() for k, v in zip(named, values, strict=True)}, found

  truth, signs = of_torch(np.float64)
  # Each block says where its own units are, once those before it are in place.
  theirs, own_signs = of_torch(np.float32, signs)
  tipped = sum(
    int(np.sum(a != b)) for a, b in zip(signs, own_signs, strict=True)
  )
  twin = make_twins(width)[name]
  variables = variables_of(twin, name, width, np.float32)

  def loss(params):
    return jax_loss({**variables, "params": params})

  with _sides(signs):
    ours = jax.jit(jax.grad(loss))(variables["params"])
  ours = torch_checkpoint.to_state_dict({"params": jax.device_get(ours)}, name)
  return truth, theirs, ours, tipped


def expert_gradients(plan: Plan) -> tuple[dict, dict, dict, int]:
  """`_on_sides` of the expert, by the batch of `torch_gradients`."""
  data = torch_training.batch(1, plan.expert_windows)
  apply = layers.training_apply(
    MODELS["sync_expert"](width=plan.width), "unbiased"
  )

  def torch_loss(expert):
    return torch_training.expert_loss(expert.train(), data)

  def jax_loss(variables):
    (audio, face), _ = train_expert.embed(
      apply,
      {"channel_order": "bgr"},
      variables,
      data,
      data["frames"],
      train=True,
      mutable=["batch_stats"],
    )
    return losses.cosine_bce(audio, face, data["in_sync"])

  return _on_sides("sync_expert", plan.width, torch_loss, jax_loss)


def discriminator_gradients(plan: Plan) -> tuple[dict, dict, dict, int]:
  """`_on_sides` of the discriminator, by several batches on the first axis."""
  name = "quality_discriminator"
  model = MODELS[name](width=plan.width)

  def of_batch(seed):
    data = torch_training.batch(seed, plan.generator_windows)
    pictures = [network_inputs.fold_time(data[k]) for k in ("frames", "other")]

    def torch_loss(twin):
      dtype = next(twin.parameters()).detach().numpy().dtype
      return sum(
        torch_training.probability_loss(twin, nchw(x.astype(dtype)), label)
        for x, label in zip(pictures, (1.0, 0.0), strict=True)
      )

    def jax_loss(variables):
      real, fake = (
        model.apply(variables, network_inputs.lower_half(x)) for x in pictures
      )
      return losses.discriminator_loss(real, fake)

    return _on_sides(name, plan.width, torch_loss, jax_loss)

  batches = [of_batch(2 + i) for i in range(plan.discriminator_batches)]
  truth, theirs, ours = (
    {k: np.stack([b[side][k] for b in batches]) for k in batches[0][side]}
    for side in range(3)
  )
  return truth, theirs, ours, sum(b[3] for b in batches)


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
  on_sides = {
    "quality_discriminator": discriminator_gradients(plan),
    "sync_expert": expert_gradients(plan),
  }
  report = {
    "train-mode outputs": {
      k: relative(our_outputs[k], outputs[k]) for k in outputs
    },
    "losses": {},
  }
  for (network, loss), expected in truth.items():
    key = network, loss
    errors, ratios, error32 = [], [], []
    biases, our_biases = [0.0], [0.0]
    scale = max(np.abs(v).max() for v in expected.values())
    for name, value in expected.items():
      if _is_before_batch_norm(network, name):
        biases.append(np.abs(value).max() / scale)
        our_biases.append(np.abs(ours[key][name]).max() / scale)
        continue
      errors.append((relative(ours[key][name], value), name))
      theirs = relative(theirs32[key][name], value)
      mine = relative(ours32[key][name], value)
      error32.append((mine, theirs, name))
      ratios.append((mine / theirs, name))
    as_found = max(ratios)
    if network in on_sides:
      own_truth, own_theirs, own_ours, _ = on_sides[network]
      ratios = [
        (relative(own_ours[k], v) / relative(own_theirs[k], v), k)
        for k, v in own_truth.items()
        if not _is_before_batch_norm(network, k)
      ]
    report["losses"][f"{network}: {loss}"] = {
      "tensors": len(errors),
      "float64": max(errors)[0],
      "float64 biases before BatchNorm, ours": max(our_biases),
      "float64 biases before BatchNorm, PyTorch's": max(biases),
      "float32, ours": max(e[0] for e in error32),
      "float32, PyTorch's": max(e[1] for e in error32),
      "largest ratio": max(ratios)[0],
      "at": max(ratios)[1],
      "largest ratio, units tipping": as_found[0],
    }
  report["tipped units"] = {k: v[3] for k, v in on_sides.items()}
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
