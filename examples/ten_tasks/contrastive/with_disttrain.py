from shared import TwoTowers, digits
from torch.nn import functional as F

import disttrain


class Pairs(disttrain.Task):
    over_global_batch = True

    def train_dataset(self):
        return digits()[0]

    test_dataset = train_dataset

    def losses(self, model, batch):
        left, right, scale = model(batch[0])
        own, gather = self.global_batch.own(left.device), self.global_batch.gather
        forth = F.cross_entropy(scale * left @ gather(right).T, own, reduction="none")
        return forth + F.cross_entropy(scale * right @ gather(left).T, own, reduction="none")


recipe = {"batch": {"global": 128}, "epochs": 5, "optimizer": {"name": "adamw", "lr": 3e-3}, "evaluate": None}
disttrain.train(recipe, task=Pairs, model=TwoTowers)
