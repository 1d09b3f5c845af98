//! Encoders with their masked-language-modelling head, and encoder-decoders.

use super::{Place, Role, build::Build};
use crate::catalog::Family;

pub(super) fn model(b: &mut Build<'_>) -> Result<(), String> {
    match b.a.family {
        Family::Bert | Family::Roberta => bert(b),
        Family::DistilBert => distilbert(b),
        Family::Albert => albert(b)?,
        Family::ModernBert => modernbert(b),
        Family::T5 => t5(b)?,
        _ => bart(b)?,
    }
    Ok(())
}

fn need(b: &Build<'_>, key: &str) -> Result<u64, String> {
    b.a.dimension(key)?.ok_or_else(|| format!("`{key}` is missing"))
}

fn bert_embeddings(b: &mut Build<'_>, prefix: &str, width: u64) {
    let a = b.a;
    b.at(Place::Embedding, prefix);
    b.embedding("word_embeddings", a.vocab_size, width);
    b.positions("position_embeddings", a.max_positions, width);
    if let Some(types) = a.config_u64("type_vocab_size") {
        b.parameter("token_type_embeddings.weight", &[types, width], Role::TypeEmbedding);
    }
    b.norm("LayerNorm", width, true);
}

/// The head's matrix, tied or not, and its bias, which the module holds itself and which its
/// `decoder` has under a second name unless nothing is tied.
fn decoder_head(b: &mut Build<'_>, input: u64) {
    let (vocab, tied) = (b.a.vocab_size, b.a.tied_embeddings);
    b.parameter("bias", &[vocab], Role::Head);
    b.head("decoder", input, true);
    b.last_is_tied(tied);
}

/// A stack's own name for the embedding that both stacks share.
fn shared_embedding(b: &mut Build<'_>, stack: &str, tied: bool) {
    let (vocab, d) = (b.a.vocab_size, b.a.hidden_size);
    b.at(Place::Embedding, &format!("{stack}."));
    let role = if tied { Role::InputEmbedding } else { Role::Other };
    b.parameter("embed_tokens.weight", &[vocab, d], role);
    b.last_is_tied(tied);
}

/// How many classes a sequence classifier tells apart (transformers: two unless `id2label` says
/// otherwise); `None` for other classes.
fn labels(b: &Build<'_>) -> Option<u64> {
    let class = b.a.config.get("architectures")?.get(0)?.as_str()?;
    let named = b.a.config.get("id2label").and_then(|labels| labels.as_object()).map(|l| l.len() as u64);
    class.ends_with("ForSequenceClassification").then(|| named.or(b.a.config_u64("num_labels")).unwrap_or(2))
}

fn bert(b: &mut Build<'_>) {
    let a = b.a;
    let (d, f) = (a.hidden_size, a.intermediate_size);
    let (base, head) =
        if a.family == Family::Bert { ("bert", "cls.predictions.") } else { ("roberta", "lm_head.") };
    bert_embeddings(b, &format!("{base}.embeddings."), d);
    b.layers(&format!("{base}.encoder.layer"), 0, a.layers);
    for name in ["query", "key", "value"] {
        b.linear(&format!("attention.self.{name}"), d, d, true, Role::Attention);
    }
    b.linear("attention.output.dense", d, d, true, Role::Attention);
    b.norm("attention.output.LayerNorm", d, true);
    b.linear("intermediate.dense", d, f, true, Role::Mlp);
    b.linear("output.dense", f, d, true, Role::Mlp);
    b.norm("output.LayerNorm", d, true);
    if a.without_vocabulary_head() {
        let classifies = labels(b);
        if a.family == Family::Bert || classifies.is_none() {
            b.at(Place::Other, &format!("{base}."));
            b.linear("pooler.dense", d, d, true, Role::Other);
        }
        if let Some(count) = classifies {
            b.at(Place::Other, "classifier.");
            if a.family == Family::Roberta {
                b.linear("dense", d, d, true, Role::Other);
            }
            b.linear("out_proj", d, count, true, Role::Other);
        }
        return;
    }
    b.at(Place::Head, head);
    if a.family == Family::Bert {
        b.linear("transform.dense", d, d, true, Role::Other);
        b.norm("transform.LayerNorm", d, true);
    } else {
        b.linear("dense", d, d, true, Role::Other);
        b.norm("layer_norm", d, true);
    }
    decoder_head(b, d);
}

