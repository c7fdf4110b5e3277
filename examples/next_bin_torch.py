"""Train a recurrent next-bin model with torch on a pile, resumably, and evaluate it on sessions that it has not seen.

    pip install 'neuralpile-dagster[train]'
    python examples/next_bin_torch.py ~/.neuralpile-demo/hub/local/neural-pile --checkpoint model.pt

One GRU, shared by all units, sees a unit's spike count and the population's mean in every bin and predicts the unit's
count in the next. Run it again with the same checkpoint to train on: it sees the batches that come next. Under
``torchrun`` each process takes its share of the batches (wrap the model for gradients to be shared).
"""

import argparse
import math
import os
from pathlib import Path

import torch
from torch.nn.functional import poisson_nll_loss
from torch.utils.data import DataLoader

from neuralpile_dagster.reading import Pile, Windows


class NextBin(torch.nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.recurrent = torch.nn.GRU(2, width, batch_first=True)
        self.readout = torch.nn.Linear(width, 1)

    def forward(self, counts, mask):
        """Log rates of bins 1, 2, ...: float32 (units of all windows, bins - 1)."""
        counts = counts.float()
        population = (counts.sum(1, keepdim=True) / mask.sum(1)[:, None, None]).expand_as(counts)
        hidden, _ = self.recurrent(torch.stack([counts, population], -1)[mask][:, :-1])
        return self.readout(hidden).squeeze(-1)


def evaluate(model, loader):
    """Bits per spike by which the model predicts better than the mean count of these sessions."""
    loss = spikes = tokens = 0.0
    with torch.no_grad():
        for batch in loader:
            target = batch["counts"][batch["mask"]][:, 1:].float()
            loss += poisson_nll_loss(model(batch["counts"], batch["mask"]), target, reduction="sum").item()
            spikes, tokens = spikes + target.sum().item(), tokens + target.numel()
    baseline = spikes - spikes * math.log(spikes / tokens)
    return (baseline - loss) / spikes / math.log(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pile", help="a local hub's folder, owner/name on the Hugging Face Hub, or s3://...")
    parser.add_argument("--hold-out", nargs="*", help="selectors; default: one session of each dataset")
    parser.add_argument("--bins", type=int, default=100)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)  # for so small a model several would mostly wait for each other
    pile = Pile.open(options.pile)
    held = dict(zip(pile.segments["source_dataset"].to_pylist(), pile.segments["session_id"].to_pylist()))
    hold_out = options.hold_out or [f"session:{dataset}/{session}" for dataset, session in held.items()]
    chosen = {"split": None, "hold_out": hold_out, "batch_size": 4}
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    windows = Windows(pile, options.bins, **chosen, epochs=None, rank=rank, world=world)

    model = NextBin()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    if options.checkpoint and options.checkpoint.exists():
        saved = torch.load(options.checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        windows.load_state_dict(saved["windows"])
        print(f"resuming after {saved['windows']}")

    loader = DataLoader(windows, batch_size=None, num_workers=options.workers)
    for step, batch in zip(range(1, options.steps + 1), loader):
        target = batch["counts"][batch["mask"]][:, 1:].float()
        loss = poisson_nll_loss(model(batch["counts"], batch["mask"]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == options.steps:
            print(f"epoch {batch['epoch']}, batch {batch['index']}: loss {loss.item():.4f}", flush=True)
            if options.checkpoint and rank == 0:
                saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**saved, "windows": windows.state_dict(batch)}, options.checkpoint)

    unseen = Windows(pile, options.bins, **chosen, held_out=True, shuffle=False)
    score = evaluate(model, DataLoader(unseen, batch_size=None, num_workers=options.workers))
    print(f"held-out sessions: {score:.3f} bits per spike above their mean rate")


if __name__ == "__main__":
    main()
