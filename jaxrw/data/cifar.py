"""Downloads, checks and prepares CIFAR-10 and CIFAR-100 for tensorflow-datasets, without TensorFlow.

The builder of tensorflow-datasets needs TensorFlow to open a file and to encode an image. This one writes the same
records (features, ids and order) as array_record, so that `tfds.data_source("cifar10")` reads them as its own.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import io
import os
import pathlib
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from jaxrw.system.errors import UserError, one_line

# Version of the builder in tensorflow-datasets that writes the same records.
VERSION = "3.0.2"
_SIDE = 32
_CHUNK = 1 << 20
# For connecting and for each read, so that a missing network is reported within seconds.
_TIMEOUT_SECONDS = 8


@dataclasses.dataclass(frozen=True)
class Archive:
    """An archive of the "binary version" of CIFAR.

    Attributes:
      url: where it is downloaded from.
      size: in bytes.
      sha256: its checksum, in hexadecimal.
      train_files: members with the training images, in rows of label bytes and 3x32x32 pixels.
      test_files: members with the test images, likewise.
      name_files: (feature, member with the names of its classes) for each label byte, in their order.
    """

    url: str
    size: int
    sha256: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    name_files: tuple[tuple[str, str], ...]


# From tensorflow_datasets 4.9.10: sizes and checksums from url_checksums/cifar10.txt and cifar100.txt, members from
# image_classification/cifar.py.
ARCHIVES = {
    "cifar10": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        size=170_052_171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        train_files=tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
        test_files=("cifar-10-batches-bin/test_batch.bin",),
        name_files=(("label", "cifar-10-batches-bin/batches.meta.txt"),),
    ),
    "cifar100": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        size=168_513_733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        train_files=("cifar-100-binary/train.bin",),
        test_files=("cifar-100-binary/test.bin",),
        name_files=(
            ("coarse_label", "cifar-100-binary/coarse_label_names.txt"),
            ("label", "cifar-100-binary/fine_label_names.txt"),
        ),
    ),
}


def prepare(name: str, root: pathlib.Path, *, archive: Archive) -> pathlib.Path:
    """Prepares the archive in `<root>/<name>/<VERSION>` and returns that directory, which is complete or missing.

    The archive is downloaded to `<root>/downloads/` unless it is there already.

    Raises:
      UserError: the archive cannot be downloaded, is not the right one, or `root` cannot be written.
    """
    target = root / name / VERSION
    complete = target / "dataset_info.json"  # exists once tfds has renamed its temporary directory
    file = root / "downloads" / archive.url.rpartition("/")[2]
    try:
        if complete.exists():  # another process was faster
            return target
        if target.exists():  # tfds would mistake it for a complete copy
            raise UserError(f"dataset.name={name!r}: {target} holds no complete copy; delete that directory")
        if file.exists():
            _verify(name, file, archive=archive, advice="delete it and run again")
        else:
            _download(name, file, archive=archive)
        builder = _Builder(name, archive=archive, members=_members(file, archive=archive), root=root)
        # tfds announces "Unknown size" on standard output; its progress bars go to standard error.
        with contextlib.redirect_stdout(io.StringIO()):
            offline = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=offline, file_format="array_record")
    except (OSError, RuntimeError) as error:  # array_record reports a full disk as RuntimeError
        # Another process may have prepared the same set in the meantime, so that renaming fails.
        if not complete.exists():
            raise UserError(
                f"dataset.data_dir={str(root)!r}: {name} cannot be prepared there: {one_line(error)}"
            ) from error
    return target


def _download(name: str, file: pathlib.Path, *, archive: Archive) -> None:
    """Downloads the archive under a temporary name and renames it to `file` if its size and checksum are right."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=file.parent, prefix=f"{file.name}.", suffix=".part", delete=False
    ) as partial:
        try:
            for chunk in _chunks(name, file, archive=archive):
                partial.write(chunk)
            partial.close()
            _verify(name, pathlib.Path(partial.name), archive=archive, advice="it has been deleted")
            os.replace(partial.name, file)
        finally:
            pathlib.Path(partial.name).unlink(missing_ok=True)


