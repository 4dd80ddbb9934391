import lightning as L
import torch
from shared import Net, digits
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Net()

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def test_step(self, batch, index):
        self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


train, test = digits()
trainer = L.Trainer(max_epochs=5)
batch = 128 // trainer.world_size
module = Module()
trainer.fit(module, DataLoader(train, batch, shuffle=True))
trainer.test(module, DataLoader(test, batch))
