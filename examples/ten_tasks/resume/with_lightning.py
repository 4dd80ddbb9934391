import os

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from shared import Net, digits
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Net()

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


train, _ = digits()
save = ModelCheckpoint("lightning_state", every_n_train_steps=10, save_last=True)
trainer = L.Trainer(max_epochs=5, callbacks=[save])
loader = DataLoader(train, 128 // trainer.world_size, shuffle=True)
last = "lightning_state/last.ckpt" if os.path.exists("lightning_state/last.ckpt") else None
trainer.fit(Module(), loader, ckpt_path=last)  # exact at the ends of epochs only
