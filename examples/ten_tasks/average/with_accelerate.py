import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from shared import Net, digits
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, random_split

accelerator = Accelerator()
train, test = digits()
train, validation = random_split(train, [1350, 150], torch.Generator().manual_seed(0))
batch = 128 // accelerator.num_processes
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
model, optimizer, train, validation = accelerator.prepare(
    model, optimizer, DataLoader(train, batch, shuffle=True), DataLoader(validation, batch)
)
average = AveragedModel(accelerator.unwrap_model(model), multi_avg_fn=get_ema_multi_avg_fn(0.95))
best = 0.0
for _ in range(5):
    for x, y in train:
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(model(x), y))
        optimizer.step()
        average.update_parameters(accelerator.unwrap_model(model))
    correct, seen = 0, 0
    for x, y in validation:
        outputs, y = accelerator.gather_for_metrics((average(x).argmax(1), y))
        correct, seen = correct + int((outputs == y).sum()), seen + len(y)
    if correct / seen > best and accelerator.is_main_process:
        save_file(average.module.state_dict(), "accelerate_best.safetensors")
    best = max(best, correct / seen)
