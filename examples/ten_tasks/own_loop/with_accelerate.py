import torch
from accelerate import Accelerator
from shared import Net, digits
from torch.nn import functional as F
from torch.utils.data import DataLoader

accelerator = Accelerator(mixed_precision="bf16")
train, test = digits()
batch = 128 // accelerator.num_processes
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
model, optimizer, train, test = accelerator.prepare(
    model, optimizer, DataLoader(train, batch, shuffle=True), DataLoader(test, batch)
)
for _ in range(5):
    for x, y in train:
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(model(x), y))
        optimizer.step()
correct, seen = 0, 0
for x, y in test:
    outputs, y = accelerator.gather_for_metrics((model(x).argmax(1), y))
    correct, seen = correct + int((outputs == y).sum()), seen + len(y)
accelerator.print(f"accuracy {correct / seen:.4f}")
