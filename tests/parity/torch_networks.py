"""PyTorch twins of the three networks, written from the paper and its tables.

They have the original's state_dict keys, shapes and order, so a file that loads
into them strictly loads into the original's classes.
"""

import torch
from torch import nn
from torch.nn import functional


def _scaled(channels, width):
  return max(1, round(channels * width))


class Block(nn.Module):
  """Convolution, BatchNorm, optional residual, ReLU."""

  def __init__(self, cin, cout, kernel, stride=1, padding=0, residual=False):
    super().__init__()
    self.conv_block = nn.Sequential(
      nn.Conv2d(cin, cout, kernel, stride, padding), nn.BatchNorm2d(cout)
    )
    self.residual = residual

  def forward(self, x):
    out = self.conv_block(x)
    return functional.relu(out + x if self.residual else out)


class TransposedBlock(nn.Module):
  """Transposed convolution, BatchNorm, ReLU."""

  def __init__(self, cin, cout, stride, padding, output_padding):
    super().__init__()
    self.conv_block = nn.Sequential(
      nn.ConvTranspose2d(cin, cout, 3, stride, padding, output_padding),
      nn.BatchNorm2d(cout),
    )

  def forward(self, x):
    return functional.relu(self.conv_block(x))


class LeakyBlock(nn.Module):
  """Convolution and LeakyReLU."""

  def __init__(self, cin, cout, kernel, stride, padding):
    super().__init__()
    self.conv_block = nn.Sequential(
      nn.Conv2d(cin, cout, kernel, stride, padding)
    )

  def forward(self, x):
    return functional.leaky_relu(self.conv_block(x), 0.01)


def _audio_encoder(width, last_residuals):
  c = [_scaled(n, width) for n in (32, 64, 128, 256, 512)]
  layers = [Block(1, c[0], 3, 1, 1)]
  layers += [Block(c[0], c[0], 3, 1, 1, True) for _ in range(2)]
  layers += [Block(c[0], c[1], 3, (3, 1), 1)]
  layers += [Block(c[1], c[1], 3, 1, 1, True) for _ in range(2)]
  layers += [Block(c[1], c[2], 3, 3, 1)]
  layers += [Block(c[2], c[2], 3, 1, 1, True) for _ in range(2)]
  layers += [Block(c[2], c[3], 3, (3, 2), 1)]
  layers += [Block(c[3], c[3], 3, 1, 1, True) for _ in range(last_residuals)]
  layers += [Block(c[3], c[4], 3), Block(c[4], c[4], 1)]
  return nn.Sequential(*layers)


class SyncExpert(nn.Module):
  """The original's SyncNet_color."""

  def __init__(self, width=1.0):
    super().__init__()
    c = [_scaled(n, width) for n in (32, 64, 128, 256, 512)]
    layers = [Block(15, c[0], 7, 1, 3), Block(c[0], c[1], 5, (1, 2), 1)]
    layers += [Block(c[1], c[1], 3, 1, 1, True) for _ in range(2)]
    for cin, cout, residuals in ((1, 2, 3), (2, 3, 2), (3, 4, 2)):
      layers += [Block(c[cin], c[cout], 3, 2, 1)]
      layers += [
        Block(c[cout], c[cout], 3, 1, 1, True) for _ in range(residuals)
      ]
    layers += [Block(c[4], c[4], 3, 2, 1), Block(c[4], c[4], 3)]
    layers += [Block(c[4], c[4], 1)]
    self.face_encoder = nn.Sequential(*layers)
    self.audio_encoder = _audio_encoder(width, 2)

  def forward(self, audio, faces):
    """(audio embedding, face embedding), unit length."""
    return tuple(
      functional.normalize(x.flatten(1), p=2, dim=1)
      for x in (self.audio_encoder(audio), self.face_encoder(faces))
    )


class Generator(nn.Module):
  """The original's Wav2Lip."""

  def __init__(self, width=1.0):
    super().__init__()

    def s(channels):
      return _scaled(channels, width)

    stages = [nn.Sequential(Block(6, s(16), 7, 1, 3))]
    cin = 16
    for cout, residuals in ((32, 2), (64, 3), (128, 2), (256, 2), (512, 1)):
      stages.append(
        nn.Sequential(
          Block(s(cin), s(cout), 3, 2, 1),
          *(Block(s(cout), s(cout), 3, 1, 1, True) for _ in range(residuals)),
        )
      )
      cin = cout
    stages.append(
      nn.Sequential(Block(s(512), s(512), 3), Block(s(512), s(512), 1))
    )
    self.face_encoder_blocks = nn.ModuleList(stages)
    self.audio_encoder = _audio_encoder(width, 1)
    stages = [nn.Sequential(Block(s(512), s(512), 1))]
    stages.append(
      nn.Sequential(
        TransposedBlock(s(512) + s(512), s(512), 1, 0, 0),
        Block(s(512), s(512), 3, 1, 1, True),
      )
    )
    for before, skip, cout in (
      (512, 512, 512), (512, 256, 384), (384, 128, 256), (256, 64, 128),
      (128, 32, 64),
    ):  # fmt: skip
      stages.append(
        nn.Sequential(
          TransposedBlock(s(before) + s(skip), s(cout), 2, 1, 1),
          *(Block(s(cout), s(cout), 3, 1, 1, True) for _ in range(2)),
        )
      )
    self.face_decoder_blocks = nn.ModuleList(stages)
    self.output_block = nn.Sequential(
      Block(s(64) + s(16), s(32), 3, 1, 1), nn.Conv2d(s(32), 3, 1), nn.Sigmoid()
    )

  def forward(self, audio, faces):
    """Frames [N, 3, 96, 96]."""
    skips = []
    for stage in self.face_encoder_blocks:
      faces = stage(faces)
      skips.append(faces)
    x = self.audio_encoder(audio)
    for stage in self.face_decoder_blocks:
      x = torch.cat([stage(x), skips.pop()], dim=1)
    return self.output_block(x)


class QualityDiscriminator(nn.Module):
  """The original's Wav2Lip_disc_qual, on lower halves."""

  def __init__(self, width=1.0):
    super().__init__()
    c = [_scaled(n, width) for n in (32, 64, 128, 256, 512)]
    blocks = [[LeakyBlock(3, c[0], 7, 1, 3)]]
    blocks += [
      [LeakyBlock(c[0], c[1], 5, (1, 2), 2), LeakyBlock(c[1], c[1], 5, 1, 2)]
    ]
    for cin, cout, kernel in ((1, 2, 5), (2, 3, 5), (3, 4, 3), (4, 4, 3)):
      blocks.append(
        [
          LeakyBlock(c[cin], c[cout], kernel, 2, kernel // 2),
          LeakyBlock(c[cout], c[cout], kernel, 1, kernel // 2),
        ]
      )
    blocks.append(
      [LeakyBlock(c[4], c[4], 3, 1, 0), LeakyBlock(c[4], c[4], 1, 1, 0)]
    )
    self.face_encoder_blocks = nn.ModuleList(nn.Sequential(*b) for b in blocks)
    self.binary_pred = nn.Sequential(nn.Conv2d(c[4], 1, 1), nn.Sigmoid())

  def logits(self, lower_half):
    """Before the sigmoid, [N, 1]."""
    for stage in self.face_encoder_blocks:
      lower_half = stage(lower_half)
    return self.binary_pred[0](lower_half).flatten(1)

  def forward(self, lower_half):
    """Probabilities [N, 1]."""
    return torch.sigmoid(self.logits(lower_half))


TWINS = {
  "sync_expert": SyncExpert,
  "generator": Generator,
  "quality_discriminator": QualityDiscriminator,
}
