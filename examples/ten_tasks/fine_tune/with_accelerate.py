import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from shared import Net, digits, make_pretrained
from torch.nn import functional as F
from torch.utils.data import DataLoader

accelerator = Accelerator()
train, test = digits()
batch = 128 // accelerator.num_processes
model = Net()
weights = {k: v for k, v in load_file(make_pretrained()).items() if not k.startswith("head.")}
print(model.load_state_dict(weights, strict=False))
model.body.requires_grad_(False)
for epochs, rate in ((2, 3e-3), (3, 3e-4)):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(train, batch, shuffle=True))
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            accelerator.backward(F.cross_entropy(wrapped(x), y))
            optimizer.step()
    model.body.requires_grad_(True)
correct, seen = 0, 0
for x, y in accelerator.prepare(DataLoader(test, batch)):
    outputs, y = accelerator.gather_for_metrics((model(x).argmax(1), y))
    correct, seen = correct + int((outputs == y).sum()), seen + len(y)
accelerator.print(f"accuracy {correct / seen:.4f}")