def _chunks(name: str, file: pathlib.Path, *, archive: Archive) -> Iterator[bytes]:
    """Yields the archive's bytes from the network; stops after one chunk too many, as a login page may be endless."""
    missing = archive.size
    try:
        with (
            urllib.request.urlopen(archive.url, timeout=_TIMEOUT_SECONDS) as response,
            tqdm(total=archive.size, desc=file.name, unit="B", unit_scale=True) as bar,
        ):
            while missing >= 0 and (chunk := response.read(_CHUNK)):
                missing -= len(chunk)
                bar.update(len(chunk))
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # an error such as 404 keeps its connection open
        raise UserError(
            f"dataset.name={name!r}: no prepared copy in {file.parent.parent}, and downloading {archive.url} "
            f"failed ({one_line(error)}); set --config.dataset.data_dir to where a copy is, "
            f"or put that archive at {file}"
        ) from error


def _verify(name: str, file: pathlib.Path, *, archive: Archive, advice: str) -> None:
    """Raises UserError unless the file is the archive."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if (size, digest) != (archive.size, archive.sha256):
        raise UserError(
            f"dataset.name={name!r}: {file} is not {archive.url}: it has {size} bytes and SHA-256 {digest}, "
            f"not {archive.size} and {archive.sha256}; {advice}"
        )


def _members(file: pathlib.Path, *, archive: Archive) -> dict[str, bytes]:
    """Reads the needed members of an archive into memory, so that no name in it becomes a path on disk."""
    wanted = {*archive.train_files, *archive.test_files, *(member for _, member in archive.name_files)}
    # In one pass, because going back in a gzip file means starting again.
    with tarfile.open(file, "r:gz") as tar:
        return {
            member.name: content.read()
            for member in tar
            if member.name in wanted and (content := tar.extractfile(member))
        }


def _examples(
    rows: bytes, *, label_keys: tuple[str, ...], split: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the keys and records of tensorflow-datasets' own builder, with images as PNG."""
    table = np.frombuffer(rows, np.uint8).reshape(-1, len(label_keys) + 3 * _SIDE * _SIDE)
    labels, pixels = np.split(table, [len(label_keys)], axis=1)
    for i, image in enumerate(pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)):
        png = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(png, "PNG")
        record = dict(zip(label_keys, labels[i].tolist(), strict=True))
        yield i, record | {"id": f"{split}_{i:05d}", "image": io.BytesIO(png.getvalue())}


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # tfds is untyped
    """A builder with the name, version and features of tensorflow-datasets' own, which it does not replace."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, name: str, *, archive: Archive, members: dict[str, bytes], root: pathlib.Path) -> None:
        self.name = name
        self._archive = archive
        self._members = members
        super().__init__(data_dir=str(root))

    def _info(self) -> tfds.core.DatasetInfo:
        labels = {
            key: tfds.features.ClassLabel(names=self._members[member].decode().split())
            for key, member in self._archive.name_files
        }
        image = tfds.features.Image(shape=(_SIDE, _SIDE, 3))
        return tfds.core.DatasetInfo(
            builder=self,
            description="60,000 colour images of 32x32 pixels, 50,000 of them to train on.",
            features=tfds.features.FeaturesDict({"id": tfds.features.Text(), "image": image, **labels}),
            supervised_keys=("image", "label"),
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            citation="Alex Krizhevsky. Learning multiple layers of features from tiny images. 2009.",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {
            "train": self._generate_examples("train", self._archive.train_files),
            "test": self._generate_examples("test", self._archive.test_files),
        }

    def _generate_examples(self, split: str, files: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = b"".join(self._members[file] for file in files)
        return _examples(rows, label_keys=tuple(key for key, _ in self._archive.name_files), split=split)
