"""What somebody without disttrain does with exported models: ``python plain_torch.py FILE ...`` counts the correct samples.

A FILE may be followed by ``@bf16``: its model is then run under autocast. The test set is ``x.npy`` and ``y.npy`` beside the
first one. Prints one number a file.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.modules["disttrain"] = None  # type: ignore[assignment]  # importing it is an error
sys.modules["torchao"] = None  # type: ignore[assignment]


class Net(nn.Module):
    """The model as a user of plain torch would write it: batch norm where disttrain has ghosts."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in ((64, 48), (48, 32)):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(0.0)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def outputs(path: str, x: torch.Tensor) -> torch.Tensor:
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    if path.endswith(".pt2"):
        return torch.export.load(path).module()(x)
    from safetensors.torch import load_file

    weights = load_file(path)
    model = Net().to(x.dtype)
    model.load_state_dict(weights, strict=True)
    return model.eval()(x)


def main() -> None:
    data = Path(sys.argv[1]).parent
    x, y = (torch.from_numpy(np.load(data / f"{name}.npy")) for name in "xy")
    for word in sys.argv[1:]:
        path, _, mode = word.partition("@")
        dtype = torch.float64 if "fp64" in Path(path).name else torch.float32
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "bf16"):
            print(int((outputs(path, x.to(dtype)).argmax(1) == y).sum()))


main()
