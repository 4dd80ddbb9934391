import torch
from accelerate import Accelerator
from shared import BagOfTokens, texts
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader


def pad(samples):
    tokens = pad_sequence([torch.tensor(s["tokens"]) for s in samples], batch_first=True)
    return {"tokens": tokens, "labels": torch.tensor([s["labels"] for s in samples])}


accelerator = Accelerator()
train, test = texts()
batch = 64 // accelerator.num_processes
model = BagOfTokens()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
model, optimizer, train, test = accelerator.prepare(
    model, optimizer, DataLoader(train, batch, shuffle=True, collate_fn=pad), DataLoader(test, batch, collate_fn=pad)
)
for _ in range(5):
    for sample in train:
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(model(sample["tokens"]), sample["labels"]))
        optimizer.step()
correct, seen = 0, 0
for sample in test:
    outputs, y = accelerator.gather_for_metrics((model(sample["tokens"]).argmax(1), sample["labels"]))
    correct, seen = correct + int((outputs == y).sum()), seen + len(y)
accelerator.print(f"accuracy {correct / seen:.4f}")
