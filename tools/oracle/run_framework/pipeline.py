"""One rank of PyTorch's pipeline over the fake process group.

The stages and schedules are PyTorch's own. What a rank cannot learn without its neighbours is the
shape of the hidden states; a run gives it. Receives leave their buffers as they are.
"""

import os

RANK = "PIPELINE_RANK"


def of_file(path):
    """The pipeline rank that a file's first comment names (`# pipeline rank 1`); the first otherwise."""
    first = path.read_text().splitlines()[0]
    words = first.split()
    return int(words[3]) if words[:3] == ["#", "pipeline", "rank"] else int(os.environ.get(RANK, 0))


def over_fake_group(shape, dtype):
    """Lets stages run whose hidden states have this shape and dtype on each rank."""
    import torch
    from torch.distributed.pipelining import _utils, schedules, stage

    meta = _utils._TensorMeta(torch.Size(shape), torch.empty(shape, device="meta").stride(), dtype, True)
    gradient = _utils._derive_grad_metas((meta,))

    def received(self, source):
        if source < self.stage_index:
            return _utils._StageForwardMeta((meta,))
        return _utils._StageBackwardMeta(gradient)

    def sent(self, described, target):
        (found,) = described.forward_metas if target > self.stage_index else described.backward_metas
        assert (found.shape, found.dtype) == (meta.shape, meta.dtype), f"hidden states are {found}, not {meta}"

    stage.PipelineStage._recv_meta = received
    stage.PipelineStage._send_meta = sent

    # What its neighbours would be told, a fake group refuses.
    def initialize(self, stages, has_backward, initialize_p2p):
        for one in stages:
            one._inference_mode = _utils.InferenceMode.DYNAMIC

    schedules._PipelineSchedule._initialize_pipeline_distributed_state = initialize