fn distilbert(b: &mut Build<'_>) {
    let a = b.a;
    let (d, f) = (a.hidden_size, a.intermediate_size);
    bert_embeddings(b, "distilbert.embeddings.", d);
    b.layers("distilbert.transformer.layer", 0, a.layers);
    for name in ["q_lin", "k_lin", "v_lin", "out_lin"] {
        b.linear(&format!("attention.{name}"), d, d, true, Role::Attention);
    }
    b.norm("sa_layer_norm", d, true);
    b.linear("ffn.lin1", d, f, true, Role::Mlp);
    b.linear("ffn.lin2", f, d, true, Role::Mlp);
    b.norm("output_layer_norm", d, true);
    if a.without_vocabulary_head() {
        if let Some(count) = labels(b) {
            b.at(Place::Other, "");
            b.linear("pre_classifier", d, d, true, Role::Other);
            b.linear("classifier", d, count, true, Role::Other);
        }
        return;
    }
    b.at(Place::Head, "");
    b.linear("vocab_transform", d, d, true, Role::Other);
    b.norm("vocab_layer_norm", d, true);
    b.head("vocab_projector", d, true);
}

/// ALBERT: one group of layers that every pass uses again. transformers does not checkpoint it
/// layer by layer, so its parameters are `Place::Other`.
fn albert(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let (d, f) = (a.hidden_size, a.intermediate_size);
    let embedded = a.config_u64("embedding_size").unwrap_or(d);
    let groups = a.config_u64("num_hidden_groups").unwrap_or(1);
    let inner = a.config_u64("inner_group_num").unwrap_or(1);
    if groups.saturating_mul(inner) > 1000 {
        return Err(format!("{groups} groups of {inner} layers are more than any model has"));
    }
    bert_embeddings(b, "albert.embeddings.", embedded);
    b.at(Place::Other, "albert.encoder.");
    b.linear("embedding_hidden_mapping_in", embedded, d, true, Role::Other);
    for group in 0..groups {
        for layer in 0..inner {
            b.at(Place::Other, &format!("albert.encoder.albert_layer_groups.{group}.albert_layers.{layer}."));
            b.norm("full_layer_layer_norm", d, true);
            for name in ["query", "key", "value", "dense"] {
                b.linear(&format!("attention.{name}"), d, d, true, Role::Attention);
            }
            b.norm("attention.LayerNorm", d, true);
            b.linear("ffn", d, f, true, Role::Mlp);
            b.linear("ffn_output", f, d, true, Role::Mlp);
        }
    }
    b.at(Place::Head, "predictions.");
    b.norm("LayerNorm", embedded, true);
    b.linear("dense", d, embedded, true, Role::Other);
    decoder_head(b, embedded);
    Ok(())
}

fn modernbert(b: &mut Build<'_>) {
    let a = b.a;
    let (d, f) = (a.hidden_size, a.intermediate_size);
    let flag = |key| a.config_bool(key) == Some(true);
    let norm_bias = flag("norm_bias");
    b.at(Place::Embedding, "model.embeddings.");
    b.embedding("tok_embeddings", a.vocab_size, d);
    b.norm("norm", d, norm_bias);
    // The first layer has no norm before its attention.
    b.layers("model.layers", 1, a.layers.saturating_sub(1));
    b.norm("attn_norm", d, norm_bias);
    b.layers("model.layers", 0, a.layers);
    b.linear("attn.Wqkv", d, 3 * d, a.qkv_bias, Role::Attention);
    b.linear("attn.Wo", d, d, a.attention_out_bias, Role::Attention);
    b.norm("mlp_norm", d, norm_bias);
    b.linear("mlp.Wi", d, 2 * f, a.mlp_bias, Role::Mlp);
    b.linear("mlp.Wo", f, d, a.mlp_bias, Role::Mlp);
    b.at(Place::FinalNorm, "model.");
    b.norm("final_norm", d, norm_bias);
    b.at(Place::Head, "");
    b.linear("head.dense", d, d, flag("classifier_bias"), Role::Other);
    b.norm("head.norm", d, norm_bias);
    b.head("decoder", d, flag("decoder_bias"));
}

