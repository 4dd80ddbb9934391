import torch
from accelerate import Accelerator
from shared import Net, digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, random_split

accelerator = Accelerator()
train_set, _ = digits()
train_set, held_out = random_split(train_set, [1350, 150], torch.Generator().manual_seed(0))
batch = 128 // accelerator.num_processes
found = {}
for rate in (1e-3, 3e-3, 1e-2):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model, optimizer, train, validation = accelerator.prepare(
        model, optimizer, DataLoader(train_set, batch, shuffle=True), DataLoader(held_out, batch)
    )
    for _ in range(3):
        for x, y in train:
            optimizer.zero_grad()
            accelerator.backward(F.cross_entropy(model(x), y))
            optimizer.step()
    correct, seen = 0, 0
    for x, y in validation:
        outputs, y = accelerator.gather_for_metrics((model(x).argmax(1), y))
        correct, seen = correct + int((outputs == y).sum()), seen + len(y)
    found[rate] = correct / seen
accelerator.print(max(found, key=found.get), found)
