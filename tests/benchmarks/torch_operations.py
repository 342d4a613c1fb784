"""The benchmark's operations in PyTorch: twins, and the original's loader."""

import os
import pathlib

import cv2
import librosa
import numpy as np
import scipy.io.wavfile
import scipy.signal
import torch
from torch.nn import functional

from configs import expert_lrs2, gan_lrs2
from tests.benchmarks import operation
from tests.benchmarks.operation import Operation, Options
from tests.parity import torch_training
from tests.parity.both_sides import make_twins
from w2l_jax import dataset


def device() -> torch.device:
  """The GPU if there is one."""
  return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _Autocast(torch.nn.Module):
  """A network that computes in bfloat16 and gives float32."""

  def __init__(self, network):
    super().__init__()
    self.network = network

  def forward(self, *args):
    with torch.autocast(device().type, torch.bfloat16):
      out = self.network(*args)
    if isinstance(out, tuple):
      return tuple(x.float() for x in out)
    return out.float()


def _networks(options: Options) -> dict:
  networks = {}
  for name, network in make_twins(options.width).items():
    network = network.to(device())
    if "channels_last" in options.mode:
      network = network.to(memory_format=torch.channels_last)
    if options.precision == "bfloat16":
      network = _Autocast(network)
    if "compile" in options.mode:
      network = torch.compile(network)
    networks[name] = network
  return networks


def _wait() -> None:
  if torch.cuda.is_available():
    torch.cuda.synchronize()


def generator(options: Options) -> Operation:
  """The forward pass in eval mode."""
  network = _networks(options)["generator"].eval()
  mels, faces = (
    torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    for x in operation.generator_inputs(options)
  )
  found = {}

  def run():
    with torch.inference_mode():
      found["frames"] = network(mels.to(device()), faces.to(device()))
    _wait()

  run()
  frames = found["frames"].permute(0, 2, 3, 1).float().cpu().numpy()
  return Operation(run, options.batch_size, "frames", {"frames": frames})


def _adam(network, config) -> torch.optim.Optimizer:
  return torch.optim.Adam(
    network.parameters(),
    lr=config.learning_rate,
    betas=(config.b1, config.b2),
    eps=config.eps,
  )


def _float_pictures(data: dict) -> dict:
  return {
    k: v.astype(np.float32) / 255 if v.dtype == np.uint8 else v
    for k, v in data.items()
  }


def expert_step(options: Options) -> Operation:
  """A step of stage 1."""
  expert = _networks(options)["sync_expert"].train()
  optimizer = _adam(expert, expert_lrs2.get_config().optimizer)
  data = _float_pictures(operation.windows(options.batch_size))

  def run():
    losses = torch_training.expert_step(expert, optimizer, data)
    _wait()
    return losses

  first = run()
  return Operation(run, options.batch_size, "windows", _arrays(first))


def _stage_2(options: Options, adversarial: bool) -> Operation:
  networks = _networks(options)
  config = gan_lrs2.get_config()
  named = {
    "generator": networks["generator"].train(),
    "discriminator": networks["quality_discriminator"].train(),
    "expert": networks["sync_expert"].eval().requires_grad_(False),
  }
  optimizers = {
    "generator": _adam(named["generator"], config.optimizer),
    "discriminator": _adam(
      named["discriminator"], config.discriminator_optimizer
    ),
  }
  data = _float_pictures(operation.windows(options.generator_windows))
  weight = config.loss.sync_weight

  def without_gan():
    optimizers["generator"].zero_grad()
    fake, real = torch_training.generate(named["generator"], data)
    sync = torch_training.sync_loss(named["expert"], data, fake)
    l1 = functional.l1_loss(fake, real)
    loss = weight * sync + (1 - weight) * l1
    loss.backward()
    optimizers["generator"].step()
    return {
      "loss": loss.item(),
      "loss_l1": l1.item(),
      "loss_sync": sync.item(),
    }

  def run():
    if adversarial:
      losses = torch_training.gan_step(
        named, optimizers, data, weight, config.loss.adversarial_weight
      )
    else:
      losses = without_gan()
    _wait()
    return losses

  first = run()
  return Operation(run, options.generator_windows, "windows", _arrays(first))


