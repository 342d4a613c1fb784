"""Weights of the PyTorch original to Flax variables, and back.

Names follow a rule, not a table: our modules carry the original's keys (see
docs/DECISIONS.md).  Reading needs no torch: a .pth file is a zip (or, before
2020, a plain stream) of pickled tensor descriptions beside raw numbers, and a
pickle that asks for anything else is refused unread.  Writing uses torch.

Layouts: convolutions are OIHW there and HWIO here; transposed ones IOHW there
and HWIO, flipped in both spatial axes, here.
"""

import collections
import dataclasses
import io
import os
import pickle
import re
import struct
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from w2l_jax import models

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
_STORAGES = {
  "FloatStorage": np.dtype("<f4"),
  "DoubleStorage": np.dtype("<f8"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}
# Keys of each kind that an error lists.
_SHOWN = 7
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class TorchCheckpointError(ValueError):
  """A file cannot be used; the message names it and says what to do."""


@dataclasses.dataclass
class AdamState:
  """Adam's memory in Flax's layout.

  Attributes:
    step: how many updates have been made.
    mu, nu: first and second moments, trees like `params`.
  """

  step: int
  mu: Any
  nu: Any


# --- Names and layouts ------------------------------------------------------


def _torch_name(network: str, path: tuple[str, ...]) -> tuple[str, str]:
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
    key, kind = _torch_name(network, names[1:])
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


# --- Reading files without torch --------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Storage:
  dtype: np.dtype
  key: str


class _Holder:
  """Stands for an object of a TorchScript archive: attributes, no code."""

  def __setstate__(self, state):
    self.__dict__.update(state)


def _rebuild_tensor(storage, offset, size, stride, *unused):
  """A tensor's description, made an array once the numbers are read."""
  del unused  # Gradients and hooks.
  return _Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data, *unused):
  del unused
  return data


@dataclasses.dataclass(frozen=True)
class _Tensor:
  storage: _Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]

  def read(self, storages) -> np.ndarray:
    flat = storages[self.storage.key]
    count = 1 + sum(
      (n - 1) * s for n, s in zip(self.size, self.stride, strict=True)
    )
    if 0 in self.size:
      return np.zeros(self.size, flat.dtype)
    if self.offset < 0 or min(self.stride, default=0) < 0:
      raise pickle.UnpicklingError("a tensor reaches outside its numbers")
    if self.offset + count > len(flat):
      raise EOFError("a tensor's numbers are cut off")
    bytes_each = flat.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
      flat[self.offset :],
      self.size,
      [s * bytes_each for s in self.stride],
      writeable=False,
    ).copy()


class _Unpickler(pickle.Unpickler):
  """Builds containers, numbers and tensor descriptions; refuses all else."""

  def find_class(self, module, name):
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if module == "torch._utils":
      if name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
        return _rebuild_tensor
      if name == "_rebuild_parameter":
        return _rebuild_parameter
    if module in ("torch", "torch.storage") and name in _STORAGES:
      return _STORAGES[name]
    if (module, name) == ("torch", "Size"):
      return tuple
    if module.startswith("__torch__"):
      return _Holder
    if module == "torch.jit._pickle" and name.startswith("build_"):
      return list
    raise _Refused(f"{module}.{name}")

  def persistent_load(self, pid):
    if (
      not isinstance(pid, tuple)
      or len(pid) < 5
      or pid[0] != "storage"
      or not isinstance(pid[1], np.dtype)
      or any(view is not None for view in pid[5:])
    ):
      raise pickle.UnpicklingError(f"unknown reference {pid!r:.80}")
    return _Storage(pid[1], str(pid[2]))


class _Refused(pickle.UnpicklingError):
  """A pickle asks for what only running code could give."""


def _read_zip(file) -> Any:
  """Reads torch's zip format and TorchScript archives."""
  with zipfile.ZipFile(file) as archive:
    names = archive.namelist()
    (pickled,) = [n for n in names if re.fullmatch(r"[^/]+/data\.pkl", n)]
    top = pickled.removesuffix("data.pkl")
    order = f"{top}byteorder"
    if order in names and archive.read(order) != b"little":
      raise pickle.UnpicklingError("numbers in big-endian order")
    value = _Unpickler(io.BytesIO(archive.read(pickled))).load()
    cache: dict[str, np.ndarray] = {}

    class Storages:
      def __init__(self, dtypes):
        self._dtypes = dtypes

      def __getitem__(self, key):
        if key not in cache:
          cache[key] = np.frombuffer(
            archive.read(f"{top}data/{key}"), self._dtypes[key]
          )
        return cache[key]

    return _read_tensors(value, Storages(_dtypes(value)))


