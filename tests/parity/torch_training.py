"""The original's training steps in PyTorch, on the twins.

Written from the paper and the facts of the original's scripts
(color_syncnet_train.py, hq_wav2lip_train.py): time is folded time-major, the
losses are BCE of probabilities, G steps before D, and D's step has two backward
passes.  Batches are NumPy arrays in our layout; see `batch`.
"""

import cv2
import numpy as np
import torch
from torch.nn import functional

WINDOW = 5
SIZE = 96
MEL_COLUMNS = 16


def batch(seed: int, count: int) -> dict:
  """Draws windows: smooth pictures that move, and smooth mels.

  Returns:
    As the input pipeline's for both stages, but float32 pictures in [0, 1]:
    frames and other [B, T, S, S, 3], mel [B, M, F], frame_mels [B, T, M, F],
    in_sync [B].
  """
  rng = np.random.default_rng(seed)

  def pictures():
    found = np.empty((count, WINDOW, SIZE, SIZE, 3), np.float32)
    for b in range(count):
      start, end = rng.random((2, 12, 12, 3), np.float32)
      for t in range(WINDOW):
        small = start + (end - start) * t / WINDOW
        found[b, t] = cv2.resize(small, (SIZE, SIZE))
    noise = 0.02 * rng.standard_normal(found.shape, np.float32)
    return np.clip(found + noise, 0, 1)

  def mels(n):
    found = [
      cv2.resize(
        rng.uniform(-4, 4, (4, 10)).astype(np.float32), (80, MEL_COLUMNS)
      )
      for _ in range(n)
    ]
    return np.stack(found)

  return {
    "frames": pictures(),
    "other": pictures(),
    "mel": mels(count),
    "frame_mels": mels(count * WINDOW).reshape(count, WINDOW, MEL_COLUMNS, 80),
    "in_sync": (np.arange(count) % 2).astype(np.float32),
  }


def _tensor(x: np.ndarray, network: torch.nn.Module) -> torch.Tensor:
  params = next(network.parameters())
  device, dtype = params.device, params.dtype
  return torch.from_numpy(np.ascontiguousarray(x)).to(device, dtype)


def _mel(x: np.ndarray, network) -> torch.Tensor:
  """[N, M, F] to [N, 1, F, M]."""
  return _tensor(x, network).transpose(1, 2).unsqueeze(1)


def _by_time(x: np.ndarray) -> np.ndarray:
  """[B, T, ...] to [T B, ...]: all windows' first frames, then the second."""
  return np.concatenate([x[:, t] for t in range(x.shape[1])])


def _channels_first(x: np.ndarray, network) -> torch.Tensor:
  return _tensor(x, network).permute(0, 3, 1, 2)


def cosine_loss(audio, face, labels) -> torch.Tensor:
  """BCE of the cosine itself."""
  cosine = functional.cosine_similarity(audio, face)
  return functional.binary_cross_entropy(cosine.unsqueeze(1), labels)


def expert_loss(expert, data: dict) -> torch.Tensor:
  """Stage 1's loss of a batch."""
  faces = np.concatenate(
    [data["frames"][:, t, SIZE // 2 :] for t in range(WINDOW)], axis=-1
  )
  audio, face = expert(
    _mel(data["mel"], expert), _channels_first(faces, expert)
  )
  labels = _tensor(data["in_sync"], expert).unsqueeze(1)
  return cosine_loss(audio, face, labels)


def sync_loss(expert, data: dict, fake: torch.Tensor) -> torch.Tensor:
  """The expert's loss of generated frames [T B, 3, S, S], all in sync."""
  frames = fake[:, :, SIZE // 2 :].chunk(WINDOW)  # T times [B, 3, S/2, S].
  audio, face = expert(_mel(data["mel"], expert), torch.cat(frames, dim=1))
  return cosine_loss(audio, face, torch.ones_like(audio[:, :1]))


def generate(generator, data: dict) -> tuple[torch.Tensor, torch.Tensor]:
  """(generated, real) frames [T B, 3, S, S]."""
  real = _channels_first(_by_time(data["frames"]), generator)
  masked = real.clone()
  masked[:, :, SIZE // 2 :] = 0.0
  reference = _channels_first(_by_time(data["other"]), generator)
  mel = _mel(_by_time(data["frame_mels"]), generator)
  return generator(mel, torch.cat([masked, reference], dim=1)), real


def probability_loss(discriminator, frames, label: float) -> torch.Tensor:
  """BCE of the discriminator's probabilities against one label."""
  found = discriminator(frames[:, :, SIZE // 2 :])
  return functional.binary_cross_entropy(found, torch.full_like(found, label))


def expert_step(expert, optimizer, data: dict) -> dict:
  """One step of stage 1; returns its loss."""
  optimizer.zero_grad()
  loss = expert_loss(expert, data)
  loss.backward()
  optimizer.step()
  return {"loss": loss.item()}


def gan_step(networks, optimizers, data, sync_weight, adversarial_weight):
  """One step of stage 2: the generator's, then the discriminator's.

  Args:
    networks, optimizers: by name: generator, discriminator; networks also the
      expert, in the mode (eval or train) that is wanted.
    data: a batch.
    sync_weight, adversarial_weight: of the losses; L1 has the rest.

  Returns:
    The losses by our names.
  """
  generator, discriminator, expert = (
    networks[k] for k in ("generator", "discriminator", "expert")
  )
  for optimizer in optimizers.values():
    optimizer.zero_grad()
  fake, real = generate(generator, data)
  sync = sync_loss(expert, data, fake)
  adversarial = probability_loss(discriminator, fake, 1.0)
  l1 = functional.l1_loss(fake, real)
  loss = (
    sync_weight * sync
    + adversarial_weight * adversarial
    + (1.0 - sync_weight - adversarial_weight) * l1
  )
  loss.backward()
  optimizers["generator"].step()

  optimizers["discriminator"].zero_grad()
  of_real = probability_loss(discriminator, real, 1.0)
  of_real.backward()
  of_fake = probability_loss(discriminator, fake.detach(), 0.0)
  of_fake.backward()
  optimizers["discriminator"].step()
  return {
    "loss": loss.item(),
    "loss_l1": l1.item(),
    "loss_sync": sync.item(),
    "loss_adversarial": adversarial.item(),
    "loss_discriminator": (of_real + of_fake).item(),
  }
