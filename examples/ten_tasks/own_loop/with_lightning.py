import lightning as L
import torch
from shared import Net, digits
from torch.nn import functional as F
from torch.utils.data import DataLoader

fabric = L.Fabric(precision="bf16-mixed")
fabric.launch()
train, test = digits()
batch = 128 // fabric.world_size
model = Net()
model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=3e-3))
train, test = fabric.setup_dataloaders(DataLoader(train, batch, shuffle=True), DataLoader(test, batch))
for _ in range(5):
    for x, y in train:
        optimizer.zero_grad()
        fabric.backward(F.cross_entropy(model(x), y))
        optimizer.step()
counts = torch.zeros(2)
for x, y in test:
    counts += torch.tensor([(model(x).argmax(1) == y).sum(), len(y)])
correct, seen = fabric.all_reduce(counts, reduce_op="sum")
fabric.print(f"accuracy {correct / seen:.4f}")