def _read_legacy(file) -> Any:
  """Reads the stream that torch wrote before 1.6."""
  if file.read(2) != b"\x80\x02":
    raise pickle.UnpicklingError("neither a whole zip file nor a pickle")
  file.seek(0)
  if _Unpickler(file).load() != _LEGACY_MAGIC:
    raise pickle.UnpicklingError("not a torch file")
  _Unpickler(file).load()  # Version of the format.
  _Unpickler(file).load()  # Of the machine.
  value = _Unpickler(file).load()
  keys = _Unpickler(file).load()
  dtypes, storages = _dtypes(value), {}
  for key in keys:
    (count,) = struct.unpack("<q", file.read(8))
    dtype = dtypes[str(key)]
    data = file.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
      raise EOFError("numbers are cut off")
    storages[str(key)] = np.frombuffer(data, dtype)
  return _read_tensors(value, storages)


def _walk(value, visit):
  """Rebuilds containers with `visit` applied to every tensor."""
  if isinstance(value, _Tensor):
    return visit(value)
  if isinstance(value, dict):
    return {k: _walk(v, visit) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_walk(v, visit) for v in value]
  if isinstance(value, _Holder):
    return _walk(_state_of(value), visit)
  return value


def _state_of(holder: _Holder, prefix: str = "") -> dict:
  """A TorchScript module's tensors by the names that state_dict() gives."""
  found = {}
  for name, value in vars(holder).items():
    if isinstance(value, _Tensor):
      found[prefix + name] = value
    elif isinstance(value, _Holder):
      found |= _state_of(value, f"{prefix}{name}.")
  return found


def _dtypes(value) -> dict[str, np.dtype]:
  found = {}

  def visit(tensor):
    found[tensor.storage.key] = tensor.storage.dtype

  _walk(value, visit)
  return found


def _read_tensors(value, storages):
  return _walk(value, lambda tensor: tensor.read(storages))


def read(path: str) -> dict:
  """Reads a .pth file as plain containers of NumPy arrays, running no code.

  Args:
    path: a state_dict, the original's dict with `state_dict`, `optimizer` and
      `global_step`, or a TorchScript archive.

  Raises:
    TorchCheckpointError: if it is none of them or would run code.
  """
  try:
    with open(path, "rb") as file:
      if zipfile.is_zipfile(file):
        value = _read_zip(file)
      else:
        file.seek(0)
        value = _read_legacy(file)
  except FileNotFoundError as e:
    raise TorchCheckpointError(f"{path}: no such file") from e
  except _Refused as e:
    raise TorchCheckpointError(
      f"{path}: refused: beside tensors it holds {e}, which only running its "
      "code could read; save its state_dict() alone, in the program that made "
      "it, and use that"
    ) from e
  except Exception as e:  # Whatever a damaged pickle or zip brings up.
    raise TorchCheckpointError(
      f"{path}: cannot be read as PyTorch weights ({type(e).__name__}: {e}); "
      "it is cut off or something else (a web page?): expected a .pth file of "
      "torch.save or a TorchScript archive"
    ) from e
  if not isinstance(value, dict):
    raise TorchCheckpointError(
      f"{path}: holds a {type(value).__name__}, expected a dict of tensors"
    )
  return value


# --- Loading ----------------------------------------------------------------


def _check(path, network, tensors, leaves) -> None:
  """Lists missing, unexpected and misshapen keys, all at once."""
  expected = {key: shape for _, _, key, _, shape in leaves}
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
    raise TorchCheckpointError(
      f"{path}: is no {network} of this size (width, image_size):\n"
      + "\n".join(lines)
    )


def _state_dict(path: str, value: dict) -> dict[str, np.ndarray]:
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


def _float32(array: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(array, np.float32)


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
  return _load(path, network, width, image_size, read(path))


def _load(path, network, width, image_size, value) -> dict:
  leaves = _leaves(network, _abstract(network, width, image_size))
  tensors = _state_dict(path, value)
  _check(path, network, tensors, leaves)
  variables: dict = {}
  for collection, names, key, kind, _ in leaves:
    array = _float32(_to_flax(tensors[key], kind))
    _put(variables, (collection, *names), array)
  return variables


def load_training(
  path: str, network: str, *, width: float = 1.0, image_size: int = 96
) -> tuple[dict, AdamState | None, int]:
  """Reads a network with what its training goes on from.

  Returns:
    (variables, Adam's state or None if the file has none, global_step).

  Raises:
    TorchCheckpointError: as `load`; also if Adam's state does not fit.
  """
  value = read(path)
  variables = _load(path, network, width, image_size, value)
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
    _put(mu, names, _float32(_to_flax(moments["exp_avg"], kind)))
    _put(nu, names, _float32(_to_flax(moments["exp_avg_sq"], kind)))
    steps.add(int(moments["step"]))
  if len(steps) > 1:
    raise TorchCheckpointError(
      f"{path}: its optimizer counts {sorted(steps)} updates for different "
      "parameters; expected one count for all"
    )
  return variables, AdamState(steps.pop(), mu, nu), step


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

  Args:
    variables: of Flax.
    network: one of NETWORKS.
    global_step: becomes num_batches_tracked, which nothing uses.
  """
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    names = tuple(key.key for key in path)
    key, kind = _torch_name(network, names[1:])
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
  adam: AdamState | None = None,
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
          "step": torch.tensor(float(adam.step)),
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
