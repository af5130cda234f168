import chex
import numpy as np
import pytest
from PIL import Image

from jaxrw import data
from jaxrw.system.errors import UserError


def message_of(**kwargs):
    with pytest.raises(UserError) as caught:
        data.load("folder", **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels(name):
    """Colours that tell one file from another."""
    return np.random.RandomState(sum(map(ord, name))).randint(0, 256, (9, 10, 3), np.uint8)


def write(root, name, *, mode="RGB", size=None):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels(name)).convert(mode)
    (image.resize(size) if size else image).save(path)
    return path


NAMES = (
    "train/cat/b.png",
    "train/cat/a.png",
    "train/ant/z.PNG",
    "train/ant/y.JPG",
    "train/ant/x.jpeg",
    "test/cat/1.png",
    "test/ant/2.png",
)


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        write(tmp_path, name)
    return tmp_path


def by_label(split):
    return {
        label: {image.tobytes() for image in split.images[split.labels == label]}
        for label in set(split.labels)
    }


def test_folder_reads_every_image_with_its_class(root):
    loaded = data.load("folder", data_dir=root)
    assert (loaded.num_classes, loaded.class_names) == (2, ("ant", "cat"))
    chex.assert_shape([loaded.train.images, loaded.test.images], [(5, 9, 10, 3), (2, 9, 10, 3)])
    opened = {name: np.asarray(Image.open(root / name)).tobytes() for name in NAMES}
    np.testing.assert_array_equal(loaded.test.labels, [0, 1])  # all of them: in canonical order
    assert [image.tobytes() for image in loaded.test.images] == [
        opened["test/ant/2.png"],
        opened["test/cat/1.png"],
    ]
    assert by_label(loaded.train) == {
        0: {opened[name] for name in NAMES if name.startswith("train/ant")},
        1: {opened[name] for name in NAMES if name.startswith("train/cat")},
    }


def test_folder_decodes_only_what_is_chosen(root):
    # Undecodable pixels behind a sound header: harmless unless this very file is read.
    order = sorted(name for name in NAMES if name.startswith("train"))
    taken = data.load("folder", data_dir=root, train_size=1).train.images[0].tobytes()
    for name in order:
        path = root / name
        if np.asarray(Image.open(path)).tobytes() != taken:
            path.write_bytes(path.read_bytes()[:-40])
    data.load("folder", data_dir=root, train_size=1)
    assert "cannot be used" in message_of(data_dir=root)


def test_hidden_files_and_other_endings_are_passed_over(root):
    for name in ("train/.hidden/a.png", "train/ant/._x.png", "train/ant/notes.txt", "test/loose.png"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("not an image")
    assert len(data.load("folder", data_dir=root).train.labels) == 5


def test_one_coloured_file_makes_all_rgb(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"):
        write(tmp_path, name, mode="1" if "2" in name else "L")
    assert data.load("folder", data_dir=tmp_path).train.images.shape == (2, 9, 10, 1)
    write(tmp_path, "test/a/3.png", mode="RGB")  # neither the first file nor the last
    loaded = data.load("folder", data_dir=tmp_path, test_size=1)
    assert loaded.train.images.shape == (2, 9, 10, 3)
    np.testing.assert_array_equal(loaded.train.images[..., 0], loaded.train.images[..., 2])


def test_folder_needs_a_directory(tmp_path):
    assert message_of().startswith("dataset.data_dir=None: dataset.name='folder' needs a directory")
    assert str(tmp_path / "train") in message_of(data_dir=tmp_path)
    assert message_of(data_dir="x" * 300).startswith("dataset.data_dir='xxx")
    assert "cannot be looked into" in message_of(data_dir="~nobody-of-this-name/x")


def test_folder_needs_a_test_directory(tmp_path):
    write(tmp_path, "train/a/1.png")
    assert f"no directory {tmp_path / 'test'}" in message_of(data_dir=tmp_path)


def test_unreadable_directories_are_told(root, monkeypatch):
    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.iterdir", deny)  # not by chmod, which does not stop root
    assert "cannot be read ([Errno 13] Permission denied" in message_of(data_dir=root)


def test_a_class_without_images_is_told(root):
    (root / "train/bee").mkdir()
    (root / "test/bee").mkdir()
    assert f"{root / 'train/bee'} has no image" in message_of(data_dir=root)


def test_one_class_is_too_few(tmp_path):
    write(tmp_path, "train/a/1.png")
    write(tmp_path, "test/a/1.png")
    assert "has 1 class directories, but at least 2 are needed" in message_of(data_dir=tmp_path)


def test_no_class_is_too_few(tmp_path):
    write(tmp_path, "train/1.png")
    write(tmp_path, "test/1.png")
    assert "has 0 class directories" in message_of(data_dir=tmp_path)


def test_other_classes_to_test_on_are_told(root):
    write(root, "train/bee/1.png")
    write(root, "test/dog/1.png")
    assert "bee only in train and dog only in test" in message_of(data_dir=root)


@pytest.mark.parametrize("odd", ["train/cat/b.png", "test/cat/1.png"])
def test_ragged_images_are_told(root, odd):
    write(root, odd, size=(11, 12))
    expected = f"{root / odd} is 12x11 but {root / 'train/ant/x.jpeg'} is 9x10 (height x width)"
    assert expected in message_of(data_dir=root, train_size=1, test_size=1)


def test_small_images_are_told(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"):
        write(tmp_path, name, size=(7, 8))
    assert message_of(data_dir=tmp_path).startswith(
        "dataset.name='folder': images are 8x7x3, but at least 8x8"
    )


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_unreadable_files_are_named(root, content):
    (root / "test/cat/1.png").write_bytes(content)
    message = message_of(data_dir=root, test_size=1)
    assert message.startswith(f"dataset.data_dir={str(root)!r}: {root / 'test/cat/1.png'} cannot be used")


def test_sixteen_bit_images_are_refused(root):
    path = root / "train/cat/b.png"
    Image.fromarray(np.full((9, 10), 300, np.uint16)).save(path)
    assert f"{path} cannot be used: it has 16 bits a value" in message_of(data_dir=root)
