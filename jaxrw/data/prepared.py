"""Reads image-classification sets that tensorflow-datasets has prepared on disk, without TensorFlow."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format

from jaxrw.data import images
from jaxrw.data.dataset import Part, Source, Split
from jaxrw.system.errors import UserError, one_line

_FORMAT = "array_record"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
# Records parsed at a time; reading in batches is five times as fast as one by one.
_BATCH = 1024
# What array_record (RuntimeError), protobuf (json_format.Error) and tfds raise for damaged files.
_DAMAGE = (RuntimeError, json_format.Error, ValueError, TypeError, OSError)


class _Records(Protocol):
    """A data source of tfds whose images are not decoded."""

    def __len__(self) -> int: ...

    def __getitems__(self, positions: list[int]) -> list[dict[str, Any]]: ...


def default_directory() -> str:
    """Returns the default directory of tensorflow-datasets."""
    return os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"


def find_all(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the directory of the highest version of every set below `root`, by "name" or "name/config", sorted."""
    copies: dict[str, list[pathlib.Path]] = {}
    for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json"):
        for info in root.glob(pattern):
            # A killed preparation leaves a directory "incomplete.XXXXXX_1.0.0".
            if _VERSION.fullmatch(info.parent.name):
                copies.setdefault(info.parent.parent.relative_to(root).as_posix(), []).append(info.parent)
    return {name: max(paths, key=_version) for name, paths in sorted(copies.items())}


def find(name: str, root: pathlib.Path) -> pathlib.Path | None:
    """Returns the directory of the set's highest version, or None if there is none.

    The config may be left out of the name of a set that has only one.

    Raises:
      UserError: the set has several configs and the name has none.
    """
    copies = find_all(root)
    if name in copies:
        return copies[name]
    configs = [key for key in copies if key.startswith(f"{name}/")]
    if len(configs) > 1:
        raise UserError(
            f"dataset.name={name!r}: has several configs in {root}, choose one of {', '.join(configs)}"
        )
    return copies[configs[0]] if configs else None


def source(name: str, path: pathlib.Path) -> Source:
    """Returns the set prepared in `path`: its splits train and test, or train and validation if it has no test split.

    Images are in the order of their `id`, or of the files if there is no `id`. That order is fixed, too, because
    tensorflow-datasets shuffles by a hash. Image and label are the set's supervised keys, or else its only Image and
    its only ClassLabel feature.

    Raises:
      UserError: the copy is damaged, needs TensorFlow, or is not image classification in 8 bits.
    """
    field = f"dataset.name={name!r}"
    with _reporting_damage(field, path):
        builder = tfds.builder_from_directory(str(path))
        features = dict(builder.info.features.items())
        supervised_keys = builder.info.supervised_keys
        formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if _FORMAT not in formats:
        raise UserError(
            f"{field}: the copy in {path} is stored as {'/'.join(formats)}, which cannot be read without "
            f'TensorFlow; prepare it again in another dataset.data_dir with file_format="{_FORMAT}"'
        )
    image_key, label_key = _image_and_label(features, supervised_keys, field=field)
    id_key = "id" if "id" in features and features["id"].shape == () else None
    # tfds decodes no image, because its pixels of a JPEG depend on whether OpenCV is installed.
    decoders = {
        key: tfds.decode.SkipDecoding()
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }

    def part(split: str) -> Part:
        with _reporting_damage(field, path):
            records = builder.as_data_source(split, decoders=decoders, file_format=_FORMAT)
            size = len(records)

        def read(chosen: np.ndarray) -> Split:
            labels = np.empty(len(chosen), np.int32)

            def encoded() -> Iterator[tuple[str, bytes]]:
                positions = _order(records, id_key)[chosen]
                for i, record in enumerate(_in_batches(records, positions)):
                    labels[i] = record[label_key]
                    shown = positions[i] if id_key is None else _text(record[id_key])
                    yield f"{split} image {shown}", record[image_key]

            channels = features[image_key].shape[-1]
            with _reporting_damage(field, path):
                pixels = images.decode_all(encoded(), count=len(chosen), channels=channels, field=field)
            return Split(pixels, labels)

        return Part(size, read)

    test = _test_split(builder.info.splits, field=field)
    return Source(tuple(features[label_key].names), part("train"), part(test))


def _version(path: pathlib.Path) -> tuple[int, ...]:
    return tuple(int(number) for number in path.name.split("."))


@contextlib.contextmanager
def _reporting_damage(field: str, path: pathlib.Path) -> Iterator[None]:
    """Converts what the libraries raise for a damaged copy to a UserError."""
    try:
        yield
    except _DAMAGE as error:
        raise UserError(
            f"{field}: the copy in {path} cannot be read ({one_line(error)}); "
            "if it is damaged, delete that directory and prepare it again"
        ) from error


def _image_and_label(features: Mapping[str, Any], supervised_keys: Any, *, field: str) -> tuple[str, str]:
    """Returns the names of the image and of its class; raises UserError if they are unclear or unsuitable."""
    image_keys = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    label_keys = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    match supervised_keys:
        case (image, label) if image in image_keys and label in label_keys:
            pass
        case _ if len(image_keys) == len(label_keys) == 1:
            image, label = image_keys[0], label_keys[0]
        case _:
            raise UserError(
                f"{field}: not image classification, it needs one Image and one ClassLabel feature "
                f"but has the features {', '.join(sorted(features))}"
            )
    dtype, channels = features[image].np_dtype, features[image].shape[-1]
    if dtype != np.uint8 or channels not in (1, 3):
        raise UserError(
            f"{field}: its images are {np.dtype(dtype).name} with {channels} channels; "
            "uint8 (values in 0..255) with 1 (gray) or 3 (RGB) channels is needed"
        )
    return image, label


def _test_split(splits: Mapping[str, Any], *, field: str) -> str:
    test = "test" if "test" in splits else "validation"
    if "train" not in splits or test not in splits:
        raise UserError(
            f"{field}: needs the splits train and test (or validation), "
            f"but has {', '.join(sorted(splits)) or 'none'}"
        )
    return test


def _order(records: _Records, id_key: str | None) -> np.ndarray:
    """Returns the positions of the records in the order of their ids, int64 [N]."""
    positions = np.arange(len(records))
    if id_key is None:
        return positions
    ids = [record[id_key] for record in _in_batches(records, positions)]
    return np.array(sorted(range(len(ids)), key=ids.__getitem__))


def _in_batches(records: _Records, positions: np.ndarray) -> Iterator[dict[str, Any]]:
    for start in range(0, len(positions), _BATCH):
        yield from records.__getitems__(positions[start : start + _BATCH].tolist())


def _text(identity: bytes | int) -> str:
    return identity.decode(errors="replace") if isinstance(identity, bytes) else str(identity)
