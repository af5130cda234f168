"""Fast convolutions on the CPU for models written with plain ones: Flax, Haiku, Equinox, `jax.lax`.

XLA on the CPU differentiates a plain convolution by its input 2 to 10 times slower inside a loop than outside, and
every attack is such a loop; `jaxrw.networks.convolution` avoids that. `FastConvolutions` traces a model and evaluates
its program with those convolutions in place of the plain ones, so that nobody has to rewrite a model. Values are the
same up to rounding. On GPU and TPU it changes nothing.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from jaxrw.networks.convolution import convolution

# Primitives whose inner program may be evaluated in their place.
_INLINED = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")


@dataclasses.dataclass(frozen=True)
class FastConvolutions:
    """A function of arrays with fast convolutions on the CPU; equal for equal functions, so compiled only once."""

    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the function returns, up to rounding."""
        if jax.default_backend() != "cpu":
            return self.function(*args, **kwargs)
        leaves, structure = jax.tree.flatten((args, kwargs))
        # What is not an array, such as `train=False`, stays a constant.
        traced = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]

        def of_arrays(*arrays: jax.Array) -> Any:
            replaced = dict(zip(traced, arrays, strict=True))
            args, kwargs = jax.tree.unflatten(structure, [replaced.get(i, v) for i, v in enumerate(leaves)])
            return self.function(*args, **kwargs)

        arrays = [leaves[i] for i in traced]
        program, shape = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
        if _has_plain_convolution(program.jaxpr):
            outputs = _evaluate(program.jaxpr, program.consts, arrays)
        else:
            outputs = jaxpr_as_fun(program)(*arrays)  # Not the function again: a model is traced once.
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)


def _evaluate(jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Evaluates a program, equation by equation, with fast convolutions."""
    values: dict[Var, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    values.update(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if _is_plain_convolution(equation):
            outputs = [_fast(*inputs, **equation.params)]
        elif _is_inlined(equation):
            inner = equation.params["jaxpr"]
            closed = isinstance(inner, ClosedJaxpr)
            outputs = _evaluate(inner.jaxpr if closed else inner, inner.consts if closed else (), inputs)
        else:
            outputs = _evaluate_one(jaxpr, equation, values)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _evaluate_one(jaxpr: Jaxpr, equation: JaxprEqn, values: dict[Var, Any]) -> list[Any]:
    """Evaluates one equation as JAX does, custom derivatives included."""
    variables = list(dict.fromkeys(atom for atom in equation.invars if isinstance(atom, Var)))
    program = jaxpr.replace(
        constvars=[],
        invars=variables,
        outvars=list(equation.outvars),
        eqns=[equation],
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    return jaxpr_as_fun(ClosedJaxpr(program, ()))(*[values[variable] for variable in variables])


def _is_inlined(equation: JaxprEqn) -> bool:
    return equation.primitive.name in _INLINED and any(map(_has_plain_convolution, _inner(equation)))


def _inner(equation: JaxprEqn) -> Iterator[Jaxpr]:
    inner = equation.params["jaxpr"]
    yield inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner


def _has_plain_convolution(jaxpr: Jaxpr) -> bool:
    """Returns whether a program has a plain convolution outside of loops, branches and custom derivatives."""
    return any(_is_plain_convolution(equation) or _is_inlined(equation) for equation in jaxpr.eqns)


def _is_plain_convolution(equation: JaxprEqn) -> bool:
    """Returns whether `convolution` computes this equation: two dimensions, no dilation, no groups, little padding."""
    if equation.primitive.name != "conv_general_dilated":
        return False
    arrays: list[Any] = [atom.aval for atom in (*equation.invars, *equation.outvars)]
    images, kernel, output = arrays
    params = equation.params
    sizes = [kernel.shape[axis] for axis in params["dimension_numbers"].rhs_spec[2:]]
    return (
        images.ndim == 4
        and images.dtype == kernel.dtype == output.dtype
        and jnp.issubdtype(images.dtype, jnp.floating)
        and params["feature_group_count"] == params["batch_group_count"] == 1
        and {*params["lhs_dilation"], *params["rhs_dilation"]} == {1}
        and all(min(pad) >= 0 and max(pad) < size for pad, size in zip(params["padding"], sizes, strict=True))
    )


def _fast(
    images: jax.Array,
    kernel: jax.Array,
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dimension_numbers: jax.lax.ConvDimensionNumbers,
    **_: Any,
) -> jax.Array:
    """Computes a convolution of any layout in NHWC."""
    images = jnp.transpose(images, _channels_last(dimension_numbers.lhs_spec))
    output, inputs, *size = dimension_numbers.rhs_spec
    kernel = jnp.transpose(kernel, (*size, inputs, output))
    convolved = convolution(images, kernel, tuple(window_strides), tuple(map(tuple, padding)))
    order = _channels_last(dimension_numbers.out_spec)
    return jnp.transpose(convolved, [order.index(axis) for axis in range(4)])


def _channels_last(spec: Sequence[int]) -> tuple[int, ...]:
    batch, channels, *size = spec
    return (batch, *size, channels)
