"""scikit-learn's handwritten digits: 1,797 real 8x8 images that need no download."""

import numpy as np

from jaxrw.data import splits
from jaxrw.data.dataset import Part, Source, Split

# scikit-learn has no test split; 4/5 for training is usual.
TRAIN_FRACTION = 0.8


def source() -> Source:
    """Returns the digits 0..9 as gray images [8, 8, 1]: always the same 1,437 for training and 360 for testing."""
    # Imported here because it takes two seconds, and no other source needs it.
    from sklearn.datasets import load_digits

    raw = load_digits()
    # Pixels are counts in 0..16 of inked pixels in 4x4 blocks of a scan.
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = raw.target.astype(np.int32)
    train, test = np.split(splits.order(len(labels)), [int(TRAIN_FRACTION * len(labels))])
    names = tuple(str(name) for name in raw.target_names)
    return Source(names, _part(images[train], labels[train]), _part(images[test], labels[test]))


def _part(images: np.ndarray, labels: np.ndarray) -> Part:
    return Part(len(labels), lambda chosen: Split(images[chosen], labels[chosen]))
