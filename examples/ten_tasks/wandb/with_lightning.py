import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger
from shared import Net, digits
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Net()

    def training_step(self, batch, _):
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, _):
        self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


train, test = digits()
trainer = L.Trainer(max_epochs=5, logger=WandbLogger(project="digits", offline=True), log_every_n_steps=10)
batch = 128 // trainer.world_size
trainer.fit(Module(), DataLoader(train, batch, shuffle=True), DataLoader(test, batch))
