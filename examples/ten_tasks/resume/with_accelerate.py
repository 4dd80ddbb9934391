import os

import torch
from accelerate import Accelerator
from shared import Net, digits
from torch.nn import functional as F
from torch.utils.data import DataLoader

accelerator = Accelerator()
train, _ = digits()
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
loader = DataLoader(train, 128 // accelerator.num_processes, shuffle=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
seen, begin = torch.zeros(1), 0
accelerator.register_for_checkpointing(position := torch.nn.Module())
position.register_buffer("seen", seen)
if os.path.isdir("accelerate_state"):
    accelerator.load_state("accelerate_state")
    begin = int(position.seen)
for epoch in range(begin // 1500, 5):
    done = (
        begin - epoch * 1500 if epoch == begin // 1500 else 0
    )  # in samples: the batch of a process may be another now
    skip = done // 128
    for x, y in accelerator.skip_first_batches(loader, skip) if skip else loader:
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(model(x), y))
        optimizer.step()
        position.seen += accelerator.reduce(torch.tensor(float(len(y))))
        if position.seen % 1280 == 0:
            accelerator.save_state("accelerate_state")
accelerator.save_state("accelerate_state")
