import lightning as L
import torch
from safetensors.torch import load_file
from shared import Net, digits, make_pretrained
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Module(L.LightningModule):
    def __init__(self, model, rate):
        super().__init__()
        self.model, self.rate = model, rate

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def test_step(self, batch, index):
        self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.rate)


train, test = digits()
model = Net()
weights = {k: v for k, v in load_file(make_pretrained()).items() if not k.startswith("head.")}
print(model.load_state_dict(weights, strict=False))
model.body.requires_grad_(False)
for epochs, rate in ((2, 3e-3), (3, 3e-4)):
    trainer = L.Trainer(max_epochs=epochs)
    batch = 128 // trainer.world_size
    module = Module(model, rate)
    trainer.fit(module, DataLoader(train, batch, shuffle=True))
    model.body.requires_grad_(True)
trainer.test(module, DataLoader(test, batch))
