import lightning as L
import torch
from shared import TwoTowers, digits
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = TwoTowers()

    def training_step(self, batch, _):
        left, right, scale = self.model(batch[0])
        all_left = self.all_gather(left, sync_grads=True).reshape(-1, 16)
        all_right = self.all_gather(right, sync_grads=True).reshape(-1, 16)
        targets = torch.arange(len(left)) + self.global_rank * len(left)
        loss = F.cross_entropy(scale * left @ all_right.T, targets)
        loss = loss + F.cross_entropy(scale * right @ all_left.T, targets)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


train, _ = digits()
trainer = L.Trainer(max_epochs=5)
trainer.fit(Module(), DataLoader(train, 128 // trainer.world_size, shuffle=True, drop_last=True))
