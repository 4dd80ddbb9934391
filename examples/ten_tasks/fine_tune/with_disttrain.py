from functools import partial

from shared import Net, digits, make_pretrained
from torch.nn import functional as F

import disttrain

train, test = digits()
loss = partial(F.cross_entropy, reduction="none")
task = disttrain.Supervised(train, test, loss, {"accuracy": lambda outputs, y: outputs.argmax(1) == y})
recipe = {
    "start_from": {"path": str(make_pretrained()), "exclude": ["head.*"]},
    "stages": [{"epochs": 2, "trainable": ["head.*"]}, {"lr_factor": 0.1}],
    "batch": {"global": 128},
    "epochs": 5,
    "optimizer": {"name": "adamw", "lr": 3e-3},
}
result = disttrain.train(recipe, task=task, model=Net)
print(result.metrics["accuracy"])
