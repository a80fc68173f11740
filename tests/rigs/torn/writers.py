"""Programs that save, each as a framework does, and the proof that a checkpoint holds what was to be saved.

    writers.py save KIND DIRECTORY SEED MEGABYTES      saves step after step until it is ended
    writers.py train KIND LOG SEED MEGABYTES LIVES     the same as the program of a run, which dies in every life but the last

A save is announced on standard output before it begins and after it returned: `begin STEP PATH`, `end STEP PATH`.
What a step holds follows from the seed alone, so that whoever reads a checkpoint can tell whether it is whole.
"""

import json
import os
import pickle
import random
import signal
import struct
import sys
import threading
import time
import zipfile

import numpy


def arrays(seed, step, megabytes):
    """What is to be saved at a step: the same for everybody who asks."""
    source = numpy.random.Generator(numpy.random.PCG64([seed, step]))
    count = int(megabytes * 250_000)
    parts = {f"layer{n}.weight": source.random(max(count // 4, 1), dtype="float32") for n in range(4)}
    # Biases begin as zeros: a tail of zeros that was written is no hole.
    parts["layer9.bias"] = numpy.zeros(2048, dtype="float32")
    parts["step"] = numpy.array([step], dtype="int64")
    return parts


def is_whole(parts, seed, megabytes):
    if "step" not in parts:
        return False
    expected = arrays(seed, int(numpy.asarray(parts["step"]).reshape(-1)[0]), megabytes)
    return set(parts) == set(expected) and all(
        numpy.array_equal(numpy.asarray(parts[name]).reshape(-1), array) for name, array in expected.items()
    )


# --- files written in place ---------------------------------------------------


def savez(path, parts):
    numpy.savez(path, **parts)


def savez_compressed(path, parts):
    numpy.savez_compressed(path, **parts)


def load_npz(path):
    with numpy.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def torch_zip(path, parts):
    """As torch.save writes: stored records in order, the directory at the end, nothing synced."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        keys = {name: (str(array.dtype), array.shape) for name, array in parts.items()}
        archive.writestr("archive/data.pkl", pickle.dumps(keys, protocol=2))
        for number, array in enumerate(parts.values()):
            archive.writestr(f"archive/data/{number}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def load_torch_zip(path):
    with zipfile.ZipFile(path) as archive:
        keys = pickle.loads(archive.read("archive/data.pkl"))
        return {
            name: numpy.frombuffer(archive.read(f"archive/data/{number}"), dtype=dtype).reshape(shape)
            for number, (name, (dtype, shape)) in enumerate(keys.items())
        }


def joblib_plain(path, parts):
    import joblib

    joblib.dump(parts, path)


def joblib_packed(path, parts):
    import joblib

    joblib.dump(parts, path, compress=1)


def load_joblib(path):
    import joblib

    return joblib.load(path)


def scikit_learn(path, parts):
    """A fitted model in a file, as scikit-learn's own guide saves it."""
    import joblib
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    inputs = parts["layer0.weight"][:4000].reshape(-1, 4)
    model = make_pipeline(StandardScaler(), Ridge()).fit(inputs, inputs.sum(axis=1))
    model.parts_ = parts
    joblib.dump(model, path, compress=3)


def load_scikit_learn(path):
    import joblib

    model = joblib.load(path)
    return model.parts_ if model.predict(numpy.ones((1, 4), dtype="float32")).shape == (1,) else {}


def plain_pickle(path, parts):
    with open(path, "wb") as file:
        pickle.dump(parts, file, protocol=4)


def load_pickle(path):
    with open(path, "rb") as file:
        return pickle.load(file)


def safetensors_now(path, parts):
    from safetensors.numpy import save_file

    save_file(parts, path)


def safetensors_bytes(parts):
    at, header = 0, {}
    names = {"float32": "F32", "int64": "I64"}
    for name, array in parts.items():
        header[name] = {
            "dtype": names[str(array.dtype)], "shape": list(array.shape), "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header).encode()
    return [struct.pack("<Q", len(text)) + text, *(array.tobytes() for array in parts.values())], at


def safetensors_in_order(path, parts):
    """As releases up to 0.7: the final name, byte after byte."""
    pieces, _ = safetensors_bytes(parts)
    with open(path, "wb", buffering=0) as file:
        for piece in pieces:
            file.write(piece)


def safetensors_sized_first(path, parts):
    """As 0.8.0-rc0: the final name, and the full size before the first byte."""
    pieces, data = safetensors_bytes(parts)
    with open(path, "wb", buffering=0) as file:
        os.ftruncate(file.fileno(), len(pieces[0]) + data)
        for piece in pieces:
            for at in range(0, len(piece), 1 << 18):
                file.write(piece[at : at + (1 << 18)])


def load_safetensors(path):
    from safetensors.numpy import load_file

    return load_file(path)


def hdf5(path, parts):
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in parts.items():
            file.create_dataset(name, data=array)


def load_hdf5(path):
    import h5py

    with h5py.File(path, "r") as file:
        return {name: file[name][()] for name in file}


# --- directories --------------------------------------------------------------


def hugging_face(path, parts):
    """The order of the Trainer: weights, optimizer, random state, and its own state last and not at once."""
    os.makedirs(path, exist_ok=True)
    step = int(parts["step"][0])
    with open(f"{path}/config.json", "w") as file:
        json.dump({"model_type": "rig"}, file)
    weights = {name: array for name, array in parts.items() if name.startswith("layer")}
    safetensors_in_order(f"{path}/model.safetensors", weights)
    torch_zip(f"{path}/optimizer.pt", {"step": parts["step"]})
    torch_zip(f"{path}/rng_state.pth", {"step": parts["step"]})
    with open(f"{path}/trainer_state.json", "w", buffering=1) as file:
        json.dump({"global_step": step, "log_history": [{"loss": float(n)} for n in range(5000)]}, file)


def load_hugging_face(path):
    json.load(open(f"{path}/trainer_state.json"))
    step = load_torch_zip(f"{path}/optimizer.pt")["step"]
    load_torch_zip(f"{path}/rng_state.pth")
    return {**load_safetensors(f"{path}/model.safetensors"), "step": step}


def distributed(path, parts):
    """PyTorch DCP: data, then `.metadata` renamed into place; a save may go over an older one."""
    os.makedirs(path, exist_ok=True)
    items = list(parts.items())
    for rank in range(2):
        with open(f"{path}/__{rank}_0.distcp", "wb") as file:
            pickle.dump(dict(items[rank::2]), file, protocol=4)
            file.flush()
            os.fsync(file.fileno())
    with open(f"{path}/.metadata.tmp", "wb") as file:
        # It tells where in the data of this very save everything lies.
        pickle.dump((int(parts["step"][0]), sorted(parts)), file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}/.metadata.tmp", f"{path}/.metadata")


def load_distributed(path):
    step, names = load_pickle(f"{path}/.metadata")
    found = {}
    for rank in range(2):
        found.update(load_pickle(f"{path}/__{rank}_0.distcp"))
    return found if sorted(found) == names and found["step"][0] == step else {}


_MANAGERS = {}
# Steps that Orbax keeps; the next older one is what it deletes.
KEPT = 3


def orbax(path, parts):
    import jax

    jax.config.update("jax_platforms", "cpu")
    import orbax.checkpoint as ocp

    root, step = os.path.split(path)
    if root not in _MANAGERS:
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=True)
        _MANAGERS[root] = ocp.CheckpointManager(os.path.abspath(root), options=options)
    _MANAGERS[root].save(int(step), args=ocp.args.StandardSave(dict(parts)))
    _MANAGERS[root].wait_until_finished()


def load_orbax(path):
    import jax

    jax.config.update("jax_platforms", "cpu")
    import orbax.checkpoint as ocp

    item = f"{path}/default"
    with ocp.StandardCheckpointer() as reader:
        return dict(reader.restore(os.path.abspath(item)))


# Name of a checkpoint, how it is saved, how it is read; a name without a number is saved over and over.
KINDS = {
    "savez": ("step-{}.npz", savez, load_npz),
    "savez-over": ("last.npz", savez, load_npz),
    "savez-compressed": ("step-{}.npz", savez_compressed, load_npz),
    "torch-zip": ("step-{}.pt", torch_zip, load_torch_zip),
    "torch-zip-over": ("last.ckpt", torch_zip, load_torch_zip),
    "joblib": ("step-{}.joblib", joblib_plain, load_joblib),
    "joblib-packed": ("step-{}.joblib", joblib_packed, load_joblib),
    "scikit-learn": ("model-{}.joblib", scikit_learn, load_scikit_learn),
    "pickle": ("step-{}.pkl", plain_pickle, load_pickle),
    "safetensors": ("step-{}.safetensors", safetensors_now, load_safetensors),
    "safetensors-in-order": ("step-{}.safetensors", safetensors_in_order, load_safetensors),
    "safetensors-sized-first": ("step-{}.safetensors", safetensors_sized_first, load_safetensors),
    "hdf5": ("step-{}.h5", hdf5, load_hdf5),
    "hugging-face": ("checkpoint-{}", hugging_face, load_hugging_face),
    "distributed": ("step-{}", distributed, load_distributed),
    "distributed-over": ("last", distributed, load_distributed),
    "orbax": ("{}", orbax, load_orbax),
}


def holds(kind, path, seed, megabytes):
    """Whether a checkpoint is there in full and right: read as its framework reads it."""
    try:
        return is_whole(KINDS[kind][2](path), seed, megabytes)
    except Exception:  # whatever a torn file makes a reader do
        return False


def step_of(kind, path):
    """The step that a whole checkpoint says that it holds."""
    return int(numpy.asarray(KINDS[kind][2](path)["step"]).reshape(-1)[0])


def train(kind, log, seed, megabytes, lives):
    """Goes on from what it is given, writes down what it found and saved, and is killed in the middle of a save."""
    name, save, _ = KINDS[kind]
    life, resume = int(os.environ["OUTLAST_GENERATION"]), os.environ["OUTLAST_RESUME_FROM"]
    draw = random.Random(seed * 1000 + life)

    def note(*words):
        with open(log, "a") as file:
            print(life, *words, file=file)

    step = 1
    if resume:
        note("resumed" if holds(kind, resume, seed, megabytes) else "TORN", resume)
        step = step_of(kind, resume) + 1
    # Each dies later than the one before, whatever became durable: two that fail alike at one step end the run.
    last = step + 1 + 2 * life + draw.randrange(2)
    while True:
        path = os.path.join(os.environ["OUTLAST_CHECKPOINT_DIR"], name.format(step))
        parts = arrays(seed, step, megabytes)
        print(json.dumps({"step": step, "loss": 1.0}), flush=True)
        if step == last and life < lives:
            # Somewhere in this save, or right after it.
            took = max(took, 0.01)
            threading.Timer(draw.random() * took * 1.1, os.kill, (os.getpid(), signal.SIGKILL)).start()
        began = time.monotonic()
        save(path, parts)
        took = time.monotonic() - began
        note("saved", step)
        if step >= last and life >= lives:
            return
        step += 1
        # Long enough for some of them to be published while it runs.
        time.sleep(0.6)


def save_on(kind, directory, seed, megabytes):
    name, save, _ = KINDS[kind]
    step = random.Random(seed).randrange(1, 50)
    while True:
        path = os.path.join(directory, name.format(step))
        parts = arrays(seed, step, megabytes)
        print(f"begin {step} {path}", flush=True)
        save(path, parts)
        print(f"end {step} {path}", flush=True)
        step += 1


if __name__ == "__main__":
    verb, kind, place, seed, megabytes, *lives = sys.argv[1:]
    assert verb in ("save", "train"), __doc__
    if verb == "train":
        train(kind, place, int(seed), float(megabytes), int(lives[0]))
    else:
        save_on(kind, place, int(seed), float(megabytes))
