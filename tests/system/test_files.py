import pytest

from jaxrw.system import files


def test_a_file_is_replaced_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with files.replacing(path) as file:
        file.write(b"new, and longer")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new, and longer"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail():
        with files.replacing(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_under_the_scratch_name_is_no_obstacle(tmp_path):
    (tmp_path / files.scratch_name("file")).write_bytes(b"half")
    with files.replacing(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_link_under_the_scratch_name_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    place = tmp_path / "place"
    place.mkdir()
    (place / files.scratch_name("file")).symlink_to(outside)
    with files.replacing(place / "file") as file:
        file.write(b"new")
    assert outside.read_bytes() == b"precious"
    assert (place / "file").read_bytes() == b"new"
    assert not (place / "file").is_symlink()


def test_a_numbered_name_has_the_first_number_that_nothing_has(tmp_path):
    path = tmp_path / "results.json"
    assert files.numbered(path, first=1) == tmp_path / "results-1.json"
    (tmp_path / "results-1.json").write_text("")
    (tmp_path / "results-2.json").symlink_to("nowhere")
    assert files.numbered(path, first=1) == tmp_path / "results-3.json"
    assert files.numbered(tmp_path / "12", first=2) == tmp_path / "12-2"
