from functools import partial

from safetensors.torch import save_file
from shared import Net, digits
from torch.nn import functional as F

import disttrain

train, test = digits()
loss = partial(F.cross_entropy, reduction="none")
task = disttrain.Supervised(train, test, loss, {"accuracy": lambda outputs, y: outputs.argmax(1) == y})
recipe = {
    "batch": {"global": 128},
    "epochs": 5,
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "average": {"kind": "ema", "half_life": {"samples": 1700}},
    "data": {"validation": {"fraction": 0.1}},
}
result = disttrain.train(recipe, task=task, model=Net)
save_file(result.model("best").state_dict(), "disttrain_best.safetensors")
