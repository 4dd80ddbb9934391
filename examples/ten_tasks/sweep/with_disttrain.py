from functools import partial

from shared import Net, digits
from torch.nn import functional as F

import disttrain

train, test = digits()
loss = partial(F.cross_entropy, reduction="none")
task = disttrain.Supervised(train, test, loss, {"accuracy": lambda outputs, y: outputs.argmax(1) == y})
found = {}
for rate in (1e-3, 3e-3, 1e-2):
    recipe = {"batch": {"global": 128}, "epochs": 3, "optimizer": {"name": "adamw", "lr": rate}}
    recipe["data"] = {"validation": {"fraction": 0.1}}
    found[rate] = disttrain.train(recipe, task=task, model=Net).metrics["validation_accuracy"]
print(max(found, key=found.get), found)
