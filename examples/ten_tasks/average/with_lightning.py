import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from safetensors.torch import save_file
from shared import Net, digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, random_split


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Net()

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


train, test = digits()
train, validation = random_split(train, [1350, 150], torch.Generator().manual_seed(0))
best = ModelCheckpoint(monitor="accuracy", mode="max")
trainer = L.Trainer(max_epochs=5, callbacks=[EMAWeightAveraging(decay=0.95), best])
batch = 128 // trainer.world_size
trainer.fit(Module(), DataLoader(train, batch, shuffle=True), DataLoader(validation, batch))
weights = torch.load(best.best_model_path)["state_dict"]
save_file({k.removeprefix("model."): v for k, v in weights.items()}, "lightning_best.safetensors")
