"""What the benchmarks count in compiled programs: against closed forms and the loops of a definition."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from jax import lax

from benchmarks import problem
from benchmarks.compiled import CHIPS, count, forward_flops
from benchmarks.hlo import Program
from jaxrw import networks, train
from jaxrw.networks import convolution
from jaxrw.networks.convolution import for_flax
from jaxrw.training import accuracy, step
from jaxrw.training.experiment import create_experiment

# As libtpu writes it, shortened: a loop that runs ten times, a copy from and one to the chip's own memory.
TPU_PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p0: f32[4,8,8,3], p1: f32[3,3,3,5]) -> f32[4,8,8,5] {
  %p0 = f32[4,8,8,3]{0,3,2,1:T(4,128)} parameter(0)
  %p1 = f32[3,3,3,5]{3,2,1,0:T(8,128)S(1)} parameter(1)
  ROOT %convolution.1 = f32[4,8,8,5]{0,3,2,1:T(8,128)S(1)} convolution(%p0, %p1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
}

%body (carry: (s32[], f32[4,8,8,3], f32[3,3,3,5])) -> (s32[], f32[4,8,8,3], f32[3,3,3,5]) {
  %carry = (s32[]{:T(128)}, f32[4,8,8,3]{0,3,2,1:T(4,128)}, /*index=2*/f32[3,3,3,5]{3,2,1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%carry), index=0
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)S(6)} add(%i, %one)
  %x = f32[4,8,8,3]{0,3,2,1:T(4,128)} get-tuple-element(%carry), index=1
  %k = f32[3,3,3,5]{3,2,1,0:T(8,128)S(1)} get-tuple-element(%carry), index=2
  %y = f32[4,8,8,5]{0,3,2,1:T(8,128)S(1)} fusion(%x, %k), kind=kOutput, calls=%fused, backend_config={"window_config":{"estimated_cycles":"700"}}
  ROOT %out = (s32[]{:T(128)}, f32[4,8,8,3]{0,3,2,1:T(4,128)}, f32[3,3,3,5]{3,2,1,0:T(8,128)S(1)}) tuple(%next, %x, %k)
}

%condition (carry.1: (s32[], f32[4,8,8,3], f32[3,3,3,5])) -> pred[] {
  %ten = s32[]{:T(128)} constant(10)
  %carry.1 = (s32[]{:T(128)}, f32[4,8,8,3]{0,3,2,1:T(4,128)}, f32[3,3,3,5]{3,2,1,0:T(8,128)S(1)}) parameter(0)
  %i.1 = s32[]{:T(128)S(6)} get-tuple-element(%carry.1), index=0
  ROOT %less = pred[]{:T(512)S(6)} compare(%i.1, %ten), direction=LT
}

ENTRY %main (x.1: f32[4,8,8,3], k.1: f32[3,3,3,5]) -> f32[64] {
  %x.1 = f32[4,8,8,3]{0,3,2,1:T(4,128)} parameter(0)
  %k.1 = f32[3,3,3,5]{3,2,1,0:T(8,128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %copy-start = (f32[3,3,3,5]{3,2,1,0:T(8,128)S(1)}, f32[3,3,3,5]{3,2,1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%k.1)
  %copy-done = f32[3,3,3,5]{3,2,1,0:T(8,128)S(1)} copy-done(%copy-start)
  %tuple = (s32[]{:T(128)}, f32[4,8,8,3]{0,3,2,1:T(4,128)}, f32[3,3,3,5]{3,2,1,0:T(8,128)S(1)}) tuple(%zero, %x.1, %copy-done)
  %while = (s32[]{:T(128)}, f32[4,8,8,3]{0,3,2,1:T(4,128)}, f32[3,3,3,5]{3,2,1,0:T(8,128)S(1)}) while(%tuple), condition=%condition, body=%body
  %sum = f32[64]{0:T(128)S(1)} custom-call(%k.1), custom_call_target="AllocateBuffer"
  ROOT %all-reduce = f32[64]{0:T(128)} all-reduce(%sum), replica_groups={{0,1}}, to_apply=%add
}
"""  # noqa: E501


def test_a_program_of_the_tpu_compiler():
    """Sizes by hand: [4, 8, 8, 3] with 4 innermost lies in tiles of 4 x 128: 8 * 8 * 4 * 128 numbers, not 768."""
    program = Program(TPU_PROGRAM)
    images, kernel = 8 * 8 * 4 * 128 * 4, 3 * 3 * 8 * 128 * 4
    # The images are read ten times, the kernel once: after that it lies in the chip's own memory. The sum is written.
    assert program.total("bytes") == 10 * images + kernel + 512 + 124  # the loop's counter
    assert program.total("flops") == 10 * 2 * 4 * 8 * 8 * 9 * 3 * 5
    assert program.total("cycles") == 7000
    assert program.total("collective_bytes") == 64 * 4
    found = count(program, CHIPS["v5e"])
    assert (found["collectives"], found["float64"]) == (1, False)
    assert found["roofline"] == found["bytes"] / CHIPS["v5e"].bandwidth  # hardly any work


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="cannot tell how often while runs"):
        Program(TPU_PROGRAM.replace("direction=LT", "direction=NE")).total("flops")


