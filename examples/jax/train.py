"""Trains a small JAX network on two interleaved half moons and resumes by itself from Orbax checkpoints."""

import os

# One thread and one platform: sums in a fixed order, the same bits at the end of every run.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import hashlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

STEPS = int(os.environ.get("MOONS_STEPS") or "400")
STEP_SECONDS = float(os.environ.get("MOONS_STEP_MS") or "100") / 1000
SAVE_EVERY, BATCH, HIDDEN, RATE = 20, 128, 64, 3e-3


def two_moons(seed, count):
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, count)
    angle = rng.uniform(0, np.pi, count)
    x = np.where(side == 0, np.cos(angle), 1 - np.cos(angle))
    y = np.where(side == 0, np.sin(angle), 0.5 - np.sin(angle))
    points = np.stack([x, y], axis=1) + rng.normal(0, 0.15, (count, 2))
    return jnp.asarray(points, jnp.float32), jnp.asarray(side, jnp.float32)


def initial_state():
    first, second, third, draws = jax.random.split(jax.random.PRNGKey(3), 4)
    params = {
        "w1": jax.random.normal(first, (2, HIDDEN)) * 0.7,
        "b1": jnp.zeros(HIDDEN),
        "w2": jax.random.normal(second, (HIDDEN, HIDDEN)) * 0.18,
        "b2": jnp.zeros(HIDDEN),
        "w3": jax.random.normal(third, (HIDDEN, 1)) * 0.18,
        "b3": jnp.zeros(1),
    }
    zeros = jax.tree.map(jnp.zeros_like, params)
    return {"params": params, "mean": zeros, "square": zeros, "key": draws, "step": jnp.int32(0)}


def scores(params, x):
    hidden = jax.nn.relu(x @ params["w1"] + params["b1"])
    hidden = jax.nn.relu(hidden @ params["w2"] + params["b2"])
    return (hidden @ params["w3"] + params["b3"])[:, 0]


def loss_of(params, x, y):
    z = scores(params, x)
    return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))


@jax.jit
def advance(state, x, y):
    """One step of Adam on a minibatch drawn with the key that the state carries."""
    key, draw = jax.random.split(state["key"])
    chosen = jax.random.randint(draw, (BATCH,), 0, x.shape[0])
    loss, gradients = jax.value_and_grad(loss_of)(state["params"], x[chosen], y[chosen])
    step = state["step"] + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["mean"], gradients)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, state["square"], gradients)
    down, up = 1 - 0.9**step, 1 - 0.999**step
    params = jax.tree.map(
        lambda p, m, s: p - RATE * (m / down) / (jnp.sqrt(s / up) + 1e-8), state["params"], mean, square
    )
    return {"params": params, "mean": mean, "square": square, "key": key, "step": step}, loss


@jax.jit
def accuracy(params, x, y):
    return jnp.mean((scores(params, x) > 0) == (y > 0.5))


def main():
    train, test = two_moons(1, 2000), two_moons(2, 1000)
    state = initial_state()
    options = ocp.CheckpointManagerOptions(save_interval_steps=SAVE_EVERY, max_to_keep=5)
    with ocp.CheckpointManager(os.path.abspath("runs/exp"), options=options) as manager:
        latest = manager.latest_step()
        if latest is not None:
            state = manager.restore(latest, args=ocp.args.StandardRestore(state))
            print(f"resumed from runs/exp/{latest}", flush=True)
        fresh = not os.path.exists("metrics.csv")
        with open("metrics.csv", "a", encoding="utf-8", buffering=1) as table:
            if fresh:
                table.write("step,loss,acc\n")
            for step in range(int(state["step"]) + 1, STEPS + 1):
                due = time.monotonic() + STEP_SECONDS
                state, loss = advance(state, *train)
                acc = accuracy(state["params"], *test)
                table.write(f"{step},{loss:.6f},{acc:.4f}\n")
                print(f"step: {step} | loss: {loss:.6f} | acc: {acc:.4f}", flush=True)
                manager.save(step, args=ocp.args.StandardSave(state))
                time.sleep(max(0.0, due - time.monotonic()))
        manager.wait_until_finished()
    os.makedirs("results", exist_ok=True)
    flat = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(state["params"])])
    path = os.path.join("results", "weights.npy")
    np.save(path, flat.astype("<f8"))
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"finished after {int(state['step'])} steps, weights sha256 {digest}", flush=True)


if __name__ == "__main__":
    main()
