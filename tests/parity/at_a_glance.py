"""The comparison in small, for a notebook: one call for each thing to look at.

compare.py proves; this shows.  All in float32, which every accelerator has.
"""

import dataclasses
import os
import time

import jax
import numpy as np
import optax
import torch

from tests.parity import torch_training, training_runs
from tests.parity.both_sides import Plan, make_twins, variables_of
from tests.parity.torch_networks import Generator
from w2l_jax import (
  audio,
  checkpoints,
  face_preview,
  faces,
  inference,
  models,
  network_inputs,
  video,
  weight_files,
  windows,
)

_SHOWN = 5  # Faces in a picture.
# Calls that are timed.
_CALLS = 5


def write_random(path: str, width: float) -> str:
  """Writes PyTorch's file of a generator with random weights; returns it."""
  twin = make_twins(width)["generator"]
  torch.save({"state_dict": twin.state_dict(), "optimizer": None}, path)
  config = weight_files.original_config("generator") | {"width": width}
  # PyTorch's file has no place for the width; the original's is 1.
  checkpoints.write_config(f"{os.path.splitext(path)[0]}.json", config)
  return path


@dataclasses.dataclass(frozen=True)
class Forward:
  """What both draw, float32 [n, S, S, 3] in [0, 1], BGR."""

  torch: np.ndarray
  jax: np.ndarray

  @property
  def largest(self) -> float:
    """The largest difference of any number."""
    return float(np.abs(self.torch - self.jax).max())

  @property
  def gain(self) -> float:
    """What makes it visible, a power of ten."""
    return 10.0 ** np.floor(-np.log10(max(self.largest, 1e-12)))

  def picture(self) -> np.ndarray:
    """Rows of PyTorch's, JAX's and the difference, uint8."""
    different = np.abs(self.torch - self.jax) * self.gain
    rows = [np.concatenate(list(x), 1) for x in (self.torch, self.jax)]
    rows.append(np.concatenate(list(different), 1))
    levels = np.rint(np.clip(np.concatenate(rows), 0, 1) * 255)
    return levels.astype(np.uint8)


def forward(pth: str, converted: str, face: str, speech: str) -> Forward:
  """Draws moments of a face saying something with both.

  Args:
    pth: PyTorch's file of a generator, read by PyTorch.
    converted: the same, converted.
    face: a video.
    speech: a file with sound; the face says its first seconds.
  """
  variables, config = inference.load_generator(converted)
  loaded = torch.load(pth, map_location="cpu", weights_only=True)
  tensors = loaded.get("state_dict", loaded)
  twin = Generator(config["width"])
  twin.load_state_dict(
    {k.removeprefix("module."): v for k, v in tensors.items()}
  )
  crops, mels = _faces_and_speech(face, speech, config["image_size"])
  inputs = np.asarray(
    network_inputs.generator_faces(*2 * [crops.astype(np.float32) / 255])
  )
  images = np.asarray(network_inputs.mel_image(mels))
  # Accelerators multiply float32 in fewer bits unless they are asked not to.
  with jax.default_matmul_precision("highest"):
    ours = jax.jit(inference.make_model(config).apply)(
      variables, images, inputs
    )
  with torch.inference_mode():
    theirs = twin.eval()(
      *(torch.from_numpy(x.transpose(0, 3, 1, 2)) for x in (images, inputs))
    )
  return Forward(theirs.numpy().transpose(0, 2, 3, 1), np.asarray(ours))


def _faces_and_speech(face: str, speech: str, size: int) -> tuple:
  """(crops [n, S, S, 3] uint8, mels [n, M, F]) of moments."""
  box = face_preview.preview(face).boxes[0]
  frames = list(video.frames_at_rate(face, windows.FPS))
  chosen = np.linspace(0, len(frames) - 1, _SHOWN).astype(int)
  crops = np.stack([faces.crop(frames[i], box, size) for i in chosen])
  mel = audio.log_mel(audio.resample(*video.read_audio(speech)))
  mels = inference.frame_mels(mel, len(frames), windows.FPS, 16, 0)
  return crops, mels[chosen].astype(np.float32)


