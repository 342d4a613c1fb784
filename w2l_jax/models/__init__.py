"""The three networks that are trained, Flax linen, NHWC.

Those that only measure (syncnet, lpips, inception) are modules of their own.
"""

from w2l_jax.models.generator import Generator
from w2l_jax.models.quality_discriminator import QualityDiscriminator
from w2l_jax.models.sync_expert import SyncExpert

__all__ = ["Generator", "QualityDiscriminator", "SyncExpert"]
