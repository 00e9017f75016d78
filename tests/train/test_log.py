import json
import math
from pathlib import Path

from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from unnoise.train.log import EventLog, MetricsLog


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, after=0)
    for step in (1, 2, 3, 4):
        log.write(step, {"loss": 0.5, "bad": math.nan})
    log.close()
    assert json.loads(path.read_text().splitlines()[0]) == {"step": 1, "loss": 0.5, "bad": None}
    with open(path, "a") as file:
        file.write('{"step": 5, "lo')  # killed in the middle of a line
    log = MetricsLog(path, after=3)
    assert steps(path) == [1, 2, 3]
    log.write(4, {"loss": 0.25})
    log.close()
    assert steps(path) == [1, 2, 3, 4]
    MetricsLog(path, after=0).close()
    assert path.read_text() == ""


def test_tensorboard_reads_what_is_written_once(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "grid.png")
    log = EventLog(tmp_path / "tb", after=0)
    for step in (1, 2, 3):
        log.scalars(step, {"loss": float(step), "loss/q0": 0.5})
    log.picture(3, "samples", tmp_path / "grid.png")
    log.close()
    (path,) = (tmp_path / "tb").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[-60:-20])  # a torn record
    log = EventLog(tmp_path / "tb", after=2)
    log.scalars(3, {"loss": 9.0})
    log.picture(3, "samples", tmp_path / "grid.png")
    log.close()
    events = list(EventFileLoader(str(path)).Load())
    assert [path] == list((tmp_path / "tb").iterdir())
    loss = {}
    for event in events:
        for value in event.summary.value:
            if value.tag == "loss":
                assert event.step not in loss
                loss[event.step] = (
                    value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
                )
    assert loss == {1: 1.0, 2: 2.0, 3: 9.0}
    assert sum(v.tag == "samples" for e in events for v in e.summary.value) == 1
