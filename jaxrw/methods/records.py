"""The reweighting methods, one record each.

To add a method, write the function of its weight and add a record to `METHODS`, here or with `add` in a config file. A
constant that it reads is a keyword-only argument of that function and a field of `config.method`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxrw.methods import margins, weightings
from jaxrw.methods.objectives import Objective
from jaxrw.methods.weightings import Weighting

# Arguments of a weight function that are not fields of `config.method`.
_FROM_THE_ATTACK = ("num_steps",)


@dataclasses.dataclass(frozen=True)
class Method:
    """A reweighting method.

    Attributes:
      name: as in configs and in results.json.
      title: as in tables and figures.
      formula: of the weight, as in the README's table.
      weight: `(logits, label, kappa, *, constants)` -> [] float32 weight of one example; None: only a config file that
        is not here knows it, so the method can be named but not trained.
      normalized: whether weights are divided by their mean over the global batch.
      base: name of the method whose margin this one reweights; None for the others.
      beyond_paper: whether figures of all methods leave it out.
      constants: fields of `config.method` that the weight depends on, in the order tables show them. Read off `weight`
        if there is one.
    """

    name: str
    title: str
    formula: str
    weight: Callable[..., jax.Array] | None
    normalized: bool = False
    base: str | None = None
    beyond_paper: bool = False
    constants: tuple[str, ...] = dataclasses.field(init=False, default=())

    def __post_init__(self) -> None:
        if self.weight is not None:
            parameters = inspect.signature(self.weight).parameters.values()
            names = [
                p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _FROM_THE_ATTACK
            ]
            object.__setattr__(self, "constants", tuple(names))

    @property
    def reweighted(self) -> bool:
        """Whether any weight differs from 1; False for standard adversarial training, which has no warm-up."""
        return self.weight is not _standard

    @property
    def source(self) -> str | None:
        """Code of the weight, as it was loaded, if a config file has added the method; None for shipped ones."""
        return _ADDED.get(self.name)

    @property
    def counts_steps(self) -> bool:
        """Whether the weight depends on the number of attack steps, which then has to be at least 1."""
        return "num_steps" in inspect.signature(self._known_weight).parameters

    def weighting(self, constants: Mapping[str, Any], *, num_steps: int) -> Weighting:
        """Returns the weight as a function of (logits, label, kappa) alone.

        Args:
          constants: values by name; those that the method does not read are ignored.
          num_steps: steps of the training attack.
        """
        values = {**constants, "num_steps": num_steps}
        names = inspect.signature(self._known_weight).parameters
        return functools.partial(
            self._known_weight, **{name: values[name] for name in names if name in values}
        )

    @property
    def _known_weight(self) -> Callable[..., jax.Array]:
        if self.weight is None:
            raise ValueError(
                f"the weight of {self.name} is known to its config file alone; train with that file"
            )
        return self.weight


def _standard(logits: jax.Array, label: jax.Array, kappa: jax.Array) -> jax.Array:
    return jnp.ones(())


def _gairat(
    logits: jax.Array, label: jax.Array, kappa: jax.Array, *, lam: float, num_steps: int
) -> jax.Array:
    return weightings.gairat(kappa, num_steps=num_steps, lam=lam)


def _ewat(logits: jax.Array, label: jax.Array, kappa: jax.Array) -> jax.Array:
    return weightings.ewat(logits)


def _wmmr(
    logits: jax.Array, label: jax.Array, kappa: jax.Array, *, alpha: float, multiplier: float
) -> jax.Array:
    return multiplier * weightings.wmmr(margins.probability_margin(logits, label), alpha=alpha)


def _mail(
    logits: jax.Array, label: jax.Array, kappa: jax.Array, *, beta: float, gamma: float, multiplier: float
) -> jax.Array:
    margin = margins.probability_margin(logits, label)
    return multiplier * weightings.mail(margin, beta=beta, gamma=gamma)


def _ours_wmmr(
    logits: jax.Array,
    label: jax.Array,
    kappa: jax.Array,
    *,
    tau: float,
    similarity: bool,
    multiplier: float,
) -> jax.Array:
    margin = margins.reweighted_margin(logits, label, tau=tau, similarity=similarity)
    return multiplier * weightings.wmmr(margin, alpha=1.0)  # Eq. 15 has no alpha.


def _ours_mail(
    logits: jax.Array,
    label: jax.Array,
    kappa: jax.Array,
    *,
    tau: float,
    similarity: bool,
    beta: float,
    gamma: float,
    multiplier: float,
) -> jax.Array:
    margin = margins.reweighted_margin(logits, label, tau=tau, similarity=similarity)
    return multiplier * weightings.mail(margin, beta=beta, gamma=gamma)


def _constant(logits: jax.Array, label: jax.Array, kappa: jax.Array, *, constant: float) -> jax.Array:
    return jnp.float32(constant)


def _mail_logits(
    logits: jax.Array, label: jax.Array, kappa: jax.Array, *, beta: float, gamma: float, multiplier: float
) -> jax.Array:
    return multiplier * weightings.mail(margins.logit_margin(logits, label), beta=beta, gamma=gamma)


def _far(
    logits: jax.Array, label: jax.Array, kappa: jax.Array, *, constant: float, gamma: float
) -> jax.Array:
    return 2 * constant * weightings.far(margins.logit_margin(logits, label), gamma=gamma)


def _done(logits: jax.Array, label: jax.Array, kappa: jax.Array, *, temperature: float) -> jax.Array:
    return weightings.done(logits, label, temperature=temperature)


METHODS = {
    method.name: method
    for method in (
        Method("standard", "Standard", "1", _standard),
        Method(
            "gairat",
            "GAIRAT",
            "(1 + tanh(Lambda + 5 (1 - 2 kappa / N))) / 2",
            _gairat,
            normalized=True,
        ),
        Method("ewat", "EWAT", "entropy in nats", _ewat, normalized=True),
        Method("wmmr", "WMMR", "M exp(-alpha m)", _wmmr),
        Method("mail", "MAIL", "M sigmoid(-gamma (m + beta))", _mail),
        Method("ours_wmmr", "Ours+WMMR", "M exp(-m~)", _ours_wmmr, base="wmmr"),
        Method("ours_mail", "Ours+MAIL", "M sigmoid(-gamma (m~ + beta))", _ours_mail, base="mail"),
        Method("constant", "Constant", "c", _constant, beyond_paper=True),
        Method(
            "mail_logits",
            "MAIL on logits",
            "M sigmoid(-gamma (z_y - z_2 + beta))",
            _mail_logits,
            beyond_paper=True,
        ),
        Method("far", "Far", "2 c sigmoid(gamma (z_y - z_2))", _far, beyond_paper=True),
        Method("done", "DONE", "exp(cross-entropy / r)", _done, normalized=True, beyond_paper=True),
    )
}

# Code of the methods that config files have added by name; a file may be changed while its method is trained.
_ADDED: dict[str, str] = {}


def add(method: Method) -> None:
    """Adds a method of one's own to `METHODS`; a config file calls it before its `get_config`.

    Raises:
      ValueError: its name is that of a shipped method, or its weight is no function of a file, whose code can be kept.
    """
    if method.name in METHODS.keys() - _ADDED.keys():
        raise ValueError(f"the method {method.name!r} is a shipped one; choose another name")
    try:
        source = inspect.getsource(method._known_weight)
    except (TypeError, OSError) as error:
        raise ValueError(
            f"the weight of the method {method.name!r} has no code to keep; define it with def in the config file"
        ) from error
    METHODS[method.name], _ADDED[method.name] = method, source


def title(method: Method, objective: Objective, *, perturbs_weights: bool = False) -> str:
    """Returns the name of a weighting of an objective as in tables, such as "MAIL-TRADES" or "TRADES-AWP".

    Args:
      method: the weighting.
      objective: what it weighs.
      perturbs_weights: whether the step is taken at perturbed weights, AWP.
    """
    words = [method.title] if method.reweighted or objective.name == "standard" else []
    words += [objective.title] if objective.name != "standard" else []
    return "-".join([*words, "AWP"] if perturbs_weights else words)


def get(name: str) -> Method:
    """Returns the method of that name.

    Raises:
      ValueError: there is none.
    """
    if name not in METHODS:
        raise ValueError(f"method is {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
