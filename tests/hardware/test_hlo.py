"""The summary of a compiled program, against programs whose costs are known and against XLA's own counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from a2f_jax.hardware import hlo


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


def test_arrays_include_the_padding_of_their_tiles():
    # 16 channels on 128 lanes, and 3 rows on 8 sublanes.
    assert hlo.arrays("bf16[4,48,48,16]{3,2,1,0:T(8,128)(2,1)}") == [hlo.Array(4 * 48 * 48 * 128 * 2, 0)]
    assert hlo.arrays("f32[3,16]{1,0:T(8,128)S(1)}") == [hlo.Array(8 * 128 * 4, 1)]
    assert hlo.arrays("(f32[2,3]{1,0}, u8[5]{0}, pred[])") == [hlo.Array(24, 0), hlo.Array(5, 0), hlo.Array(1, 0)]


def test_traffic_is_that_which_xla_counts_for_a_program_without_loops():
    def function(x, kernel):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.tanh(y).sum((1, 2)) @ jnp.ones((4, 5))

    program = compiled(function, jnp.ones((2, 20, 20, 3)), jnp.ones((3, 3, 3, 4)))
    assert hlo.summarize(program.as_text()).traffic == pytest.approx(
        program.cost_analysis()["bytes accessed"], rel=0.02
    )


def test_the_body_of_a_loop_counts_as_often_as_it_runs():
    def times(length):
        def function(x):
            return jax.lax.scan(lambda c, _: (jnp.cos(c @ c), None), x, length=length)[0]

        return hlo.summarize(compiled(function, jnp.ones((50, 50))).as_text()).traffic

    assert (times(9) - times(5)) / 4 == pytest.approx(times(5) / 5, rel=0.1)


def test_reading_a_part_of_an_array_does_not_count_the_whole():
    def function(images, places):
        return images.at[places].get(mode="clip") + 1

    images, places = jnp.ones((10_000, 128), jnp.uint8), jnp.arange(7)
    assert hlo.summarize(compiled(function, images, places).as_text()).traffic < 10 * 7 * 128


def test_collectives_are_counted_with_their_size():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))

    def function(x):
        def body(carry, _):
            return jax.lax.pmean(carry * 2, "data"), None

        return jax.lax.scan(body, x, length=3)[0]

    program = jax.jit(
        jax.shard_map(
            function, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"), check_vma=False
        )
    )
    text = program.lower(jax.ShapeDtypeStruct((8, 100), jnp.float32, sharding=split)).compile().as_text()
    assert hlo.summarize(text).collectives == {"all-reduce": hlo.Collective(3, 3 * 400)}


def test_a_call_into_the_host_is_counted():
    def function(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x) + 1

    assert hlo.summarize(compiled(function, jnp.ones(3)).as_text()).host_transfers == 1
    assert hlo.summarize(compiled(jnp.sin, jnp.ones(3)).as_text()).host_transfers == 0
