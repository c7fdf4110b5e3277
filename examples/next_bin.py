"""Train a next-bin model on a pile and evaluate it on sessions that it has not seen; numpy alone.

    python examples/next_bin.py ~/.neuralpile-demo/hub/local/neural-pile

The model predicts every unit's spike count in a bin from what came before: traces of its own spikes and of the
population's, at three time constants, weighted and passed through a softplus. `next_bin_torch.py` is the same
job with a recurrent network.
"""

import argparse

import numpy as np

from neuralpile_dagster.reading import Pile, Windows

DECAY = 1 - 1 / np.array([2.0, 8.0, 32.0])  # of the traces, per bin


def features(counts):
    """What is known before each bin: float32 (windows, units, bins, 7)."""
    spikes = np.stack([counts, np.broadcast_to(counts.mean(1, keepdims=True), counts.shape)], -1).astype(np.float32)
    traces = np.zeros((*counts.shape, 2, len(DECAY)), np.float32)
    for t in range(1, counts.shape[2]):
        traces[:, :, t] = DECAY * traces[:, :, t - 1] + (1 - DECAY) * spikes[:, :, t - 1, :, None]
    return np.concatenate([traces.reshape(*counts.shape, -1), np.ones((*counts.shape, 1), np.float32)], -1)


def rates(weights, known):
    """Expected spikes per bin, and the derivative by what goes into the softplus."""
    drive = known @ weights
    return np.logaddexp(0, drive) + 1e-6, 1 / (1 + np.exp(-drive))


def train(windows, steps):
    """Fit the weights by Adam on the Poisson log-likelihood; give them and the mean count of a bin."""
    weights, slow, fast = np.zeros(7), np.zeros(7), np.zeros(7)
    weights[-1] = -3
    spikes = tokens = 0
    for step, batch in zip(range(1, steps + 1), windows):
        counts, mask = batch["counts"], batch["mask"]
        known = features(counts)
        rate, slope = rates(weights, known)
        error = ((1 - counts / rate) * slope)[mask]
        gradient = np.einsum("nt,ntf->f", error, known[mask]) / error.size
        slow, fast = 0.9 * slow + 0.1 * gradient, 0.99 * fast + 0.01 * gradient**2
        weights -= 0.05 * (slow / (1 - 0.9**step)) / (np.sqrt(fast / (1 - 0.99**step)) + 1e-8)
        spikes, tokens = spikes + int(counts[mask].sum()), tokens + error.size
        if step % 50 == 0:
            loss = float((rate - counts * np.log(rate))[mask].mean())
            print(f"step {step}: loss {loss:.4f}, resume from {windows.state_dict(batch)}")
    return weights, spikes / tokens


def evaluate(windows, weights, mean):
    """Bits per spike by which the model predicts better than the mean count of training."""
    gain = spikes = 0.0
    for batch in windows:
        counts, mask = batch["counts"], batch["mask"]
        rate, _ = rates(weights, features(counts))
        gain += float((counts * np.log(rate / mean) - rate + mean)[mask].sum())
        spikes += float(counts[mask].sum())
    return gain / spikes / np.log(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pile", help="a local hub's folder, owner/name on the Hugging Face Hub, or s3://...")
    parser.add_argument("--hold-out", nargs="*", help="selectors; default: one session of each dataset")
    parser.add_argument("--bins", type=int, default=200)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()

    pile = Pile.open(options.pile)
    held = dict(zip(pile.segments["source_dataset"].to_pylist(), pile.segments["session_id"].to_pylist()))
    hold_out = options.hold_out or [f"session:{dataset}/{session}" for dataset, session in held.items()]
    print(f"{pile}, held out: {', '.join(hold_out)}")

    windows = Windows(pile, options.bins, split=None, hold_out=hold_out, batch_size=8, epochs=None)
    weights, mean = train(windows, options.steps)
    unseen = Windows(pile, options.bins, split=None, hold_out=hold_out, held_out=True, batch_size=8, shuffle=False)
    print(f"held-out sessions: {evaluate(unseen, weights, mean):.3f} bits per spike above the mean rate")


if __name__ == "__main__":
    main()
