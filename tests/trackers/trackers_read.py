"""What trackers were given of a run, by the readers of their own libraries, and what they should have."""

import json
import struct

import numpy as np

BOTH = ["tensorboard", "wandb"]
LOSSES = {"loss": "held_out", "loss_train": "train"}


def events(run):
    """What TensorBoard's own reader finds, of all steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kept = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(run / "tensorboard"), size_guidance=kept).Reload()


def records(file):
    """The records of an offline file, by W&B's own protocol buffers; its frames are those of LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        assert 1 <= kind <= 4
        parts = (b"" if kind in (1, 2) else parts) + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(Record.FromString(parts))
    return found


def history(file):
    """The rows of W&B by step: names (joined by a dot) and values."""
    rows = {}
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            row = {".".join(each.nested_key) or each.key: json.loads(each.value_json) for each in record.history.item}
            assert row["_step"] not in rows, "a step is there twice"
            rows[row["_step"]] = row
    return rows


def expected(run):
    """The scalars that the logs of a run hold, {name: {step: value}}."""
    found = {}
    for line in run.metrics():
        for key, value in line.items():
            if key != "step":
                found.setdefault(f"metrics/{key}", {})[line["step"]] = value
    for line in run.held_out():
        means = {name: float(np.mean(line[key])) for name, key in LOSSES.items()}
        for key in ("bits", "bits_error", "bits_train", "bits_train_error"):
            means[key] = line[key]
        for key, value in means.items():
            found.setdefault(f"held_out/{key}", {})[line["step"]] = value
    return found
