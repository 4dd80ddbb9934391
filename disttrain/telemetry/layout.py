"""The page of TensorBoard's custom scalars: the curves of ``disttrain report``, while the run is under way."""

from __future__ import annotations

from collections.abc import Mapping

Layout = dict[str, dict[str, list[object]]]
_LINES = {
    "Curves": {
        "loss of updates": ["train/loss"],
        "evaluated loss": [r"(train_set|validation|test)/loss"],
        "evaluated accuracy": [r"(train_set|validation|test)/accuracy"],
        "learning rate": ["train/lr"],
        "global batch": ["train/global_batch"],
    },
    "Gradient and throughput": {
        "gradient norm": ["train/grad_norm"],
        "samples per second": ["train/samples_per_second"],
        "trust ratios": ["train/trust_ratio/.*"],
        "updates to weights": ["train/update_to_weight/.*"],
    },
}
_NOISE = ("train/noise_scale", "train/noise_scale_low", "train/noise_scale_high")


def layout() -> Layout:
    """Charts by group, as ``SummaryWriter.add_custom_scalars`` takes them; names of scalars are patterns of whole names."""
    found: Layout = {
        group: {title: ["Multiline", [f"^{name}$" for name in names]] for title, names in charts.items()}
        for group, charts in _LINES.items()
    }
    found["Noise scale"] = {
        "noise scale and its interval of 95 %": ["Margin", list(_NOISE)],
        "noise scale and batch": ["Multiline", [f"^{_NOISE[0]}$", "^train/global_batch$"]],
    }
    return found


def batch_of(record: Mapping[str, object]) -> Mapping[str, float]:
    """The global batch that an event tells of, as a scalar: at a start, and where it changes."""
    batch = record.get("global_batch")
    return {"train/global_batch": batch} if "event" in record and isinstance(batch, int) else {}