def generator_step(options: Options) -> Operation:
  """A step of stage 2 without GAN, the sync loss on."""
  return _stage_2(options, adversarial=False)


def gan_step(options: Options) -> Operation:
  """A step of stage 2 with GAN, the sync loss on."""
  return _stage_2(options, adversarial=True)


def _arrays(losses: dict) -> dict[str, np.ndarray]:
  return {k: np.asarray(v) for k, v in losses.items()}


# --- The original's loader ---------------------------------------------------


def _export(options: Options) -> list[str]:
  """Writes some clips as the original's preprocess.py leaves them."""
  split = dataset.Split(dataset.builder_dir(options.data, 96), "train")
  folders = []
  for i in range(min(40, len(split))):
    record = split[i]
    folder = pathlib.Path(options.folder) / "crops" / str(i)
    folder.mkdir(parents=True, exist_ok=True)
    for j, jpeg in enumerate(record["frames"]):
      (folder / f"{j}.jpg").write_bytes(jpeg)
    samples = np.int16(32767 * dataset.decode_audio(record))
    scipy.io.wavfile.write(folder / "audio.wav", 16_000, samples)
    folders.append(str(folder))
  return folders


_MEL_BASIS = librosa.filters.mel(
  sr=16_000, n_fft=800, n_mels=80, fmin=55, fmax=7600
)


def _melspectrogram(path: str) -> np.ndarray:
  """[T, 80] of a whole file, as the original computes it for each sample."""
  waveform, _ = librosa.load(path, sr=16_000)
  emphasised = scipy.signal.lfilter([1, -0.97], [1], waveform)
  magnitude = np.abs(librosa.stft(emphasised, n_fft=800, hop_length=200))
  decibels = 20 * np.log10(np.maximum(1e-5, _MEL_BASIS @ magnitude)) - 20
  return np.clip(8 * (decibels + 100) / 100 - 4, -4, 4).T


def _pictures(folder: str, start: int) -> np.ndarray:
  paths = [f"{folder}/{start + k}.jpg" for k in range(operation.WINDOW)]
  return np.stack([cv2.resize(cv2.imread(p), (96, 96)) for p in paths])


def _sample(rng, folders: list[str], stage: str) -> list[np.ndarray]:
  """One window: its pictures are read, and the mel of all its clip computed."""
  folder = folders[rng.integers(len(folders))]
  count = len([n for n in os.listdir(folder) if n.endswith(".jpg")])
  start, other = rng.integers(1, count - 8, 2)
  mel = _melspectrogram(f"{folder}/audio.wav")
  column = int(80 * start / 25)
  pictures = [_pictures(folder, start)]
  mels = [mel[column : column + 16].T]
  if stage == "generator":
    pictures.append(_pictures(folder, other))
    columns = [int(80 * (start + k - 1) / 25) for k in range(operation.WINDOW)]
    mels.append(np.stack([mel[c : c + 16].T for c in columns]))
  pictures = [(x / 255.0).transpose(3, 0, 1, 2) for x in pictures]
  return [torch.FloatTensor(x) for x in (*pictures, *mels)]


def _loader(options: Options, stage: str) -> Operation:
  folders = _export(options)
  torch.set_num_threads(1)
  rng = np.random.default_rng(0)

  def run():
    samples = [_sample(rng, folders, stage) for _ in range(16)]
    return [torch.stack(x) for x in zip(*samples, strict=True)]

  run()
  return Operation(run, 16, "windows")


def expert_input(options: Options) -> Operation:
  """Stage 1's windows as the original loads them, on one core."""
  return _loader(options, "expert")


def generator_input(options: Options) -> Operation:
  """Stage 2's."""
  return _loader(options, "generator")


# --- What the machine can do -------------------------------------------------


def machine(options: Options) -> Operation:
  """A matrix product."""
  dtype = getattr(torch, options.precision)
  size = 8192 if torch.cuda.is_available() else 2048
  a = torch.ones(size, size, dtype=dtype, device=device())

  def run():
    a @ a
    _wait()

  run()
  return Operation(run, 2 * size**3, "FLOP")


def memory() -> int | None:
  """Returns the most bytes of the GPU that were taken."""
  if torch.cuda.is_available():
    return torch.cuda.max_memory_allocated()
  return None
