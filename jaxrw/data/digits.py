"""scikit-learn's handwritten digits: 1,797 real 8x8 images that need no download."""

import numpy as np

from jaxrw.data import splits
from jaxrw.data.dataset import Part, Source, Split

# scikit-learn makes no cut of its own; four fifths to train on is the usual one.
TRAIN_FRACTION = 0.8


def source() -> Source:
    """The digits 0..9, grey, [8, 8, 1]: 1,437 to train on and 360 to test on, always the same ones."""
    # Imported here because it takes two seconds, and no other source needs it.
    from sklearn.datasets import load_digits

    raw = load_digits()
    # Counts 0..16 of inked pixels in 4x4 blocks of the scan, brought to the range of every other source.
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = raw.target.astype(np.int32)
    train, test = np.split(splits.order(len(labels)), [int(TRAIN_FRACTION * len(labels))])
    names = tuple(str(name) for name in raw.target_names)
    return Source(names, _part(images[train], labels[train]), _part(images[test], labels[test]))


def _part(images: np.ndarray, labels: np.ndarray) -> Part:
    """A part that is in memory already."""
    return Part(len(labels), lambda chosen: Split(images[chosen], labels[chosen]))
