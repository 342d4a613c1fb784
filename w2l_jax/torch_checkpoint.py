"""Weights of the PyTorch original to Flax variables, and back.

Names follow a rule, not a table: our modules carry the original's keys (see
docs/DECISIONS.md).  Reading needs no torch (torch_file.py); writing does.

Layouts: convolutions are OIHW there and HWIO here; transposed ones IOHW there
and HWIO, flipped in both spatial axes, here.
"""

import collections
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2l_jax import models
from w2l_jax.torch_file import TorchCheckpointError, read

# How the original names what is called this here.
_CLASSES = {
  "sync_expert": models.SyncExpert,
  "generator": models.Generator,
  "quality_discriminator": models.QualityDiscriminator,
}
NETWORKS = tuple(_CLASSES)
# The order in which the original's classes register their parts: Adam's state
# is numbered by it.
_PARTS = {
  "sync_expert": ("face_encoder", "audio_encoder"),
  "generator": (
    "face_encoder_blocks",
    "audio_encoder",
    "face_decoder_blocks",
    "output_block",
  ),
  "quality_discriminator": ("face_encoder_blocks", "binary_pred"),
}
# Keys of each kind that an error lists.
_SHOWN = 7


# --- Names and layouts ------------------------------------------------------


def _torch_name(path: tuple[str, ...]) -> tuple[str, str]:
  """Translates a Flax path to (the original's key, kind of layout)."""
  module, leaf = path[:-1], path[-1]
  top = module[0]
  if top == "binary_pred":
    prefix, inner = "binary_pred.0", ()
  elif top == "output_block_1":
    prefix, inner = "output_block.1", ()
  elif top in ("face_encoder", "audio_encoder"):
    prefix = f"{top}.{module[1].removeprefix('block_')}.conv_block"
    inner = module[2:]
  else:
    name, *numbers = re.fullmatch(r"(\D+?)((?:_\d+)+)", top).groups()
    prefix = f"{name}{numbers[0].replace('_', '.')}.conv_block"
    inner = module[1:]
  if inner == ("batch_norm",):
    names = {
      "scale": "weight",
      "bias": "bias",
      "mean": "running_mean",
      "var": "running_var",
    }
    return f"{prefix}.1.{names[leaf]}", "vector"
  if prefix.endswith("conv_block"):
    prefix += ".0"
  if leaf == "bias":
    return f"{prefix}.bias", "vector"
  # A transposed convolution keeps its kernel in the block itself.
  transposed = not inner and top.startswith("face_decoder_blocks")
  return f"{prefix}.weight", "transposed" if transposed else "conv"


def _to_flax(array: np.ndarray, kind: str) -> np.ndarray:
  if kind == "conv":
    return array.transpose(2, 3, 1, 0)
  if kind == "transposed":
    return array.transpose(2, 3, 0, 1)[::-1, ::-1]
  return array


def _to_torch(array: np.ndarray, kind: str) -> np.ndarray:
  if kind == "conv":
    array = array.transpose(3, 2, 0, 1)
  elif kind == "transposed":
    array = array[::-1, ::-1].transpose(2, 3, 0, 1)
  return np.ascontiguousarray(array)


