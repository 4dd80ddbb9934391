from functools import partial

from shared import Net, digits
from torch.nn import functional as F

import disttrain

train, test = digits()
task = disttrain.Supervised(train, test, partial(F.cross_entropy, reduction="none"))
recipe = {
    "batch": {"global": 128},
    "epochs": 5,
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "checkpoint": {"every_steps": 10},
}
disttrain.train(recipe, task=task, model=Net, run_dir="disttrain_state", resume="auto")
