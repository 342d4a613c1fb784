"""The three networks, Flax linen, NHWC."""

from w2l_jax.models.generator import Generator
from w2l_jax.models.quality_discriminator import QualityDiscriminator
from w2l_jax.models.sync_expert import SyncExpert

__all__ = ["Generator", "QualityDiscriminator", "SyncExpert"]
