"""Slides out of a bucket as a PyTorch data set, for a training loop of one's own: python own_loop.py pretrain.yaml [STEPS]

Started again, it goes on with the very next batch. Works with torchdata's StatefulDataLoader(patches, batch_size=None) as well.
"""

import json
import pathlib
import sys

import torch

from patho_api import resource
from patho_trainer.data import index, loader, storage

spec = resource.load(sys.argv[1])[0].spec
steps = int(sys.argv[2]) if len(sys.argv) > 2 else spec.training.steps
bucket = storage.Bucket(spec.slides.storage)
slides = index.build([spec.slides.source], spec.slides.index, foreground=spec.slides.foreground, patches=spec.patches, bucket=bucket)
patches = loader.Patches(slides, spec, seed=spec.training.seed, bucket=bucket)

state = pathlib.Path("own-loop.json")
if state.exists():
    patches.load_state_dict(json.loads(state.read_text()))

model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 16, 16), torch.nn.Flatten(), torch.nn.LazyLinear(16))  # yours goes here
for batch in torch.utils.data.DataLoader(patches, batch_size=None):
    images = batch.images.permute(0, 3, 1, 2) / 255  # uint8 (B, H, W, 3) to (B, 3, H, W)
    print(batch.step, f"{model(images).square().mean():.4f}", batch.requests[0], flush=True)
    state.write_text(json.dumps(patches.state_dict()))
    if batch.step + 1 >= steps:
        break
