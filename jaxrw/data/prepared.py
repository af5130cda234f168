"""Image-classification sets that tensorflow-datasets has prepared on disk, read without TensorFlow."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format

from jaxrw.data import images
from jaxrw.data.dataset import Part, Source, Split, reason
from jaxrw.system.errors import UserError

_FORMAT = "array_record"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
# Records parsed at a time: enough to read in batches, few enough to hold in memory.
_CHUNK = 1024
# What array_record (RuntimeError), protobuf (json_format.Error) and tfds raise for damaged files.
_DAMAGE = (RuntimeError, json_format.Error, ValueError, TypeError, OSError)


@dataclasses.dataclass(frozen=True)
class _Keys:
    """The names of a record's features; `id` is None where records have none."""

    image: str
    label: str
    id: str | None


def default_directory() -> str:
    """Where tensorflow-datasets keeps prepared sets unless told otherwise."""
    return os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"


def find_all(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The highest version of every set below `root`, by "name" or "name/config", sorted."""
    copies: dict[str, list[pathlib.Path]] = {}
    for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json"):
        for info in root.glob(pattern):
            # A killed preparation leaves "incomplete.XXXXXX_1.0.0", which is no version.
            if _VERSION.fullmatch(info.parent.name):
                copies.setdefault(info.parent.parent.relative_to(root).as_posix(), []).append(info.parent)
    return {name: max(paths, key=_version) for name, paths in sorted(copies.items())}


def find(name: str, root: pathlib.Path) -> pathlib.Path | None:
    """The directory of the set's highest version, or None; a set's only config need not be named.

    Raises:
      UserError: if the set has several configs and none is named.
    """
    found = find_all(root)
    if name in found:
        return found[name]
    configs = [key for key in found if key.startswith(f"{name}/")]
    if len(configs) > 1:
        raise UserError(
            f"dataset.name={name!r}: has several configs in {root}, choose one of {', '.join(configs)}"
        )
    return found[configs[0]] if configs else None


def source(name: str, path: pathlib.Path) -> Source:
    """The set prepared in `path`: its splits train and test; without a test split, validation is tested on.

    Canonical order is that of the records' `id`, or of the files where there is no `id` (tensorflow-datasets
    shuffles by a hash, so that order is fixed too). Image and label are the set's supervised keys or, without
    such, its only Image and its only ClassLabel.

    Raises:
      UserError: if the copy is damaged, needs TensorFlow, or is not image classification in 8 bits.
    """
    field = f"dataset.name={name!r}"
    with _undamaged(field, path):
        builder = tfds.builder_from_directory(str(path))
        features, supervised = dict(builder.info.features.items()), builder.info.supervised_keys
        formats = sorted(found.value for found in builder.info.available_file_formats())
    if _FORMAT not in formats:
        raise UserError(
            f"{field}: the copy in {path} is stored as {'/'.join(formats)}, which cannot be read without "
            f'TensorFlow; prepare it again in another dataset.data_dir with file_format="{_FORMAT}"'
        )
    keys = _keys(features, supervised, field=field)
    train, test = _split_names(builder.info.splits, field=field)
    part = functools.partial(_part, builder, keys=keys, field=field, path=path)
    return Source(tuple(features[keys.label].names), part(train), part(test))


def _version(path: pathlib.Path) -> tuple[int, ...]:
    """Compares as versions do: 10.0.0 above 9.0.0."""
    return tuple(int(number) for number in path.name.split("."))


@contextlib.contextmanager
def _undamaged(field: str, path: pathlib.Path) -> Iterator[None]:
    """Turns what the libraries raise for a damaged copy into the user's one line."""
    try:
        yield
    except _DAMAGE as error:
        raise UserError(
            f"{field}: the copy in {path} cannot be read ({reason(error)}); "
            "if it is damaged, delete that directory and prepare it again"
        ) from error


def _keys(features: dict, supervised: object, *, field: str) -> _Keys:
    """Which features are the image and its class; cifar100, for one, has two ClassLabels."""
    pictures = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    classes = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    match supervised:
        case (image, label) if image in pictures and label in classes:
            pass
        case _ if len(pictures) == len(classes) == 1:
            image, label = pictures[0], classes[0]
        case _:
            raise UserError(
                f"{field}: not image classification, it needs one Image and one ClassLabel feature "
                f"but has the features {', '.join(sorted(features))}"
            )
    feature = features[image]
    if feature.np_dtype != np.uint8 or feature.shape[-1] not in (1, 3):
        raise UserError(
            f"{field}: its images are {np.dtype(feature.np_dtype).name} with {feature.shape[-1]} channels; "
            "uint8 (values in 0..255) with 1 (grey) or 3 (RGB) channels is needed"
        )
    has_id = "id" in features and features["id"].shape == ()
    return _Keys(image, label, "id" if has_id else None)


def _split_names(found: Sequence[str], *, field: str) -> tuple[str, str]:
    """The splits to train and to test on."""
    test = "test" if "test" in found else "validation"
    if "train" not in found or test not in found:
        raise UserError(
            f"{field}: needs the splits train and test (or validation), "
            f"but has {', '.join(sorted(found)) or 'none'}"
        )
    return "train", test


def _part(
    builder: tfds.core.DatasetBuilder, split: str, *, keys: _Keys, field: str, path: pathlib.Path
) -> Part:
    """One split, its images still encoded."""
    # tfds decodes no image: with OpenCV installed it would give other pixels for a JPEG than without.
    decoders = {
        key: tfds.decode.SkipDecoding()
        for key, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    with _undamaged(field, path):
        records = builder.as_data_source(split, decoders=decoders, file_format=_FORMAT)
        size = len(records)
    channels = builder.info.features[keys.image].shape[-1]
    read = functools.partial(
        _read, records, split=split, keys=keys, channels=channels, field=field, path=path
    )
    return Part(size, read)


def _read(
    records: Sequence[dict],
    chosen: np.ndarray,
    *,
    split: str,
    keys: _Keys,
    channels: int,
    field: str,
    path: pathlib.Path,
) -> Split:
    """The chosen images, in the order chosen."""
    labels = np.empty(len(chosen), np.int32)

    def encoded() -> Iterator[tuple[str, bytes]]:
        positions = _canonical(records, keys.id)[chosen]
        for i, record in enumerate(_in_chunks(records, positions)):
            labels[i] = record[keys.label]
            yield f"{split} image {_shown(record[keys.id]) if keys.id else positions[i]}", record[keys.image]

    with _undamaged(field, path):
        pixels = images.decode_all(encoded(), count=len(chosen), channels=channels, field=field)
    return Split(pixels, labels)


def _shown(identity: bytes | int) -> str:
    """An id as text; tfds gives texts as bytes."""
    return identity.decode(errors="replace") if isinstance(identity, bytes) else str(identity)


def _canonical(records: Sequence[dict], id_key: str | None) -> np.ndarray:
    """The records' positions in canonical order, int64 [N]."""
    positions = np.arange(len(records))
    if id_key is None:
        return positions
    ids = [record[id_key] for record in _in_chunks(records, positions)]
    return np.array(sorted(range(len(ids)), key=ids.__getitem__))


def _in_chunks(records: Sequence[dict], positions: np.ndarray) -> Iterator[dict]:
    """The records at `positions`, read in batches, which is five times as fast as one by one."""
    for start in range(0, len(positions), _CHUNK):
        yield from records.__getitems__(positions[start : start + _CHUNK].tolist())
