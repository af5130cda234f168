import dataclasses
import functools
import hashlib
import http.server
import io
import pathlib
import socket
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxrw import data
from jaxrw.data import cifar
from jaxrw.system.errors import UserError

CLASSES = {"cifar10": {"label": 10}, "cifar100": {"coarse_label": 20, "label": 100}}
PER_FILE = 3


def rows(name, member):
    """What the member holds: labels [n, L] and pixels [n, 3, 32, 32], telling one image from another."""
    random = np.random.RandomState(sum(map(ord, name + member)))
    labels = np.stack([random.randint(0, count, PER_FILE) for count in CLASSES[name].values()], axis=1)
    return labels, random.randint(0, 256, (PER_FILE, 3, 32, 32))


def write_archive(path, name):
    """An archive of the genuine layout with three images a file, and how it is known."""
    genuine = cifar.ARCHIVES[name]
    contents = {"../outside.txt": b"must not be extracted"}
    for member in genuine.train_files + genuine.test_files:
        labels, pixels = rows(name, member)
        contents[member] = (
            np.concatenate([labels, pixels.reshape(PER_FILE, -1)], 1).astype(np.uint8).tobytes()
        )
    for key, member in genuine.name_files:
        names = "".join(f"{key}_{i}\n" for i in range(CLASSES[name][key]))
        contents[member] = f"{names}\n".encode()
    with tarfile.open(path, "w:gz") as tar:
        for member, content in contents.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    content = path.read_bytes()
    return dataclasses.replace(
        genuine, url=path.as_uri(), size=len(content), sha256=hashlib.sha256(content).hexdigest()
    )


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Makes both sets small and to be had from a file."""
    (tmp_path / "site").mkdir()
    for name, archive in list(cifar.ARCHIVES.items()):
        file = tmp_path / "site" / archive.url.rpartition("/")[2]
        monkeypatch.setitem(cifar.ARCHIVES, name, write_archive(file, name))
    return tmp_path / "site"


def change(monkeypatch, **changes):
    monkeypatch.setitem(cifar.ARCHIVES, "cifar10", dataclasses.replace(cifar.ARCHIVES["cifar10"], **changes))


def message_of(root):
    with pytest.raises(UserError) as caught:
        data.load("cifar10", data_dir=root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_archives_are_those_that_tfds_knows():
    folder = pathlib.Path(tfds.__file__).parent / "url_checksums"
    for name, archive in cifar.ARCHIVES.items():
        known = [line.split("\t") for line in (folder / f"{name}.txt").read_text().splitlines()]
        assert [archive.url, str(archive.size), archive.sha256] in [line[:3] for line in known]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_missing_set_is_downloaded_and_prepared(site, tmp_path, name):
    root = tmp_path / "new/sets"
    loaded = data.load(name, data_dir=root)
    archive = cifar.ARCHIVES[name]
    for split, members in (("train", archive.train_files), ("test", archive.test_files)):
        labels, pixels = map(np.concatenate, zip(*(rows(name, member) for member in members), strict=True))
        expected = pixels.transpose(0, 2, 3, 1).astype(np.uint8)
        given = getattr(loaded, split)
        found = [expected.tobytes().find(image.tobytes()) // expected[0].size for image in given.images]
        assert sorted(found) == list(range(len(expected)))
        assert split == "train" or found == sorted(found)  # all test images: in canonical order
        np.testing.assert_array_equal(given.labels, labels[found, -1])
    assert loaded.class_names == tuple(f"label_{i}" for i in range(CLASSES[name]["label"]))
    assert not (tmp_path / "new/outside.txt").exists()
    assert not any("incomplete" in file or file.endswith(".part") for file in files(root))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_tfds_reads_what_was_prepared_as_its_own(site, tmp_path, name):
    data.load(name, data_dir=tmp_path)
    builder = tfds.builder(name, data_dir=tmp_path)
    assert type(builder).__module__ == "tensorflow_datasets.image_classification.cifar"
    assert (tmp_path / name / cifar.VERSION / "features.json").exists()
    assert builder.info.supervised_keys == ("image", "label")
    assert set(builder.info.features) == {"id", "image", *CLASSES[name]}
    records = sorted(
        tfds.data_source(name, data_dir=tmp_path, split="train"), key=lambda record: record["id"]
    )
    members = cifar.ARCHIVES[name].train_files
    labels, pixels = map(np.concatenate, zip(*(rows(name, member) for member in members), strict=True))
    assert [record["id"].decode() for record in records] == [f"train_{i:05d}" for i in range(len(labels))]
    np.testing.assert_array_equal([record["image"] for record in records], pixels.transpose(0, 2, 3, 1))
    for i, key in enumerate(CLASSES[name]):
        np.testing.assert_array_equal([record[key] for record in records], labels[:, i])
        assert builder.info.features[key].names[1] == f"{key}_1"


def test_a_prepared_set_is_not_downloaded_again(site, tmp_path):
    first = data.load("cifar10", data_dir=tmp_path)
    for file in site.iterdir():
        file.unlink()
    (tmp_path / "downloads/cifar-10-binary.tar.gz").unlink()
    target = cifar.prepare("cifar10", tmp_path, archive=cifar.ARCHIVES["cifar10"])
    assert target == tmp_path / "cifar10" / cifar.VERSION
    np.testing.assert_array_equal(first.train.images, data.load("cifar10", data_dir=tmp_path).train.images)


def test_an_archive_put_beside_is_used(site, tmp_path, monkeypatch):
    (tmp_path / "downloads").mkdir()
    (site / "cifar-10-binary.tar.gz").rename(tmp_path / "downloads/cifar-10-binary.tar.gz")
    assert len(data.load("cifar10", data_dir=tmp_path).test.labels) == PER_FILE


def test_a_wrong_archive_put_beside_is_named_and_kept(site, tmp_path):
    (tmp_path / "downloads").mkdir()
    placed = tmp_path / "downloads/cifar-10-binary.tar.gz"
    placed.write_bytes(b"something else")
    message = message_of(tmp_path)
    assert message.startswith(f"dataset.name='cifar10': {placed} is not file://")
    assert "14 bytes" in message
    assert message.endswith("delete it and run again")
    assert files(tmp_path / "downloads") == [placed.name]  # it is the user's, not ours to delete


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size": 10}, {"size": 10**7}])
def test_a_wrong_download_is_told_and_deleted(site, tmp_path, monkeypatch, changes):
    change(monkeypatch, **changes)
    message = message_of(tmp_path / "sets")
    assert "cifar-10-binary.tar.gz" in message
    assert str(next(iter(changes.values()))) in message
    assert message.endswith("it has been deleted")
    assert files(tmp_path / "sets") == []


def test_no_more_is_downloaded_than_the_archive_has(site, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "_CHUNK", 100)
    change(monkeypatch, size=250)
    assert "it has 300 bytes" in message_of(tmp_path / "sets")


@pytest.fixture
def serve(monkeypatch):
    """Starts a web server on this machine for a directory, or one that answers with `reply` and hangs up."""
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    def start(directory, *, status=None, announced=None):
        class Handler(Silent):
            def do_GET(self):
                if status is None and announced is None:
                    return super().do_GET()
                self.send_response(status or 200)
                self.send_header("Content-Length", str(announced or 0))
                self.end_headers()
                self.wfile.write(b"x" * min(announced or 0, 100))

        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=directory)
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_download_over_http(site, tmp_path, monkeypatch, serve):
    change(monkeypatch, url=serve(site))
    assert len(data.load("cifar10", data_dir=tmp_path).test.labels) == PER_FILE
    assert "downloads/cifar-10-binary.tar.gz" in files(tmp_path)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [({"status": 404}, "HTTP Error 404"), ({"announced": 10**6}, "it has 100 bytes")],
)
def test_failing_servers_are_told(site, tmp_path, monkeypatch, serve, reply, expected):
    change(monkeypatch, url=serve(site, **reply))
    assert expected in message_of(tmp_path / "sets")
    assert files(tmp_path / "sets") == []


def test_offline_is_told_within_seconds(site, tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/cifar-10-binary.tar.gz"
        change(monkeypatch, url=url)
        monkeypatch.setenv("no_proxy", "*")
        message = message_of(tmp_path / "sets")
    assert message.startswith(
        f"dataset.name='cifar10': no prepared copy in {tmp_path / 'sets'}, and downloading {url}"
    )
    assert "Connection refused" in message
    assert "set --config.dataset.data_dir" in message
    assert message.endswith(f"or put that archive at {tmp_path / 'sets/downloads/cifar-10-binary.tar.gz'}")
    assert files(tmp_path / "sets") == []


def test_a_server_that_never_answers_is_given_up(site, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        change(monkeypatch, url=f"http://127.0.0.1:{mute.getsockname()[1]}/cifar-10-binary.tar.gz")
        start = time.monotonic()
        assert "timed out" in message_of(tmp_path / "sets")
    assert time.monotonic() - start < 5


def test_an_unwritable_directory_is_told(site, tmp_path):
    (tmp_path / "file").write_text("in the way")
    message = message_of(tmp_path / "file")
    assert message.startswith(
        f"dataset.data_dir={str(tmp_path / 'file')!r}: cifar10 cannot be prepared there: "
    )


def test_an_empty_version_directory_is_not_taken_for_a_copy(site, tmp_path):
    target = tmp_path / "cifar10" / cifar.VERSION
    target.mkdir(parents=True)
    assert f"{target} holds no complete copy; delete that directory" in message_of(tmp_path)


# Killing and limiting concern a process, hence a process of its own.
LIMITED = """
import dataclasses, os, resource, signal, sys
from jaxrw import data
from jaxrw.data import cifar
root, url, size, sha256, what = sys.argv[1:]
archive = dataclasses.replace(cifar.ARCHIVES["cifar10"], url=url, size=int(size), sha256=sha256)
cifar.ARCHIVES["cifar10"] = archive
if what == "kill":
    examples = cifar._examples
    def killed(*args, split, **kwargs):
        if split == "test":  # the training images are written by then
            os.kill(os.getpid(), signal.SIGKILL)
        yield from examples(*args, split=split, **kwargs)
    cifar._examples = killed
else:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(what), int(what)))
try:
    data.load("cifar10", data_dir=root)
except data.UserError as error:
    print(error)
"""


def limited(site, root, what):
    archive = cifar.ARCHIVES["cifar10"]
    arguments = [root, archive.url, archive.size, archive.sha256, what]
    return subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, arguments)], capture_output=True, text=True
    )


def test_a_killed_preparation_leaves_nothing_that_is_taken_for_a_set(site, tmp_path):
    assert limited(site, tmp_path / "sets", "kill").returncode == -9
    assert any("incomplete" in file for file in files(tmp_path / "sets"))  # it was killed in the midst
    assert not (tmp_path / "sets/cifar10" / cifar.VERSION).exists()
    assert len(data.load("cifar10", data_dir=tmp_path / "sets").train.labels) == 5 * PER_FILE


@pytest.mark.parametrize("room", [1000, 70_000])  # not enough for the archive (56 kB); for the set (128 kB)
def test_a_full_disk_is_told(site, tmp_path, room):
    done = limited(site, tmp_path / "sets", room)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"dataset.data_dir={str(tmp_path / 'sets')!r}: cifar10 cannot be prepared there: "
    )
    assert "File too large" in done.stdout
    assert done.stdout.count("\n") == 1
    assert not any("cifar10" in file for file in files(tmp_path / "sets"))


def test_whoever_prepares_second_uses_what_the_first_has_made(site, tmp_path, monkeypatch):
    examples, others = cifar._examples, []

    def overtaken(*args, **kwargs):
        if not others:
            others.append("running")
            cifar.prepare("cifar10", tmp_path, archive=cifar.ARCHIVES["cifar10"])  # as another process would
        yield from examples(*args, **kwargs)

    monkeypatch.setattr(cifar, "_examples", overtaken)
    assert len(data.load("cifar10", data_dir=tmp_path).train.labels) == 5 * PER_FILE
    assert not any("incomplete" in file for file in files(tmp_path))


def test_two_that_download_at_once_do_not_meet(site, tmp_path, monkeypatch):
    """Each writes under a name of its own: the second begins and ends while the first is in the midst."""
    chunks, others = cifar._chunks, []
    monkeypatch.setattr(cifar, "_CHUNK", 10_000)

    def overtaken(*args, **kwargs):
        for number, chunk in enumerate(chunks(*args, **kwargs)):
            if number == 2 and not others:
                others.append("running")
                cifar._download(*args, **kwargs)
                assert files(tmp_path / "sets")[0] == "downloads/cifar-10-binary.tar.gz"
            yield chunk

    monkeypatch.setattr(cifar, "_chunks", overtaken)
    assert len(data.load("cifar10", data_dir=tmp_path / "sets").train.labels) == 5 * PER_FILE
    assert others
    assert not any(file.endswith(".part") for file in files(tmp_path / "sets"))
