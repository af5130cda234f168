"""Small sets of random images, prepared by tensorflow-datasets for tests."""

import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

SIDE = 9


def picture(split, i, channels=3, side=SIDE):
    """Random pixels, different for every example."""
    shape = (side, side, 3) if channels == 3 else (side, side)
    return np.random.RandomState(1000 * len(split) + i).randint(0, 256, shape, np.uint8)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return io.BytesIO(file.getvalue())


def example(split, i):
    return {"id": f"{split}_{i:03d}", "image": png(picture(split, i)), "label": i % 3}


def features(**changed):
    usual = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
    }
    return {key: feature for key, feature in (usual | changed).items() if feature is not None}


class TinySet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set whose name, version, features and examples are arguments."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, root, *, name, version, features, supervised, counts, example):
        self.name, self.VERSION = name, tfds.core.Version(version)
        self.given = features, supervised, counts, example
        super().__init__(data_dir=root)

    def _info(self):
        features, supervised, _, _ = self.given
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=supervised
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, count) for split, count in self.given[2].items()}

    def _generate_examples(self, split, count):
        for i in range(count):
            yield i, self.given[3](split, i)


def prepare(
    root,
    *,
    name="tiny",
    version="1.0.0",
    features=features(),  # noqa: B008 - never changed
    supervised=None,
    counts=(("train", 20), ("test", 5)),
    example=example,
):
    builder = TinySet(
        str(root),
        name=name,
        version=version,
        features=features,
        supervised=supervised,
        counts=dict(counts),
        example=example,
    )
    builder.download_and_prepare(file_format="array_record")
    return pathlib.Path(builder.data_dir)
