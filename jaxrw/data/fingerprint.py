"""What identifies the images and labels of a run, wherever they lie."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxrw.data.dataset import Split

# {"classes": names, "shape": [H, W, C], "images": {split: number}, "sha256": hexadecimal digest}, as JSON has it.
Fingerprint = dict[str, Any]


def compute_fingerprint(class_names: Sequence[str], splits: "Mapping[str, Split]") -> Fingerprint:
    """Computes the fingerprint of images as a run sees them: chosen, decoded and downscaled.

    Args:
      class_names: one name per class.
      splits: images of one shape and their labels, by the name of the split. Their order counts: it decides which
        image a run trains on when.

    Returns:
      Class names, shape, number of images of each split, and the SHA-256 of the names and of all images and
      labels, split by split.
    """
    digest = hashlib.sha256(json.dumps(list(class_names)).encode())
    for split in splits.values():
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels, "<i4").data)
    shape = next(iter(splits.values())).images.shape[1:]
    return {
        "classes": list(class_names),
        "shape": list(shape),
        "images": {name: len(split.labels) for name, split in splits.items()},
        "sha256": digest.hexdigest(),
    }


def describe_fingerprint(fingerprint: Fingerprint) -> str:
    """Returns a fingerprint in words, with enough of its digest to tell it from others."""
    images, shape = fingerprint["images"], "x".join(map(str, fingerprint["shape"]))
    return (
        f"{len(fingerprint['classes'])} classes, {images['train']:,} training, {images['validation']:,} validation "
        f"and {images['test']:,} test images of {shape}, SHA-256 {fingerprint['sha256'][:12]}"
    )
