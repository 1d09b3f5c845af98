"""The configurations to build: `R` holds `model_type` and fields by name, `CLS` the head."""

R = {}
CLS = {}
KNOWN = {}


def make_config(name, **over):
    from transformers import AutoConfig

    mt, kw = R[name]
    kw = dict(kw)
    kw.update(over)
    return AutoConfig.for_model(mt, **kw)


class _Direct:
    """Classes that no AutoModel knows."""

    def __init__(self, cls):
        self.cls = cls

    def from_config(self, cfg, **kw):
        return self.cls._from_config(cfg, **kw)


def auto_class(name):
    import transformers as t

    if R[name][0] == "mllama_text_model":
        return _Direct(t.MllamaForCausalLM)
    if R[name][0] == "mistral4":
        from transformers.models.mistral4.modeling_mistral4 import Mistral4ForCausalLM

        return _Direct(Mistral4ForCausalLM)
    return {"causal": t.AutoModelForCausalLM, "mlm": t.AutoModelForMaskedLM, "seq2seq": t.AutoModelForSeq2SeqLM}[
        CLS[name]
    ]
