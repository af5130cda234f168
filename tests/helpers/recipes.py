"""Whole recipes, small: as configs, as experiments, and as what torch_recipe.py repeats in PyTorch."""

import dataclasses
import pathlib

import numpy as np

from helpers import tiny
from helpers.several_devices import OneConvolution
from jaxrw.training.experiment import create_experiment

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "recipes.npz"
STEPS, BATCH = 5, 32
SIZE = STEPS * BATCH
RECIPES = {
    "trades": {
        "objective": "trades",
        "lam": 5.0,
        "smoothing": 0.1,
        "clean_statistics": True,
        "beta": 0.0,
        "gamma": 2.0,
        "awp": 0.01,
        "nesterov": True,
        "decay_all": False,
    },
    "mart": {
        "objective": "mart",
        "lam": 5.0,
        "smoothing": 0.0,
        "clean_statistics": False,
        "beta": 0.5,
        "gamma": 3.0,
        "awp": None,
        "nesterov": False,
        "decay_all": True,
    },
}
ALL = {
    "learning_rate": 0.02,
    "weight_decay": 0.5,  # so large that decay at perturbed weights is told from decay at the unperturbed ones
    "decay": 0.4,
    "num_steps": 3,
    "eps": 0.1,
    "step_size": 0.04,
}


def config_of(recipe):
    """The same recipe as fields of a config."""
    return tiny.config(
        "mail",
        dataset__train_size=SIZE,
        dataset__pad=0,
        dataset__flip=False,
        method__warmup_epochs=0,
        method__beta=recipe["beta"],
        method__gamma=recipe["gamma"],
        objective__name=recipe["objective"],
        objective__lam=recipe["lam"],
        objective__smoothing=recipe["smoothing"],
        objective__clean_statistics=recipe["clean_statistics"],
        awp__gamma=recipe["awp"],
        average__name="ema",
        average__decay=ALL["decay"],
        attack__eps=ALL["eps"],
        attack__step_size=ALL["step_size"],
        attack__num_steps=ALL["num_steps"],
        optim__batch_size=BATCH,
        optim__learning_rate=ALL["learning_rate"],
        optim__weight_decay=ALL["weight_decay"],
        optim__nesterov=recipe["nesterov"],
        optim__decay_all=recipe["decay_all"],
    )


def create(name):
    config = config_of(RECIPES[name])
    return config, dataclasses.replace(create_experiment(config), model=OneConvolution(features=2))


def flat(variables):
    """Parameters and statistics of `OneConvolution` under short names, as NumPy arrays."""
    params, statistics = variables["params"], variables["batch_stats"]["BatchNorm_0"]
    arrays = {
        "kernel": params["Conv_0"]["kernel"],
        "scale": params["BatchNorm_0"]["scale"],
        "offset": params["BatchNorm_0"]["bias"],
        "dense": params["Dense_0"]["kernel"],
        "bias": params["Dense_0"]["bias"],
        "mean": statistics["mean"],
        "var": statistics["var"],
    }
    return {name: np.asarray(value) for name, value in arrays.items()}
