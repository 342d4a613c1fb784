"""The count of bytes, against XLA's own and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2l_jax import memory_traffic


def convolution(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def block(x, kernel):
  return jax.nn.relu(convolution(x, kernel) + x)


PROGRAMS = {
  "block": block,
  "gradient": lambda x, k: jax.grad(lambda k: (block(x, k) ** 2).sum())(k),
  "sums": lambda x, k: (x.sum((0, 1, 2)), (x * x).mean((0, 1, 2)), k > 0),
  "slice": lambda x, k: (x[:, 3:5] * 2, k),
  "bfloat16": lambda x, k: block(*(a.astype(jnp.bfloat16) for a in (x, k))),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_of_a_cpus_program_it_is_xlas(name):
  x, kernel = jnp.ones((4, 32, 32, 16)), jnp.ones((3, 3, 16, 16))
  compiled = jax.jit(PROGRAMS[name]).lower(x, kernel).compile()
  found = memory_traffic.bytes_accessed(compiled.as_text())
  # XLA counts a tuple's addresses, and some of what fusions convert, too.
  expected = compiled.cost_analysis()["bytes accessed"]
  assert found == pytest.approx(expected, rel=6e-3)


def test_a_loops_body_counts_as_often_as_it_runs():
  x = jnp.ones((1000, 1000))

  def counted(times):
    def program(x):
      return jax.lax.fori_loop(0, times, lambda i, y: jnp.sin(y) + i, x)

    text = jax.jit(program).lower(x).compile().as_text()
    return memory_traffic.bytes_accessed(text)

  # It reads and writes four bytes of each number; the rest are counters.
  np.testing.assert_allclose(counted(12) - counted(5), 7 * 8e6, rtol=1e-4)


# As a GPU's: a call of cuDNN, a fusion that takes a slice of what it is given,
# a reduction to two results, an all-reduce and another computation's call.
GPU_TEXT = """
HloModule jit_step, is_scheduled=true

%of_slice (p0: bf16[8,4,4,16], p1: bf16[8,4,4,4]) -> bf16[8,4,4,4] {
  %p1 = bf16[8,4,4,4]{3,2,1,0} parameter(1)
  %p0 = bf16[8,4,4,16]{3,2,1,0} parameter(0)
  %s = bf16[8,4,4,4]{3,2,1,0} slice(%p0), slice={[0:8], [0:4], [0:4], [0:4]}
  ROOT %a = bf16[8,4,4,4]{3,2,1,0} add(%s, %p1)
}

%sums (q0: bf16[8,4,4,4]) -> (f32[4], f32[4]) {
  %q0 = bf16[8,4,4,4]{3,2,1,0} parameter(0)
  ROOT %t = (f32[4]{0}, f32[4]{0}) tuple(%q0, %q0)
}

%of_a_converted_slice (r0: bf16[8,4,4,16], r1: s32[]) -> f32[1,4,4,16] {
  %r0 = bf16[8,4,4,16]{3,2,1,0} parameter(0)
  %r1 = s32[] parameter(1)
  %wide = f32[8,4,4,16]{3,2,1,0} convert(%r0)
  ROOT %d = f32[1,4,4,16]{3,2,1,0} dynamic-slice(%wide, %r1, %r1, %r1, %r1), \
dynamic_slice_sizes={1,4,4,16}
}

%called (s0: bf16[8,4,4,4]) -> bf16[8,4,4,4] {
  %s0 = bf16[8,4,4,4]{3,2,1,0} parameter(0)
  ROOT %n = bf16[8,4,4,4]{3,2,1,0} negate(%s0)
}

ENTRY %main (x: bf16[8,4,4,4], k: bf16[16,3,3,4]) -> (f32[4], f32[4]) {
  %k = bf16[16,3,3,4]{3,2,1,0} parameter(1), metadata={op_name="k"}
  %x = bf16[8,4,4,4]{3,2,1,0} parameter(0), metadata={op_name="x"}
  %conv = (bf16[8,4,4,16]{3,2,1,0}, u8[64]{0}) custom-call(%x, %k), \
custom_call_target="__cudnn$convForward"
  %y = bf16[8,4,4,16]{3,2,1,0} get-tuple-element(%conv), index=0
  %f = bf16[8,4,4,4]{3,2,1,0} fusion(%y, %x), kind=kLoop, calls=%of_slice
  %g = pred[8] compare(%f, %f), direction=GT
  %i = s32[] constant(3)
  %e = f32[1,4,4,16]{3,2,1,0} fusion(%y, %i), kind=kLoop, \
calls=%of_a_converted_slice
  %n = bf16[8,4,4,4]{3,2,1,0} call(%f), to_apply=%called
  %begun = f32[1,4,4,16]{3,2,1,0} all-reduce-start(%e), to_apply=%add
  %ended = f32[1,4,4,16]{3,2,1,0} all-reduce-done(%begun)
  ROOT %r = (f32[4]{0}, f32[4]{0}) fusion(%f), kind=kInput, calls=%sums
}
"""


def test_what_a_fusion_only_converts_is_read():
  text = """
%converts (p: f32[1000]) -> bf16[1000] {
  %p = f32[1000]{0} parameter(0)
  ROOT %c = bf16[1000]{0} convert(%p)
}

ENTRY %main (x: f32[1000]) -> bf16[1000] {
  %x = f32[1000]{0} parameter(0)
  ROOT %f = bf16[1000]{0} fusion(%x), kind=kLoop, calls=%converts
}
"""
  assert memory_traffic.bytes_accessed(text) == 6000


def test_of_a_gpus_program_by_hand():
  x, kernel, y = 2 * 8 * 16 * 4, 2 * 16 * 9 * 4, 2 * 8 * 16 * 16
  call = x + kernel + y + 64
  fusion = x + x + x  # A slice of y is as large as x.
  compare = x + 8  # An operand that is there twice is read once.
  sums = x + 2 * 4 * 4
  # As it is sliced in float32; an index.
  converted_slice = 2 * 4 * 16 * 16 + 4
  called = 2 * x
  all_reduce = 2 * 4 * 16 * 16
  assert memory_traffic.bytes_accessed(GPU_TEXT) == (
    call + fusion + compare + sums + converted_slice + called + all_reduce
  )
