"""Makes the stored arrays: python -m tests.parity.make_stored (needs torch).

For each network at width 1/32 a file in another of PyTorch's formats, and what
PyTorch computes with it, so that reading and the forward pass can be compared
where torch is not installed.
"""

import pathlib

import numpy as np
import torch

from tests.parity.torch_judges import SyncNet
from tests.parity.torch_networks import TWINS

WIDTH = 1 / 32
FOLDER = pathlib.Path(__file__).parent / "data"
INPUTS = {
  "sync_expert": ((4, 80, 16, 1), (4, 48, 96, 15)),
  "generator": ((2, 80, 16, 1), (2, 96, 96, 6)),
  "quality_discriminator": ((2, 48, 96, 3),),
}


def nchw(x: np.ndarray) -> torch.Tensor:
  """Channels to the front."""
  return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def randomise_statistics(network: torch.nn.Module) -> None:
  """Gives BatchNorm running statistics that are not 0 and 1."""
  for name, buffer in network.named_buffers():
    if name.endswith("running_mean"):
      buffer.normal_(0, 0.2)
    elif name.endswith("running_var"):
      buffer.uniform_(0.5, 2)


def syncnet_inputs() -> tuple[np.ndarray, np.ndarray]:
  """Frames [3, 5, 224, 224, 3] and MFCCs [3, 20, 13]."""
  rng = np.random.default_rng(2)
  frames = rng.integers(0, 256, (3, 5, 224, 224, 3)).astype(np.float32)
  return frames, rng.normal(0, 10, (3, 20, 13)).astype(np.float32)


def syncnet_outputs(network: torch.nn.Module) -> list[np.ndarray]:
  """What a twin of SyncNet makes of `syncnet_inputs`."""
  frames, mfcc = (torch.from_numpy(x) for x in syncnet_inputs())
  with torch.no_grad():
    outputs = network(
      frames.permute(0, 4, 1, 2, 3), mfcc.permute(0, 2, 1)[:, None]
    )
  return [x.numpy() for x in outputs]


def store_syncnet() -> None:
  """In the published file's format: a state_dict from before torch 1.6."""
  torch.manual_seed(1)
  network = SyncNet(WIDTH)
  randomise_statistics(network)
  network.eval()
  torch.save(
    network.state_dict(),
    FOLDER / "syncnet.model",
    _use_new_zipfile_serialization=False,
  )
  arrays = {f"output_{i}": x for i, x in enumerate(syncnet_outputs(network))}
  np.savez_compressed(FOLDER / "syncnet.npz", **arrays)


def main():
  """Writes tests/parity/data."""
  FOLDER.mkdir(exist_ok=True)
  store_syncnet()
  for name, cls in TWINS.items():
    torch.manual_seed(1)
    network = cls(WIDTH)
    rng = np.random.default_rng(2)
    inputs = [rng.random(s, dtype=np.float32) for s in INPUTS[name]]
    tensors = [nchw(x) for x in inputs]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    output = network(*tensors)
    sum(x.square().mean() for x in (
      output if isinstance(output, tuple) else (output,)
    )).backward()  # fmt: skip
    optimizer.step()
    randomise_statistics(network)
    network.eval()
    with torch.no_grad():
      output = (
        network.logits(*tensors)
        if name == "quality_discriminator"
        else network(*tensors)
      )
    if name == "generator":  # The original's: before torch 1.6, DataParallel.
      torch.save(
        {
          "state_dict": {
            f"module.{k}": v for k, v in network.state_dict().items()
          },
          "optimizer": optimizer.state_dict(),
          "global_step": 1,
          "global_epoch": 0,
        },
        FOLDER / f"{name}.pth",
        _use_new_zipfile_serialization=False,
      )
      output = output.permute(0, 2, 3, 1)
    elif name == "sync_expert":
      torch.save(network.state_dict(), FOLDER / f"{name}.pth")
    else:
      torch.jit.trace(network, tuple(tensors)).save(FOLDER / f"{name}.pt")
    outputs = output if isinstance(output, tuple) else (output,)
    arrays = {f"output_{i}": x.numpy() for i, x in enumerate(outputs)}
    if name == "generator":
      key = "face_decoder_blocks.2.0.conv_block.0.weight"
      number = [k for k, _ in network.named_parameters()].index(key)
      arrays["exp_avg"] = optimizer.state_dict()["state"][number][
        "exp_avg"
      ].numpy()
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


if __name__ == "__main__":
  main()
