import lightning as L
import torch
from shared import BagOfTokens, texts
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader


def pad(samples):
    tokens = pad_sequence([torch.tensor(s["tokens"]) for s in samples], batch_first=True)
    return {"tokens": tokens, "labels": torch.tensor([s["labels"] for s in samples])}


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = BagOfTokens()

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch["tokens"]), batch["labels"])

    def test_step(self, batch, index):
        right = self.model(batch["tokens"]).argmax(1) == batch["labels"]
        self.log("accuracy", right.float().mean(), sync_dist=True, batch_size=len(right))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


train, test = texts()
trainer = L.Trainer(max_epochs=5)
batch = 64 // trainer.world_size
module = Module()
trainer.fit(module, DataLoader(train, batch, shuffle=True, collate_fn=pad))
trainer.test(module, DataLoader(test, batch, collate_fn=pad))
