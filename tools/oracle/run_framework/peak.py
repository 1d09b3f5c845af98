"""What is allocated at the peak: the allocator's own history, played back to its highest point."""

import os

SKIPPED = ("torch/nn/modules/module.py", "torch/_tensor.py", "torch/autograd/", "torch/utils/_", "torch/amp/")
SHOWN = int(os.environ.get("SHOWN", 24))


def record():
    import torch

    torch.cuda.memory._record_memory_history(max_entries=2_000_000, stacks="python")


def lines():
    """The largest groups at the peak of what was recorded, by the lines of Python that made them."""
    import torch

    snapshot = torch.cuda.memory._snapshot()
    live, at, highest, best = {}, 0, 0, {}
    for event in snapshot["device_traces"][0]:
        if event["action"] == "alloc":
            live[event["addr"]] = event
            at += event["size"]
            if at > highest:
                highest, best = at, dict(live)
        elif event["action"] == "free_completed":
            gone = live.pop(event["addr"], None)
            at -= gone["size"] if gone else 0
    groups = {}
    for event in best.values():
        key = (where(event["frames"]), event["size"])
        groups[key] = groups.get(key, 0) + 1
    ordered = sorted(groups.items(), key=lambda item: -item[0][1] * item[1])
    yield f"{highest / 1e6:10.2f} MB in {len(best)} tensors"
    for (place, size), count in ordered[:SHOWN]:
        yield f"{size * count / 1e6:10.2f} MB = {count:5} x {size / 1e6:9.3f}  {place}"


def where(frames):
    """The innermost three frames that say something."""
    kept = [f for f in frames if f["filename"].endswith(".py") and not any(s in f["filename"] for s in SKIPPED)]
    return " < ".join(f"{os.path.basename(f['filename'])}:{f['line']} {f['name']}" for f in kept[:5])
