import lightning as L
import torch
from shared import Net, digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, random_split


class Module(L.LightningModule):
    def __init__(self, rate):
        super().__init__()
        self.model, self.rate = Net(), rate

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.rate)


train, _ = digits()
train, held_out = random_split(train, [1350, 150], torch.Generator().manual_seed(0))
found = {}
for rate in (1e-3, 3e-3, 1e-2):
    L.seed_everything(0)
    trainer = L.Trainer(max_epochs=3)
    batch = 128 // trainer.world_size
    trainer.fit(Module(rate), DataLoader(train, batch, shuffle=True), DataLoader(held_out, batch))
    found[rate] = float(trainer.callback_metrics["accuracy"])
print(max(found, key=found.get), found)
