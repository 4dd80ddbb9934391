import torch
from accelerate import Accelerator
from shared import TwoTowers, digits
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F
from torch.utils.data import DataLoader

accelerator = Accelerator()
train, _ = digits()
model = TwoTowers()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
loader = DataLoader(train, 128 // accelerator.num_processes, shuffle=True, drop_last=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)


def gather(x):
    return torch.cat(all_gather(x)) if accelerator.num_processes > 1 else x


for _ in range(5):
    for x, _ in loader:
        optimizer.zero_grad()
        left, right, scale = model(x)
        all_left, all_right = gather(left), gather(right)  # each process adds its own gradient of all of it
        targets = torch.arange(len(x)) + accelerator.process_index * len(x)
        loss = F.cross_entropy(scale * left @ all_right.T, targets) + F.cross_entropy(
            scale * right @ all_left.T, targets
        )
        accelerator.backward(loss)
        optimizer.step()
accelerator.print(f"loss {loss.item():.4f}")