fn t5(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let (d, h) = (a.hidden_size, a.heads);
    let buckets = need(b, "relative_attention_num_buckets")?;
    b.at(Place::Embedding, "");
    b.embedding("shared", a.vocab_size, d);
    for encoder in [true, false] {
        let (stack, layers) = if encoder { ("encoder", a.encoder_layers) } else { ("decoder", a.layers) };
        let blocks = format!("{stack}.block");
        shared_embedding(b, stack, true);
        let enter = |b: &mut Build<'_>, count: u64| {
            if encoder { b.encoder_layers(&blocks, 0, count) } else { b.layers(&blocks, 0, count) }
        };
        // The first block's table serves all of them.
        enter(b, layers.min(1));
        b.positions("layer.0.SelfAttention.relative_attention_bias", buckets, h);
        enter(b, layers);
        t5_attention(b, "layer.0.SelfAttention");
        b.norm("layer.0.layer_norm", d, false);
        if !encoder {
            t5_attention(b, "layer.1.EncDecAttention");
            b.norm("layer.1.layer_norm", d, false);
        }
        t5_mlp(b, if encoder { "layer.1" } else { "layer.2" });
        b.at(Place::FinalNorm, &format!("{stack}."));
        b.norm("final_layer_norm", d, false);
    }
    b.at(Place::Head, "");
    b.head("lm_head", d, false);
    Ok(())
}

fn t5_attention(b: &mut Build<'_>, name: &str) {
    let (d, inner) = (b.a.hidden_size, b.a.heads * b.a.head_dim);
    for projection in ["q", "k", "v"] {
        b.linear(&format!("{name}.{projection}"), d, inner, false, Role::Attention);
    }
    b.linear(&format!("{name}.o"), inner, d, false, Role::Attention);
}

fn t5_mlp(b: &mut Build<'_>, layer: &str) {
    let a = b.a;
    let (d, f) = (a.hidden_size, a.intermediate_size);
    let gated = a
        .config
        .get("feed_forward_proj")
        .and_then(serde_json::Value::as_str)
        .is_some_and(|projection| projection.starts_with("gated"));
    if gated {
        b.linear(&format!("{layer}.DenseReluDense.wi_0"), d, f, false, Role::Mlp);
        b.linear(&format!("{layer}.DenseReluDense.wi_1"), d, f, false, Role::Mlp);
    } else {
        b.linear(&format!("{layer}.DenseReluDense.wi"), d, f, false, Role::Mlp);
    }
    b.linear(&format!("{layer}.DenseReluDense.wo"), f, d, false, Role::Mlp);
    b.norm(&format!("{layer}.layer_norm"), d, false);
}

fn bart(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let d = a.hidden_size;
    let decoder_f = need(b, "decoder_ffn_dim")?;
    b.at(Place::Embedding, "model.");
    b.embedding("shared", a.vocab_size, d);
    for encoder in [true, false] {
        let stack = if encoder { "model.encoder" } else { "model.decoder" };
        shared_embedding(b, stack, a.tied_embeddings);
        // Two rows more than positions: the offset of the original's padding.
        b.positions("embed_positions", a.max_positions + 2, d);
        b.norm("layernorm_embedding", d, true);
        let (f, layers) = if encoder {
            (a.intermediate_size, format!("{stack}.layers"))
        } else {
            (decoder_f, format!("{stack}.layers"))
        };
        if encoder {
            b.encoder_layers(&layers, 0, a.encoder_layers);
        } else {
            b.layers(&layers, 0, a.layers);
        }
        bart_attention(b, "self_attn");
        b.norm("self_attn_layer_norm", d, true);
        if !encoder {
            bart_attention(b, "encoder_attn");
            b.norm("encoder_attn_layer_norm", d, true);
        }
        b.linear("fc1", d, f, true, Role::Mlp);
        b.linear("fc2", f, d, true, Role::Mlp);
        b.norm("final_layer_norm", d, true);
    }
    b.at(Place::Head, "");
    b.head("lm_head", d, false);
    Ok(())
}

fn bart_attention(b: &mut Build<'_>, name: &str) {
    let d = b.a.hidden_size;
    for projection in ["k_proj", "v_proj", "q_proj", "out_proj"] {
        b.linear(&format!("{name}.{projection}"), d, d, true, Role::Attention);
    }
}
