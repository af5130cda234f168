"""Metrics go to TensorBoard, to wandb and to a writer of one's own; metrics.jsonl is always written."""

import contextlib
import json
import pathlib
import struct
import time

import pytest
from helpers import commands, tiny
from PIL import Image

import launch
from jaxrw import runs, settings
from jaxrw.runs import writers
from jaxrw.system.errors import UserError


def test_the_logger_of_the_page_gets_what_metrics_jsonl_has(tmp_path, monkeypatch):
    """The config of docs/logging.md, trained and evaluated; then evaluated again with TensorBoard alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(writers.WRITERS, "csv", None)  # put back at the end what the page changes
    (block,) = commands.blocks(commands.ROOT / "docs" / "logging.md", "python")
    (tmp_path / "own.py").write_text(block)
    assert commands.launch_small(["--config", "own.py", "--workdir", "run"]) == 0
    written = [line.split(",") for line in pathlib.Path("run/metrics.csv").read_text().splitlines()]
    expected = [
        [writers.tag(line), str(line["step"]), name, str(value)]
        for line in runs.read_metrics(pathlib.Path("run"))
        for name, value in line.items()
        if isinstance(value, int | float) and name not in ("epoch", "step")
    ]
    assert written == expected
    assert {row[0] for row in written} == {"train", "validation", "verdict/last", "verdict/best"}
    assert list(pathlib.Path("run").glob("events*"))
    again = ["launch.py", "--mode=evaluate", "--workdir=run", "--config.writers=('tensorboard',)"]
    assert launch.main([*again, "--config.evaluation.attacks=('fgsm',)"]) == 0
    assert len(pathlib.Path("run/metrics.csv").read_text().splitlines()) == len(written)


def test_names_that_are_no_writers(monkeypatch):
    with pytest.raises(
        UserError, match=r"^writers has 'csv'; choose of tensorboard, wandb, or add it in the config"
    ):
        writers.names(tiny.config(writers=("csv",)))
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^writers has 'wandb', which is not installed: pip install wandb$"):
        writers.names(tiny.config(writers=("tensorboard", "wandb")))


def test_configs_of_versions_without_the_field(tmp_path):
    config = tiny.config()
    with config.unlocked():
        del config.writers
    assert writers.names(config) == ("tensorboard",)
    with runs.open_workdir(tmp_path, config):
        pass
    with runs.open_workdir(tmp_path, tiny.config(writers=())):  # The same run, whoever hears of it.
        pass
    assert settings.with_effect(settings.flatten(settings.as_json(tiny.config()))) == settings.with_effect(
        settings.flatten(settings.as_json(config))
    )


def leveldb_records(content):
    """Records of a log of LevelDB, as wandb writes it: blocks of 32 KiB, the first with a header of 7 bytes."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += -place % 32768  # filled up
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or its last part
            yield record
            record = b""


def test_wandb_offline(tmp_path, monkeypatch):
    """What it would upload, read from its file; the second part of a run has the same id."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    runs.write_json(tmp_path / "config.json", {"seed": 3})
    Image.new("RGB", (6, 5)).save(tmp_path / "grid.png")
    for step, resume_at in ((4, 0), (8, 4)):
        with contextlib.closing(runs.MetricsLog(tmp_path, resume_at=resume_at, writers=("wandb",))) as log:
            log.write("train", epoch=0, step=step, loss=step / 2, weights=[1] * 48)
            log.write("evaluation", epoch=0, step=step, checkpoint="best", clean=91.0)
            log.write_image("examples", tmp_path / "grid.png", step=step)
    found, ids, ended, deadline = [], set(), 0, time.monotonic() + 60
    while ended < 2 and time.monotonic() < deadline:  # wandb's own process may be writing yet
        time.sleep(0.1)
        found, ids, ended = [], set(), 0
        for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
            for data in leveldb_records(path.read_bytes()):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(data)
                ended += record.HasField("exit")
                if record.HasField("run"):
                    ids.add(record.run.run_id)
                    config = {entry.key: json.loads(entry.value_json) for entry in record.run.config.update}
                    assert config["seed"] == 3
                for item in record.history.item:
                    found.append(("/".join(item.nested_key) or item.key, json.loads(item.value_json)))
    assert ids == {(tmp_path / "wandb" / "id").read_text()}
    for step in (4, 8):
        assert ("train/loss", step / 2) in found
    assert found.count(("verdict/best/clean", 91.0)) == 2
    assert found.count(("examples/_type", "image-file")) == 2