def train(stage: str, steps: int, width: float) -> dict[str, list[dict]]:
  """Trains both from the same weights on the same batches.

  Args:
    stage: "expert" or "gan".
    steps: how many.
    width: of the networks.

  Returns:
    {"PyTorch": lines, "JAX": lines}, lines as in metrics.jsonl.
  """
  plan = Plan(trajectory_width=width, expert_windows=8, gan_windows=2)
  with jax.default_matmul_precision("highest"):
    runs = {
      "PyTorch": training_runs.torch_run(stage, plan, steps, np.float32),
      "JAX": training_runs.jax_run(stage, plan, steps, np.float32),
    }
  return {
    name: [
      {"step": i + 1} | {k: float(v[i]) for k, v in run["losses"].items()}
      for i in range(steps)
    ]
    for name, run in runs.items()
  }


def differences(runs: dict[str, list[dict]], names: list[str]) -> list[list]:
  """[step, |JAX - PyTorch| / |PyTorch| of each name], a line a step."""
  return [
    [ours["step"]] + [abs(ours[n] - theirs[n]) / abs(theirs[n]) for n in names]
    for ours, theirs in zip(runs["JAX"], runs["PyTorch"], strict=True)
  ]


def benchmark(width: float, batch: int) -> list[list]:
  """Times both at drawing and at training.

  Args:
    width: of the generator.
    batch: frames at a time.

  Returns:
    [library, device, frames a second drawn, frames a second trained on].
  """
  data = torch_training.batch(0, -(-batch // torch_training.WINDOW))
  real, other, mels = (
    data[k].reshape(-1, *data[k].shape[2:])[:batch]
    for k in ("frames", "other", "frame_mels")
  )
  images = np.asarray(network_inputs.mel_image(mels))
  inputs = np.asarray(network_inputs.generator_faces(real, other))
  twin = make_twins(width)["generator"]
  return [
    ["JAX", *_time_jax(twin, width, images, inputs, real)],
    ["PyTorch", *_time_torch(twin, images, inputs, real)],
  ]


def _per_second(call, batch: int) -> float:
  call()  # Compiles, or chooses algorithms.
  began = time.perf_counter()
  for _ in range(_CALLS):
    call()
  return _CALLS * batch / (time.perf_counter() - began)


def _time_jax(twin, width, images, inputs, real) -> list:
  variables = variables_of(twin, "generator", width, np.float32)
  images, inputs, real = jax.device_put((images, inputs, real))
  model = models.Generator(width=width)
  tx = optax.adam(1e-4)

  @jax.jit
  def draw(variables):
    return model.apply(variables, images, inputs)

  @jax.jit
  def step(variables, opt_state):
    def loss(params):
      fake, updated = model.apply(
        {**variables, "params": params},
        images,
        inputs,
        train=True,
        mutable=["batch_stats"],
      )
      return abs(fake - real).mean(), updated

    (_, updated), gradient = jax.value_and_grad(loss, has_aux=True)(
      variables["params"]
    )
    updates, opt_state = tx.update(gradient, opt_state)
    params = optax.apply_updates(variables["params"], updates)
    return {"params": params, **updated}, opt_state

  drawn = _per_second(lambda: jax.block_until_ready(draw(variables)), len(real))
  state = [variables, tx.init(variables["params"])]

  def train():
    state[:] = jax.block_until_ready(step(*state))

  return [jax.devices()[0].device_kind, drawn, _per_second(train, len(real))]


def _time_torch(twin, images, inputs, real) -> list:
  device = "cuda" if torch.cuda.is_available() else "cpu"
  twin = twin.to(device)
  images, inputs, real = (
    torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).to(device)
    for x in (images, inputs, real)
  )
  optimizer = torch.optim.Adam(twin.parameters(), lr=1e-4)

  def finish():
    if device == "cuda":
      torch.cuda.synchronize()

  def draw():
    with torch.inference_mode():
      twin(images, inputs)
    finish()

  def train():
    optimizer.zero_grad()
    (twin(images, inputs) - real).abs().mean().backward()
    optimizer.step()
    finish()

  twin.eval()
  drawn = _per_second(draw, len(real))
  twin.train()
  name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
  return [name, drawn, _per_second(train, len(real))]
