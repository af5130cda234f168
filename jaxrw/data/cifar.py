"""CIFAR-10 and CIFAR-100: downloaded, checked and prepared for tensorflow-datasets, without TensorFlow.

The stock builder needs TensorFlow to open a file and to encode an image. This one writes the same records
(same features, ids and order) as array_record, so that `tfds.data_source("cifar10")` reads them as its own.
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

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from jaxrw.data.dataset import reason
from jaxrw.system.errors import UserError

# The version of the stock builder whose records these are.
VERSION = "3.0.2"
_SIDE = 32
_CHUNK = 1 << 20
# Without a network the user is to know within seconds. For connecting and for each read, not for the whole.
_TIMEOUT_SECONDS = 8


@dataclasses.dataclass(frozen=True)
class Archive:
    """One of the two archives, in its "binary version".

    Attributes:
      url, size (bytes), sha256: where it is had and how it is known.
      train_files, test_files: its members; rows of label bytes, then 3x32x32 pixels.
      name_files: the label features in the order of the label bytes, each with the member naming its classes.
    """

    url: str
    size: int
    sha256: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    name_files: tuple[tuple[str, str], ...]


# Sizes and checksums: tensorflow_datasets 4.9.10, url_checksums/cifar10.txt and cifar100.txt; members: its
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
    """Makes `<root>/<name>/<VERSION>` from the archive and returns it; it appears complete or not at all.

    The archive is taken from `<root>/downloads/` if it lies there, else downloaded to there.

    Raises:
      UserError: if the archive cannot be had, is not the right one, or `root` cannot be written.
    """
    target = root / name / VERSION
    complete = target / "dataset_info.json"  # there once tfds has renamed its temporary directory
    file = root / "downloads" / archive.url.rpartition("/")[2]
    try:
        if complete.exists():  # another process has been faster
            return target
        if target.exists():  # tfds would take it for a complete copy
            raise UserError(f"dataset.name={name!r}: {target} holds no complete copy; delete that directory")
        if file.exists():
            _verify(name, file, archive=archive, advice="delete it and run again")
        else:
            _download(name, file, archive=archive)
        builder = _Builder(name, archive=archive, contents=_contents(file, archive=archive), root=root)
        # tfds announces "Unknown size" on standard output; its progress bars go to standard error.
        with contextlib.redirect_stdout(io.StringIO()):
            offline = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=offline, file_format="array_record")
    except (OSError, RuntimeError) as error:  # array_record reports a full disk as RuntimeError
        # Another process may have prepared the same set meanwhile; whoever renames second finds it there.
        if not complete.exists():
            raise UserError(
                f"dataset.data_dir={str(root)!r}: {name} cannot be prepared there: {reason(error)}"
            ) from error
    return target


def _download(name: str, file: pathlib.Path, *, archive: Archive) -> None:
    """Downloads to a temporary name beside `file`, which appears only when size and checksum are right."""
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
    """The archive's bytes from the network, and no more than it should have: a login page may have no end."""
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
            error.close()  # an answer such as 404 is an open connection too
        raise UserError(
            f"dataset.name={name!r}: no prepared copy in {file.parent.parent}, and downloading {archive.url} "
            f"failed ({reason(error)}); set --config.dataset.data_dir to where a copy is, "
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


def _contents(file: pathlib.Path, *, archive: Archive) -> dict[str, bytes]:
    """The members that are needed, in memory: nothing in the archive chooses a path on disk."""
    wanted = {*archive.train_files, *archive.test_files, *(member for _, member in archive.name_files)}
    with tarfile.open(file, "r:gz") as tar:  # in one pass, as going back in a gzip file means starting again
        return {member.name: tar.extractfile(member).read() for member in tar if member.name in wanted}


def _examples(rows: bytes, *, label_keys: tuple[str, ...], split: str) -> Iterator[tuple[int, dict]]:
    """The stock builder's keys and records; the images as PNG."""
    table = np.frombuffer(rows, np.uint8).reshape(-1, len(label_keys) + 3 * _SIDE * _SIDE)
    labels, pixels = np.split(table, [len(label_keys)], axis=1)
    for i, image in enumerate(pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)):
        png = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(png, "PNG")
        record = dict(zip(label_keys, labels[i].tolist(), strict=True))
        yield i, record | {"id": f"{split}_{i:05d}", "image": io.BytesIO(png.getvalue())}


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The stock builder's name, version and features, without being registered in its place."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, name: str, *, archive: Archive, contents: dict[str, bytes], root: pathlib.Path):
        self.name = name
        self._archive = archive
        self._contents = contents
        super().__init__(data_dir=str(root))

    def _info(self) -> tfds.core.DatasetInfo:
        classes = {key: self._contents[member].decode().split() for key, member in self._archive.name_files}
        return tfds.core.DatasetInfo(
            builder=self,
            description="60,000 colour images of 32x32 pixels, 50,000 of them to train on.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(_SIDE, _SIDE, 3)),
                    **{key: tfds.features.ClassLabel(names=names) for key, names in classes.items()},
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            citation="Alex Krizhevsky. Learning multiple layers of features from tiny images. 2009.",
        )

    def _split_generators(self, dl_manager) -> dict:
        del dl_manager  # everything has been downloaded
        return {
            "train": self._generate_examples("train", self._archive.train_files),
            "test": self._generate_examples("test", self._archive.test_files),
        }

    def _generate_examples(self, split: str, members: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
        rows = b"".join(self._contents[member] for member in members)
        return _examples(rows, label_keys=tuple(key for key, _ in self._archive.name_files), split=split)