def taps(size, kernel, stride, pad):
    """Taps of one axis, those on padding included, by the definition: outputs times taps."""
    return ((size + 2 * pad - kernel) // stride + 1) * kernel


@pytest.mark.parametrize(("size", "kernel", "stride"), list(itertools.product((8, 16), (1, 3), (1, 2))))
def test_a_convolution_and_both_gradients_cost_the_same(size, kernel, stride):
    """Dilated zeros are no work, padding is: at even sizes the count of the definition for each of the three."""
    images, weights = jnp.zeros((2, size, size, 5)), jnp.zeros((kernel, kernel, 5, 7))
    pad = kernel // 2

    def convolve(images, weights):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            images, weights, (stride, stride), [(pad, pad)] * 2, dimension_numbers=layout
        )

    out = jnp.zeros(jax.eval_shape(convolve, images, weights).shape)
    expected = 2 * 2 * 5 * 7 * taps(size, kernel, stride, pad) ** 2
    programs = (
        jax.jit(convolve).lower(images, weights),
        jax.jit(lambda g, w: jax.linear_transpose(lambda x: convolve(x, w), images)(g)[0]).lower(
            out, weights
        ),
        jax.jit(lambda g, x: jax.linear_transpose(lambda w: convolve(x, w), weights)(g)[0]).lower(
            out, images
        ),
    )
    for program in programs:
        assert Program(program.compile().as_text()).total("flops") == expected


class TwoConvolutions(nn.Module):
    """Enough of a network: its second convolution needs all three passes, its first no gradient by the images."""

    @nn.compact
    def __call__(self, images, train):
        convolution = {"padding": 1, "use_bias": False, "conv_general_dilated": for_flax}
        x = nn.relu(nn.Conv(8, (3, 3), name="first", **convolution)(images))
        x = nn.BatchNorm(use_running_average=not train, axis_name=step.AXIS)(
            nn.Conv(16, (3, 3), **convolution)(x)
        )
        return nn.Dense(10, name="dense")(nn.relu(x).mean((1, 2)))


STEPS = {
    "standard": ({}, 23, 1),
    "trades": ({"objective__name": "trades"}, 27, 2),
    "mart": ({"objective__name": "mart"}, 26, 2),
    "awp": ({"awp__gamma": 0.01}, 26, 2),
    "trades-awp": ({"objective__name": "trades", "awp__gamma": 0.01}, 33, 4),
    "ema": ({"average__name": "ema"}, 23, 1),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_step_of_pgd_10_costs_what_theory_says(name, monkeypatch):
    """Of the product's own step, compiled: without the gradients by the images of the parameters' losses."""
    fields, passes, not_needed = STEPS[name]
    config = tiny.config(attack__num_steps=10, **fields)
    assert problem.forward_passes(config) == passes
    # On a CPU few channels are computed together, with products by zero that theory does not know.
    monkeypatch.setattr(convolution, "_pixels_per_window", lambda *arguments: 1)
    monkeypatch.setattr(
        "jaxrw.training.experiment._create_model", lambda config, num_classes: TwoConvolutions()
    )
    experiment = create_experiment(config)
    state, batch = experiment.create_state(), config.optim.batch_size
    images, labels = accuracy.replicated(experiment.dataset.train)
    index = step.shard(np.arange(batch, dtype=np.int32))
    lowered = train.create_step(config, experiment).lower(state, experiment.step_key, images, labels, index)
    program = Program(lowered.compile().as_text())
    first, second, dense = 8 * 8 * 9 * 1 * 8, 8 * 8 * 9 * 8 * 16, 16 * 10
    crop = 2 * 8 * 8 * 8  # rows and columns are taken by products with ones and zeros
    forward = first + second + dense
    # The prediction that TRADES' attack leaves shares with the loss what comes before the only BatchNorm.
    shared = first + second if "trades" in name else 0
    assert program.total("flops") == 2 * batch * (passes * forward - not_needed * first - shared + crop)


@pytest.mark.parametrize(("name", "gmac"), [("resnet18_c10", 0.5554), ("wrn_c10", 6.66)])
def test_forward_passes_are_those_of_the_literature(name, gmac):
    model = networks.create(problem.load(name, {}).model.name, 10)
    assert forward_flops(model) / 2e9 == pytest.approx(gmac, rel=1e-3)


def test_no_step_is_compiled_after_the_first():
    """Not at the ends of the epochs and of the warm-up either: five steps in epochs of two, one of them warm-up."""
    batch_size = 8 * jax.local_device_count()
    fields = {"optim.batch_size": batch_size, "attack.num_steps": 2, "method.warmup_epochs": 1}
    network = {"model.name": "wrn", "model.depth": 10, "model.width": 1}
    config = problem.load("wrn_c100", fields | network)
    take_step = problem.training_step(config, problem.create_experiment(config, size=2 * batch_size))
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    take_step()
    first = len(compiled)
    for _ in range(4):
        take_step()
    jax.monitoring.clear_event_listeners()
    assert 0 < first == len(compiled)
