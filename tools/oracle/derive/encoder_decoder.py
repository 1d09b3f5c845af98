"""Traces encoder-decoders and prints their blocks: `encoder_decoder.py FAMILY,FAMILY > blocks.txt`.

Three sizes: short feed-forwards (attention's point), wide ones (the MLP's), long targets (self-attention's). Encoder and
decoder are deepened apart, so that each side's blocks are told from the other's. What is alive beside a side's layers
is read off at one of its layers, the layers' own blocks and the residual streams' gradients taken away.
"""

import collections
import sys

import tracing as D

import models as M

SHARED = dict(d_model=448, vocab_size=6080, decoder_start_token_id=0)
T5 = dict(SHARED, d_kv=40, num_heads=14, tie_word_embeddings=True)
BART = dict(
    SHARED, encoder_attention_heads=14, decoder_attention_heads=14, max_position_embeddings=8192, pad_token_id=1
)
FAMILIES = {
    "t5": ("t5", T5, lambda f: dict(d_ff=f)),
    "t5-gated": ("t5", dict(T5, tie_word_embeddings=False, feed_forward_proj="gated-gelu"), lambda f: dict(d_ff=f)),
    "bart": ("bart", BART, lambda f: dict(encoder_ffn_dim=f, decoder_ffn_dim=f)),
}
SIZES = {"attention": (13, 704, 184, 832), "mlp": (23, 104, 88, 4352), "self": (13, 184, 704, 832)}
PRODUCTS = (
    "N;N*d;N*f;N*q;N*h;B*h*S*S;h*S*S;S*S;B*S*S;M;M*d;M*f;M*q;M*h;M*V;B*h*L*L;h*L*L;B*h*L*S;L*L;B*L*S;B*L*L;"
    "d*d;d*f;d*q;V*d;d;f;q;V;B*S;B;L;S"
).split(";")
WEIGHTS = ("d", "f", "d*f", "d*q", "d*d", "V*d", "q", "V")


