"""Program of `make wheel`: AutoAttack on a Flax NNX model with the core of jaxrw alone, away from its repository."""

import importlib.util

import jax
import numpy as np
from flax import nnx

import jaxrw
from jaxrw import attacks


class Network(nnx.Module):
    """Two dense layers."""

    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(64, 32, rngs=rngs), nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, images):
        return self.second(nnx.relu(self.first(images.reshape(len(images), -1))))


if __name__ == "__main__":
    assert importlib.util.find_spec("tensorflow_datasets") is None, "an extra is installed"
    images = np.random.RandomState(0).uniform(size=(40, 8, 8, 1)).astype(np.float32)
    model = Network(nnx.Rngs(0))
    labels = np.asarray(model(images)).argmax(1)
    result = attacks.autoattack(jax.random.key(0), model, images, labels, eps=0.01, batch_size=40)
    assert 0 < result.robust.mean() < 1
    print(f"{jaxrw.__file__}: AutoAttack accuracy {100 * result.robust.mean():.2f} %")
