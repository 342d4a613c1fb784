"""PyTorch twins of the networks that only measure, written from their tables.

With the published state_dict keys, shapes and order.  SyncNet alone: LPIPS and
Inception are held against their own packages, where those are installed.
"""

from torch import nn


def _scaled(channels, width):
  return max(1, round(channels * width))


def _block(conv, norm, *args, **kwargs):
  layer = conv(*args, **kwargs)
  return [layer, norm(layer.out_channels), nn.ReLU()]


def _head(width):
  c, out = _scaled(512, width), _scaled(1024, width)
  return nn.Sequential(
    nn.Linear(c, c), nn.BatchNorm1d(c), nn.ReLU(), nn.Linear(c, out)
  )


class SyncNet(nn.Module):
  """Lips [N, 3, 5, 224, 224] and MFCC [N, 1, 13, 20]."""

  def __init__(self, width=1.0):
    super().__init__()

    def speech(cin, cout, kernel, padding):
      cin = 1 if cin == 1 else _scaled(cin, width)
      return _block(
        nn.Conv2d, nn.BatchNorm2d, cin, _scaled(cout, width), kernel,
        padding=padding,
      )  # fmt: skip

    def lips(cin, cout, kernel, stride, padding):
      cin = 3 if cin == 3 else _scaled(cin, width)
      return _block(
        nn.Conv3d, nn.BatchNorm3d, cin, _scaled(cout, width), kernel,
        (1, stride, stride), (0, padding, padding),
      )  # fmt: skip

    self.netcnnaud = nn.Sequential(
      *speech(1, 64, 3, 1),
      nn.MaxPool2d(1, 1),
      *speech(64, 192, 3, 1),
      nn.MaxPool2d(3, (1, 2)),
      *speech(192, 384, 3, 1),
      *speech(384, 256, 3, 1),
      *speech(256, 256, 3, 1),
      nn.MaxPool2d(3, 2),
      *speech(256, 512, (5, 4), 0),
    )
    self.netfcaud = _head(width)
    self.netfclip = _head(width)
    self.netcnnlip = nn.Sequential(
      *lips(3, 96, (5, 7, 7), 2, 0),
      nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
      *lips(96, 256, (1, 5, 5), 2, 1),
      nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
      *lips(256, 256, (1, 3, 3), 1, 1),
      *lips(256, 256, (1, 3, 3), 1, 1),
      *lips(256, 256, (1, 3, 3), 1, 1),
      nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
      *lips(256, 512, (1, 6, 6), 1, 0),
    )

  def forward(self, lips, speech):
    """(lips' embedding, speech's embedding)."""
    return (
      self.netfclip(self.netcnnlip(lips).flatten(1)),
      self.netfcaud(self.netcnnaud(speech).flatten(1)),
    )