def up(x, step):
    return -(-x // step) * step


class Names:
    """Sizes to products of symbols; scratch of the kernels is padded, and named by what it is without."""

    def __init__(self, family, size):
        B, S, L, f = SIZES[size]
        width = 32 if family == "bart" else 40
        s = dict(N=B * S, B=B, S=S, L=L, M=B * L, d=448, f=f, q=14 * width, h=14, V=6080)
        self.table = []
        for product in PRODUCTS:
            value = 1
            for symbol in product.split("*"):
                value *= s[symbol]
            self.table.append((value, product))
        self.known = {}
        for tokens, length, side in (("N", S, "S"), ("M", L, "L")):
            blocks = up(length, 64)
            self.known[4 * B * 14 * (blocks * up(width, 64) + blocks // 64 * 4)] = [(4, tokens + "*q")]
            flash = 4 * B * 14 * up(length, 128) * (up(width, 32) + 1)
            self.known[flash] = [(4, tokens + "*q"), (4, tokens + "*h")]
            self.known[4 * B * 14 * up(length, 32)] = [(4, tokens + "*h")]
            for x in (1, 2, 4):
                self.known[x * B * length * 448] = [(x, tokens + "*d")]
                self.known[x * B * 14 * length * length] = [(x, f"B*h*{side}*{side}")]
        for x in (1, 2, 4):
            self.known[x * 14 * L * S] = [(x, "h*L*S")]
            self.known[x * B * 14 * L * S] = [(x, "B*h*L*S")]

    def of(self, size):
        return self.known.get(size) or [D.name(size, self.table)]

    def rise(self, segment):
        """What a segment's peak holds more than its start."""
        count = collections.Counter()
        start = {v[0] for v in segment["live0"].values()}
        peak = {v[0] for v in segment["livepk"].values()}
        for sign, blocks, other in ((1, segment["livepk"], start), (-1, segment["live0"], peak)):
            for index, size, _ in blocks.values():
                if index not in other and size > 64:
                    for c, m in self.of(size):
                        count[m] += sign * c
        return count

    def start(self, trace, segment):
        """What a segment's start holds of this step, gradients of weights apart."""
        count = collections.Counter()
        for index, size, _ in segment["live0"].values():
            if index > trace.last and size > 64:
                for c, m in self.of(size):
                    if m not in WEIGHTS:
                        count[m] += c
        return count


def run(family, depths, mode, attention, checkpointing, dropout, size):
    B, S, L, f = SIZES[size]
    kind, config, feed_forward = FAMILIES[family]
    M.R["_" + family], M.CLS["_" + family], M.KNOWN["_" + family] = (kind, config), "seq2seq", None
    names = ("encoder_layers", "decoder_layers") if kind == "bart" else ("num_layers", "num_decoder_layers")
    dtype, autocast = {"bf16": ("bf16", "none"), "fp32": ("fp32", "none"), "autocast": ("fp32", "bf16")}[mode]
    job = dict(micro_batch=B, seq_len=S, tgt_len=L, param_dtype=dtype, autocast=autocast, attn=attention)
    job.update(model="_" + family, cfg=dict(zip(names, depths), **feed_forward(f)), ckpt=checkpointing)
    return D.trace(dict(job, dropout=dropout, steps=1, optimizer="none"))


def layers(trace):
    return [s for s in trace.segs if s["name"] == "layer"]


def last(trace, name):
    return [s for s in trace.segs if s["name"] == name][-1]


def less(count, other, times=1):
    count = collections.Counter(count)
    for m, c in other.items():
        count[m] -= times * c
    return count


def derive(family, mode, attention, checkpointing, dropout):
    names = Names(family, "attention")
    depths = ((2, 2), (4, 2), (2, 4), (4, 4))
    traces = {d: run(family, d, mode, attention, checkpointing, dropout, "attention") for d in depths}
    kept = {d: collections.Counter((v[1], v[2] == "fwd_head") for v in t.fe) for d, t in traces.items()}
    encoder, decoder, body, head = (collections.Counter() for _ in range(4))
    for key in set(kept[2, 2]) | set(kept[4, 2]) | set(kept[2, 4]):
        one = kept[2, 2][key]
        e, d = (kept[4, 2][key] - one) / 2, (kept[2, 4][key] - one) / 2
        for c, m in names.of(key[0]):
            encoder[m] += e * c
            decoder[m] += d * c
            (head if key[1] else body)[m] += (one - 2 * e - 2 * d) * c
    whole = traces[4, 4]
    segments = layers(whole)
    stream = 2 if mode == "bf16" else 4
    stays = {m: c for m, c in body.items() if not m.startswith("M")}
    beside = less(less(less(names.start(whole, segments[2]), decoder, 2), encoder, 4), stays)
    parts = {
        "layer": decoder,
        "encoder-layer": encoder,
        "body": body,
        "head": head,
        "head-forward": names.rise(last(whole, "fwd_head")),
        "loss-backward": names.rise(last(whole, "bwd_head")),
        "transient": names.rise(segments[1]),
        "encoder-transient": names.rise(segments[5]),
        "decoder-beside": less(beside, {"M*d": stream, "N*d": stream}),
        "encoder-beside": less(less(names.start(whole, segments[6]), encoder, 2), {"N*d": stream}),
    }
    for size in ("mlp", "self"):
        other = layers(run(family, (4, 4), mode, attention, checkpointing, dropout, size))
        parts["transient-" + size] = Names(family, size).rise(other[1])
        if size == "mlp":
            parts["encoder-transient-mlp"] = Names(family, size).rise(other[5])
    return parts


def written(count):
    terms = [(m, c) for m, c in count.items() if abs(c) > 1e-9 and m != "1"]
    terms.sort(key=lambda t: (-t[0].count("*"), t[0]))
    return " + ".join(f"{c:g}*{m}" for m, c in terms)


def main():
    once = ("head", "head-forward", "loss-backward")
    for family in sys.argv[1].split(","):
        for mode in ("bf16", "fp32", "autocast"):
            for attention in ("sdpa", "eager"):
                for dropout in (0.0, None):
                    print(f"[{family} {mode} {attention}{' dropout' if dropout is None else ''}]")
                    for checkpointing, prefix in (("none", ""), ("full", "checkpoint-")):
                        for part, count in derive(family, mode, attention, checkpointing, dropout).items():
                            if written(count) and not (prefix and part in once):
                                print(f"{prefix}{part} = {written(count)}")
                    print(flush=True)


if __name__ == "__main__":
    main()
