"""The generator's forward pass in onnxruntime, from PyTorch's export."""

import os

import onnxruntime
import torch

from tests.benchmarks import operation
from tests.benchmarks.operation import Operation, Options
from tests.parity.both_sides import make_twins


def generator(options: Options) -> Operation:
  """The forward pass in eval mode."""
  network = make_twins(options.width)["generator"].eval()
  mels, faces = (
    torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    for x in operation.generator_inputs(options)
  )
  path = os.path.join(options.folder, "generator.onnx")
  torch.onnx.export(
    network, (mels, faces), path, input_names=["mels", "faces"], dynamo=False
  )
  settings = onnxruntime.SessionOptions()
  settings.intra_op_num_threads = os.cpu_count()
  providers = onnxruntime.get_available_providers()
  session = onnxruntime.InferenceSession(path, settings, providers=providers)
  inputs = {"mels": mels.numpy(), "faces": faces.numpy()}

  def run():
    return session.run(None, inputs)[0]

  frames = run().transpose(0, 2, 3, 1)
  return Operation(run, options.batch_size, "frames", {"frames": frames})


def memory() -> None:
  """onnxruntime does not tell."""
