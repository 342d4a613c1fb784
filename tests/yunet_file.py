"""An ONNX file with the outputs of YuNet, written by hand: no wheel has YuNet.

It takes every white cell of 8 x 8 pixels for a face of a fixed size around it.
The format is protobuf (onnx.proto3); fields are given by their numbers.
"""

import numpy as np

# Width and height of each "face", in pixels of what the network sees.
WIDTH, HEIGHT = 48.0, 64.0


def _varint(value: int) -> bytes:
  out = bytearray()
  while value >= 0x80:
    out.append(value & 0x7F | 0x80)
    value >>= 7
  return bytes([*out, value])


def _field(number: int, value) -> bytes:
  if isinstance(value, int):
    return _varint(number << 3) + _varint(value)
  value = value.encode() if isinstance(value, str) else value
  return _varint(number << 3 | 2) + _varint(len(value)) + value


def _tensor(name: str, values: np.ndarray) -> bytes:
  kind = {"float32": 1, "int64": 7}[values.dtype.name]
  dims = b"".join(_field(1, d) for d in values.shape)
  return dims + _field(2, kind) + _field(8, name) + _field(9, values.tobytes())


def _ints(name: str, values) -> bytes:
  body = _field(1, name) + b"".join(_field(8, v) for v in values)
  return _field(5, body + _field(20, 7))


def _node(kind: str, inputs, output: str, attributes: bytes = b"") -> bytes:
  body = b"".join(_field(1, i) for i in inputs) + _field(2, output)
  return _field(
    1, body + _field(3, f"make_{output}") + _field(4, kind) + attributes
  )


def _value(name: str, dims) -> bytes:
  shape = b"".join(_field(1, _field(1, d)) for d in dims)
  return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, shape)))


def yunet_like() -> bytes:
  """Returns the file's bytes."""
  nodes, tensors, outputs = b"", b"", b""
  bright = np.full((1, 3), 1 / 765, np.float32)
  for stride in (8, 16, 32):
    pooled = f"pooled_{stride}"
    nodes += _node(
      "AveragePool",
      ["input"],
      pooled,
      _ints("kernel_shape", [stride] * 2) + _ints("strides", [stride] * 2),
    )
    on = bright if stride == 8 else 0 * bright
    size = [0.5, 0.5, np.log(WIDTH / stride), np.log(HEIGHT / stride)]
    for head, weights, bias in (
      ("cls", on, [0.0]),
      ("obj", on, [0.0]),
      ("bbox", np.zeros((4, 3)), size),
      ("kps", np.zeros((10, 3)), [0.0] * 10),
    ):
      name = f"{head}_{stride}"
      weights = np.asarray(weights, np.float32)[..., None, None]
      tensors += _field(5, _tensor(f"w_{name}", weights))
      tensors += _field(5, _tensor(f"b_{name}", np.array(bias, np.float32)))
      shape = np.array([1, len(bias), -1], np.int64)
      tensors += _field(5, _tensor(f"s_{name}", shape))
      nodes += _node("Conv", [pooled, f"w_{name}", f"b_{name}"], f"map_{name}")
      nodes += _node("Reshape", [f"map_{name}", f"s_{name}"], f"flat_{name}")
      nodes += _node(
        "Transpose", [f"flat_{name}"], name, _ints("perm", [0, 2, 1])
      )
      cells = (320 // stride) ** 2
      outputs += _field(12, _value(name, [1, cells, len(bias)]))
  graph = nodes + _field(2, "yunet_like") + tensors
  graph += _field(11, _value("input", [1, 3, 320, 320])) + outputs
  return (
    _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))
  )
