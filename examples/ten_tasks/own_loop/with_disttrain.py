import torch
from shared import Net, digits
from torch.nn import functional as F

import disttrain

with disttrain.init() as engine:
    precision = disttrain.use_precision("bf16", engine.world.device)
    train, test = digits()
    model = engine.prepare(Net())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in disttrain.data.loader(train, engine.world, global_batch=128, epochs=5, device=engine.world.device):
        optimizer.zero_grad()
        x, y = batch.tensors
        with precision.forward_context():
            losses = F.cross_entropy(model(x), y, reduction="none")
        engine.backward(losses, scale=1 / batch.size)
        engine.reduce_gradients()
        optimizer.step()
    right = disttrain.totals(engine, model, test, lambda m, b: {"right": (m(b[0]).argmax(1) == b[1]).sum()})["right"]
    if engine.world.is_main:
        print(f"accuracy {right / len(test):.4f}")
