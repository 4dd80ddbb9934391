from functools import partial

import torch
from shared import BagOfTokens, texts
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

import disttrain


def pad(samples):
    tokens = pad_sequence([torch.tensor(s["tokens"]) for s in samples], batch_first=True)
    return {"tokens": tokens, "labels": torch.tensor([s["labels"] for s in samples])}


train, test = texts()
loss, accuracy = partial(F.cross_entropy, reduction="none"), {"accuracy": lambda outputs, y: outputs.argmax(1) == y}
task = disttrain.Supervised(train, test, loss, accuracy, collate=pad)
recipe = {"batch": {"global": 64}, "epochs": 5, "optimizer": {"name": "adamw", "lr": 1e-2}}
result = disttrain.train(recipe, task=task, model=BagOfTokens)
print(result.metrics["accuracy"])