def _abstract(network: str, width: float, image_size: int) -> dict:
  """Returns the variables' shapes of a network."""
  if network not in _CLASSES:
    raise ValueError(f"network is {network!r}, expected one of {NETWORKS}")
  size = image_size
  inputs = {
    "sync_expert": ((1, 80, 16, 1), (1, size // 2, size, 15)),
    "generator": ((1, 80, 16, 1), (1, size, size, 6)),
    "quality_discriminator": ((1, size // 2, size, 3),),
  }[network]
  model = _CLASSES[network](width=width, image_size=image_size)
  return jax.eval_shape(
    model.init,
    jax.random.key(0),
    *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs),
  )


def _leaves(network: str, abstract: dict) -> list:
  """Lists (collection, Flax path, original's key, kind, shape there)."""
  found = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(abstract):
    names = tuple(key.key for key in path)
    key, kind = _torch_name(names[1:])
    shape = leaf.shape
    if kind == "conv":
      shape = (shape[3], shape[2], *shape[:2])
    elif kind == "transposed":
      shape = (shape[2], shape[3], *shape[:2])
    found.append((names[0], names[1:], key, kind, shape))
  return found


def _registration_order(network: str, key: str):
  """Sorts keys as the original's state_dict has them."""
  parts = key.split(".")
  leaves = (
    "weight",
    "bias",
    "running_mean",
    "running_var",
    "num_batches_tracked",
  )
  return (
    _PARTS[network].index(parts[0]),
    [int(part) for part in parts if part.isdigit()],
    leaves.index(parts[-1]),
  )


def _trainable_keys(network: str, leaves: list) -> list[str]:
  """The original's keys in the order of model.parameters()."""
  keys = [key for collection, _, key, _, _ in leaves if collection == "params"]
  return sorted(keys, key=lambda key: _registration_order(network, key))


def _put(tree: dict, path: tuple[str, ...], value) -> None:
  for name in path[:-1]:
    tree = tree.setdefault(name, {})
  tree[path[-1]] = value


# --- Loading ----------------------------------------------------------------


def check_keys(
  path: str,
  network: str,
  tensors: dict[str, np.ndarray],
  expected: dict[str, tuple],
) -> None:
  """Lists missing, unexpected and misshapen keys, all at once.

  Args:
    path: names the file in the error.
    network: what it should be.
    tensors: by the file's keys.
    expected: shapes by key; a BatchNorm's num_batches_tracked may be there.

  Raises:
    TorchCheckpointError: if any key does not fit.
  """
  tracked = {
    key.replace("running_mean", "num_batches_tracked")
    for key in expected
    if key.endswith("running_mean")
  }
  missing = [f"  missing: {k}" for k in expected if k not in tensors]
  known = expected.keys() | tracked
  unexpected = [f"  unexpected: {k}" for k in tensors if k not in known]
  misshapen = [
    f"  {k}: shape {tuple(tensors[k].shape)}, expected {shape}"
    for k, shape in expected.items()
    if k in tensors and tuple(tensors[k].shape) != tuple(shape)
  ]
  lines = []
  for problems in (missing, unexpected, misshapen):
    lines += problems[:_SHOWN]
    if len(problems) > _SHOWN:
      lines.append(f"  and {len(problems) - _SHOWN} more")
  if lines:
    raise TorchCheckpointError(f"{path}: is no {network}:\n" + "\n".join(lines))


def state_dict(path: str, value: dict) -> dict[str, np.ndarray]:
  """Returns the tensors of what `read` gave, without "module." prefixes.

  Raises:
    TorchCheckpointError: if there are none.
  """
  tensors = value.get("state_dict", value)
  if not isinstance(tensors, dict):
    raise TorchCheckpointError(f"{path}: its state_dict is no dict")
  tensors = {
    str(key).removeprefix("module."): tensor
    for key, tensor in tensors.items()
    if isinstance(tensor, np.ndarray)
  }
  if not tensors:
    raise TorchCheckpointError(f"{path}: holds no tensors")
  return tensors


def from_state_dict(
  tensors: dict[str, np.ndarray],
  network: str,
  *,
  width: float = 1.0,
  image_size: int = 96,
  dtype=np.float32,
  path: str = "state_dict",
) -> dict:
  """Returns Flax variables of the original's state_dict.

  Args:
    tensors: by the original's keys.
    network: one of NETWORKS.
    width, image_size: of the network; the defaults are the original's.
    dtype: of the result.
    path: names the state_dict in errors.

  Raises:
    TorchCheckpointError: with all keys that do not fit.
  """
  leaves = _leaves(network, _abstract(network, width, image_size))
  expected = {key: shape for _, _, key, _, shape in leaves}
  what = f"{network} of this size (width, image_size)"
  check_keys(path, what, tensors, expected)
  variables: dict = {}
  for collection, names, key, kind, _ in leaves:
    array = np.ascontiguousarray(_to_flax(tensors[key], kind), dtype)
    _put(variables, (collection, *names), array)
  return variables


def load(
  path: str, network: str, *, width: float = 1.0, image_size: int = 96
) -> dict:
  """Reads a PyTorch network as Flax variables.

  Args:
    path: as for `read`.
    network: one of NETWORKS.
    width, image_size: of the network; the defaults are the original's.

  Returns:
    {"params": ...} and, but for the discriminator, "batch_stats": float32
    NumPy arrays; half precision is widened.

  Raises:
    TorchCheckpointError: naming the file, with all keys that do not fit.
  """
  return from_state_dict(
    state_dict(path, read(path)),
    network,
    width=width,
    image_size=image_size,
    path=path,
  )


def load_training(
  path: str, network: str, *, width: float = 1.0, image_size: int = 96
) -> tuple[dict, optax.ScaleByAdamState | None, int]:
  """Reads a network with what its training goes on from.

  Returns:
    (variables, Adam's state or None if the file has none, global_step); Adam's
    count is of its own updates, which need not be global_step.

  Raises:
    TorchCheckpointError: as `load`; also if Adam's state does not fit.
  """
  value = read(path)
  variables = from_state_dict(
    state_dict(path, value),
    network,
    width=width,
    image_size=image_size,
    path=path,
  )
  step = int(value.get("global_step", 0)) if "state_dict" in value else 0
  optimizer = value.get("optimizer") if "state_dict" in value else None
  if not optimizer:
    return variables, None, step
  leaves = _leaves(network, _abstract(network, width, image_size))
  order = _trainable_keys(network, leaves)
  numbers = [n for group in optimizer["param_groups"] for n in group["params"]]
  if len(numbers) != len(order):
    raise TorchCheckpointError(
      f"{path}: its optimizer knows {len(numbers)} parameters, {network} has "
      f"{len(order)}"
    )
  by_key = {
    key: optimizer["state"].get(number)
    for key, number in zip(order, numbers, strict=True)
  }
  mu, nu, steps = {}, {}, set()
  for collection, names, key, kind, shape in leaves:
    if collection != "params":
      continue
    moments = by_key[key]
    if moments is None:  # Never updated.
      moments = {
        "step": 0,
        "exp_avg": np.zeros(shape),
        "exp_avg_sq": np.zeros(shape),
      }
    if tuple(moments["exp_avg"].shape) != tuple(shape):
      raise TorchCheckpointError(
        f"{path}: its optimizer's state of {key} has shape "
        f"{moments['exp_avg'].shape}, expected {shape}"
      )
    for tree, name in ((mu, "exp_avg"), (nu, "exp_avg_sq")):
      moment = _to_flax(moments[name], kind)
      _put(tree, names, np.ascontiguousarray(moment, np.float32))
    steps.add(int(moments["step"]))
  if len(steps) > 1:
    raise TorchCheckpointError(
      f"{path}: its optimizer counts {sorted(steps)} updates for different "
      "parameters; expected one count for all"
    )
  adam = optax.ScaleByAdamState(np.int32(steps.pop()), mu, nu)
  return variables, adam, step


# --- Saving -----------------------------------------------------------------


def _torch():
  try:
    import torch
  except ImportError as e:
    raise TorchCheckpointError(
      "writing PyTorch files needs torch, which is not installed: "
      "pip install 'w2l_jax[torch]'"
    ) from e
  return torch


def to_state_dict(
  variables: dict, network: str, global_step: int = 0
) -> dict[str, np.ndarray]:
  """Returns the original's state_dict as NumPy arrays, in its order.

  A contrastive expert's temperature has no place in it and is left out.

  Args:
    variables: of Flax.
    network: one of NETWORKS.
    global_step: becomes num_batches_tracked, which nothing uses.
  """
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    names = tuple(key.key for key in path)
    if names[1:] == ("logit_scale",):
      continue
    key, kind = _torch_name(names[1:])
    found[key] = _to_torch(np.asarray(leaf), kind)
    if key.endswith("running_mean"):
      tracked = key.replace("running_mean", "num_batches_tracked")
      found[tracked] = np.array(global_step, np.int64)
  return dict(
    sorted(found.items(), key=lambda kv: _registration_order(network, kv[0]))
  )


def save(
  path: str,
  variables: dict,
  network: str,
  *,
  adam: optax.ScaleByAdamState | None = None,
  learning_rate: float = 1e-4,
  betas: tuple[float, float] = (0.9, 0.999),
  global_step: int = 0,
) -> None:
  """Writes the original's checkpoint dict; its classes load it strictly.

  Args:
    path: the .pth to write; has this name only when complete.
    variables: of Flax.
    network: one of NETWORKS.
    adam: Adam's state, or None to write no optimizer.
    learning_rate, betas: of that Adam, which its file also records.
    global_step: of the training.

  Raises:
    TorchCheckpointError: if torch is not installed.
  """
  torch = _torch()
  state = to_state_dict(variables, network, global_step)
  tensors = collections.OrderedDict(
    (key, torch.from_numpy(array.copy())) for key, array in state.items()
  )
  optimizer = None
  if adam is not None:
    moments = [
      to_state_dict({"params": tree}, network) for tree in (adam.mu, adam.nu)
    ]
    optimizer = {
      "state": {
        i: {
          "step": torch.tensor(float(adam.count)),
          "exp_avg": torch.from_numpy(moments[0][key].copy()),
          "exp_avg_sq": torch.from_numpy(moments[1][key].copy()),
        }
        for i, key in enumerate(moments[0])
      },
      "param_groups": [
        {
          **torch.optim.Adam(
            [torch.zeros(1)], lr=learning_rate, betas=betas
          ).state_dict()["param_groups"][0],
          "params": list(range(len(moments[0]))),
        }
      ],
    }
  partial = f"{path}.{os.getpid()}.partial"
  torch.save(
    {
      "state_dict": tensors,
      "optimizer": optimizer,
      "global_step": global_step,
      "global_epoch": 0,
    },
    partial,
  )
  os.replace(partial, path)
