"""PyTorch's files as NumPy arrays, without torch and without running code.

A .pth file is a zip (or, before torch 1.6, a plain stream) of pickled tensor
descriptions beside raw numbers; a TorchScript archive is the same with modules
as attribute holders.  A pickle that asks for anything else is refused unread.
"""

import collections
import dataclasses
import io
import pickle
import re
import struct
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

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
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class TorchCheckpointError(ValueError):
  """A file cannot be used; the message names it and says what to do."""


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
  """A parameter is its tensor."""
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
    return type(value)(_walk(v, visit) for v in value)
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
