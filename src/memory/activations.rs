//! What the layers save for backward, what one layer's backward adds, and what is kept once a
//! model: sums from the tables, put together for the run's checkpointing.

use super::adapters::{Adapters, gathered_in_half, stack_of_experts};
use super::beside;
use super::blend::Blend;
use super::coefficients::Table;
use super::expression::{Sum, Symbol, Symbols};
use super::own_layers;
use super::shape::{Precision, Shape, attention_key, dropout, window_needs_mask};
use crate::catalog::{Family, Mixer};
use crate::run::{Checkpointing, DataParallel, Kernels, Loss, ModelCode, Quantization, TrainingRun};

/// Activations of a run, in bytes as sums of the tables' symbols.
#[derive(Clone, Debug)]
pub(crate) struct Activations {
    /// The table that the loss reads too.
    pub(crate) table: Table,
    /// Saved by one layer that is not checkpointed.
    pub(crate) layer: Sum,
    /// Saved by one checkpointed layer: its input.
    pub(crate) checkpoint: Sum,
    /// Saved once a model.
    pub(crate) body: Sum,
    /// Most that one layer's backward adds to its output's gradient.
    pub(crate) transient: Sum,
    /// The encoder of an encoder-decoder; `layer` is then the decoder's.
    pub(crate) encoder: Option<Encoder>,
    /// Where it comes from.
    pub(crate) source: &'static str,
    /// Not traced as it stands: how far the layers' part may be off, with the reason.
    pub(crate) doubt: Option<(f64, &'static str)>,
}

/// An encoder's layer.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    /// Saved by one layer.
    pub(crate) layer: Sum,
    /// Saved by one checkpointed layer.
    pub(crate) checkpoint: Sum,
    /// Most that its backward adds.
    pub(crate) transient: Sum,
    /// What else is alive while the decoder's layers go backward: gradients that gather there.
    pub(crate) beside_decoder: Sum,
    /// The same while the encoder's layers do.
    pub(crate) beside: Sum,
}

fn encoder(table: Table, checkpointed: bool, symbols: &Symbols) -> Option<Encoder> {
    let layer = table.part("encoder-layer")?;
    let named = |name: &str| {
        let prefix = if checkpointed { "checkpoint-" } else { "" };
        table.get(&format!("{prefix}{name}"))
    };
    let points = ["encoder-transient", "encoder-transient-mlp", "encoder-transient-plain"];
    Some(Encoder {
        layer,
        checkpoint: table.get("checkpoint-encoder-layer"),
        transient: points.iter().fold(Sum::default(), |most, point| larger(most, named(point), symbols)),
        beside_decoder: named("decoder-beside"),
        beside: named("encoder-beside"),
    })
}

const TRACED: &str = "traced block of transformers";

/// How many of `layers` are checkpointed and how many keep everything. `chunks` of the model have first
/// layers of their own.
pub(crate) fn split_layers(checkpointing: Checkpointing, layers: f64, chunks: usize) -> (f64, f64) {
    match checkpointing {
        Checkpointing::None | Checkpointing::Selective | Checkpointing::Modules { .. } => (0.0, layers),
        Checkpointing::Full => (layers, 0.0),
        Checkpointing::First { first } => {
            let checkpointed = layers.min(f64::from(first) * chunks.max(1) as f64);
            (checkpointed, layers - checkpointed)
        }
        Checkpointing::Every { every } => {
            let checkpointed = (layers / f64::from(every.max(1))).floor();
            (checkpointed, layers - checkpointed)
        }
    }
}

/// Of a run without adapters.
///
/// # Errors
/// What is not traced, in words.
pub(crate) fn full(run: &TrainingRun, shape: &Shape<'_>) -> Result<Activations, String> {
    let attention = attention_key(run);
    let with_dropout = dropout(run, shape.architecture);
    let table = shape.table(attention, with_dropout).ok_or_else(|| {
        format!(
            "what a {} layer keeps in {} with {attention} attention is not traced yet",
            shape.family,
            shape.precision.key()
        )
    })?;
    let windows = window_needs_mask(run, shape.architecture);
    let parts = Blend::new(shape, table, |name, windowed| {
        let attention = if windowed && windows { "sdpa+mask" } else { attention };
        shape.table_of(name, attention, with_dropout)
    })?;
    let checkpointed = !matches!(run.activation_checkpointing.value, Checkpointing::None);
    let mut activations = Activations {
        table,
        layer: parts.get("layer"),
        checkpoint: parts.get("checkpoint-layer"),
        body: parts.get(if checkpointed { "checkpoint-body" } else { "body" }),
        transient: transient(&parts, checkpointed, &shape.symbols),
        encoder: encoder(table, checkpointed, &shape.symbols),
        source: TRACED,
        doubt: doubt(run, shape),
    };
    if attention == "sdpa+mask"
        && matches!(shape.family, "phi3" | "gemma" | "gemma3_text" | "qwen2" | "llama")
    {
        activations.layer = masked_layer(shape, table, with_dropout);
    }
    if run.loss.value == Loss::Tiled && shape.precision != Precision::Mixed {
        // The head's input is copied, and the copy is the loss's.
        let input = Sum::term(-shape.precision.logit(), &[Symbol::Tokens, Symbol::Hidden]);
        activations.body = activations.body.plus(&input);
    }
    if run.kernels.value == Kernels::Liger {
        liger(&mut activations, shape, run.loss.value, checkpointed);
    }
    if windows && shape.architecture.family != Family::Gemma4 {
        masked_window(&mut activations, shape, checkpointed, with_dropout);
    }
    if run.compile.value && run.kernels.value == Kernels::Torch {
        compiled(&mut activations, shape);
    }
    dense_layers(&mut activations, shape);
    own_layers::apply(&mut activations, run, shape, None, checkpointed);
    if run.activation_checkpointing.value == Checkpointing::Selective {
        selective(&mut activations, shape);
    }
    fake_quantized(&mut activations, run, shape);
    Ok(activations)
}

/// Quantisation-aware training: every linear layer works on rounded copies.
fn fake_quantized(activations: &mut Activations, run: &TrainingRun, shape: &Shape<'_>) {
    let Some(copies) = beside::fake_quantized(run, shape) else { return };
    activations.layer = activations.layer.clone().plus(&copies);
    activations.transient = activations.transient.clone().plus(&copies);
    activations.doubt = Some((0.25, "the copies of fake quantisation are derived, not traced"));
}

const STATE_SPACES: &str = "state spaces are taken to run mamba-ssm's and causal-conv1d's kernels; without them PyTorch's own code keeps several times as much";

/// Blocks that are taken for others, or depend on what is installed beside transformers.
fn doubt(run: &TrainingRun, shape: &Shape<'_>) -> Option<(f64, &'static str)> {
    match shape.architecture.family {
        Family::Qwen35 | Family::Qwen35Moe | Family::Qwen3Next => Some((
            0.1,
            "gated delta nets are taken to run flash-linear-attention's kernels; without it PyTorch's own code keeps several times as much",
        )),
        Family::FalconH1 | Family::NemotronH | Family::Jamba | Family::Mamba => Some((0.1, STATE_SPACES)),
        Family::GraniteMoeHybrid
            if (0..shape.architecture.layers)
                .any(|layer| shape.architecture.layer(layer).mixer == Mixer::Mamba2) =>
        {
            Some((0.1, STATE_SPACES))
        }
        Family::KimiLinear => Some((
            0.15,
            "Kimi's delta attention is taken to run flash-linear-attention's kernels; without it PyTorch's own code keeps several times as much",
        )),
        Family::Mllama => {
            Some((0.15, "layers that attend to the image are taken for those that attend to the text"))
        }
        Family::Llama4 if run.model_code.value != ModelCode::Transformers => {
            Some((0.2, "its layers are taken for GLM-4.5's, which also group tokens by expert"))
        }
        _ => None,
    }
}

/// The largest of a layer's backward's points: attention's, the MLP's, where a layer attends twice
/// self-attention's, and the larger of the first two while no bias's gradient is summed.
fn transient(parts: &Blend, checkpointed: bool, symbols: &Symbols) -> Sum {
    let first = if checkpointed { "checkpoint-transient" } else { "transient" };
    ["mlp", "self", "plain"]
        .iter()
        .filter_map(|point| parts.part(&format!("{first}-{point}")))
        .fold(parts.get(first), |largest, point| larger(largest, point, symbols))
}

fn larger(a: Sum, b: Sum, symbols: &Symbols) -> Sum {
    if b.value(symbols) > a.value(symbols) { b } else { a }
}

/// Liger's RMSNorm keeps its input and one scalar a token, its SwiGLU recomputes: from their own
/// table. Families without one keep PyTorch's figures, which are larger.
fn liger(activations: &mut Activations, shape: &Shape<'_>, loss: Loss, checkpointed: bool) {
    let precision = if shape.precision == Precision::HalfAutocast { "bf16" } else { shape.precision.key() };
    let Some(table) = Table::find(&format!("liger {} {precision} sdpa", shape.family)) else {
        activations.doubt = Some((0.25, "Liger's kernels for this family are not traced"));
        return;
    };
    activations.layer = table.get("layer");
    activations.checkpoint = table.get("checkpoint-layer");
    // The traced body holds what the fused cross entropy keeps, which the loss's own lines count.
    let (mixed, weight) = (shape.precision == Precision::Mixed, shape.precision.logit());
    let hidden = |bytes: f64| Sum::term(bytes, &[Symbol::Tokens, Symbol::Hidden]);
    let head = Sum::term(if mixed { 4.0 } else { weight }, &[Symbol::Vocabulary, Symbol::Hidden]);
    let kept = hidden(weight).plus(&head);
    let body = table.get(if checkpointed { "checkpoint-body" } else { "body" }).plus(&kept.times(-1.0));
    activations.body = match (loss, mixed) {
        (Loss::Fused | Loss::Tiled, _) => body,
        // A plain head keeps its input, which under autocast is its own cast copy, counted there.
        (_, true) => body.plus(&hidden(-2.0)),
        (_, false) => body.plus(&hidden(weight)),
    };
    activations.transient = transient(&Blend::of(table, shape), checkpointed, &shape.symbols);
    activations.source = "traced block of transformers with liger-kernel";
}

/// Compiled norms read the 16-bit stream and recompute the rest: of each RMSNorm's fp32 input and
/// normalised copy nothing stays. Two norms a layer, 4 bytes an element each.
fn compiled(activations: &mut Activations, shape: &Shape<'_>) {
    let hidden = [Symbol::Tokens, Symbol::Hidden];
    let kept = |sum: &Sum| sum.0.iter().find(|t| t.symbols == hidden).map_or(0.0, |t| t.coefficient);
    if shape.precision != Precision::Full && kept(&activations.layer) >= 16.0 {
        let norms = Sum::term(-8.0, &hidden);
        activations.layer = activations.layer.clone().plus(&norms);
        if kept(&activations.transient) >= 16.0 {
            activations.transient = activations.transient.clone().plus(&norms);
        }
    }
    activations.doubt = Some((0.15, "what torch.compile fuses depends on its release"));
}

/// The part of the layers that see a window.
fn windowed_share(shape: &Shape<'_>) -> f64 {
    let layers = shape.architecture.layers as f64;
    shape.architecture.sliding_layers.map_or(1.0, |n| (n as f64).min(layers) / layers.max(1.0))
}

/// What a layer keeps under a mask. The tables are traced with two key heads for fourteen queries,
/// which `repeat_kv` copies. It copies nothing where there is nothing to repeat: Phi-3's values then
/// stay a view, and with them all of its one product of q, k and v (traced with Phi-3 mini). And one
/// key head is expanded as a view (traced with Gemma 3 1B).
fn masked_layer(shape: &Shape<'_>, masked: Table, with_dropout: bool) -> Sum {
    let layer = masked.get("layer");
    let (heads, kv) = (shape.get(Symbol::Heads), shape.get(Symbol::KvHeads));
    if shape.family == "phi3" && heads == kv {
        return layer.plus(&Sum::term(2.0 * shape.precision.logit(), &[Symbol::Tokens, Symbol::Query]));
    }
    let traced_with_one = matches!(shape.family, "falcon" | "falcon-alibi" | "gpt_bigcode");
    match shape.table("sdpa", with_dropout) {
        Some(fused) if kv == 1.0 && heads > 1.0 && !traced_with_one => {
            let no_pairs =
                |symbols: &[Symbol]| symbols.iter().filter(|s| **s == Symbol::Sequence).count() < 2;
            fused.get("layer").plus(&layer.without(no_pairs))
        }
        _ => layer,
    }
}

/// The terms that grow with the square of the length.
fn pairs(sum: Sum) -> Sum {
    sum.without(|symbols| symbols.iter().filter(|s| **s == Symbol::Sequence).count() < 2)
}

/// A window that the fused kernel cannot take becomes a boolean mask once a model, expanded to 16
/// bits in each windowed layer, with keys and values repeated.
fn masked_window(activations: &mut Activations, shape: &Shape<'_>, checkpointed: bool, with_dropout: bool) {
    let Some(masked) = shape.table("sdpa+mask", with_dropout) else { return };
    let share = windowed_share(shape);
    activations.layer = activations
        .layer
        .clone()
        .times(1.0 - share)
        .plus(&masked_layer(shape, masked, with_dropout).times(share));
    // No padding: one mask serves the whole batch.
    let mut body = masked.get(if checkpointed { "checkpoint-body" } else { "body" });
    if checkpointed {
        for term in &mut body.0 {
            if term.symbols == [Symbol::Batch, Symbol::Sequence, Symbol::Sequence] {
                term.symbols.remove(0);
            }
        }
    }
    activations.body = larger(activations.body.clone(), body, &shape.symbols);
    activations.transient = transient(&Blend::of(masked, shape), checkpointed, &shape.symbols);
}

/// Models of experts with a dense MLP in some layers: there the routed terms fall away and the MLP
/// has its own width.
fn dense_layers(activations: &mut Activations, shape: &Shape<'_>) {
    let architecture = shape.architecture;
    // Dense layers of these have tables of their own.
    let own = matches!(architecture.family, Family::Jamba | Family::NemotronH) || shape.family == "llama4";
    if architecture.moe.is_none() || own {
        return;
    }
    let layers = architecture.layers;
    let dense = (0..layers).filter(|l| !architecture.layer_is_sparse(*l)).count() as f64;
    if dense == 0.0 {
        return;
    }
    let routed = |symbols: &[Symbol]| symbols.contains(&Symbol::TopK) || symbols.contains(&Symbol::Experts);
    let shared = shape.get(Symbol::FeedForward);
    let width = architecture.intermediate_size as f64;
    let mut dense_layer = activations.layer.clone().without(routed);
    let mut has_mlp = false;
    for term in &mut dense_layer.0 {
        if shared > 0.0 && term.symbols.contains(&Symbol::FeedForward) {
            term.coefficient *= width / shared;
            has_mlp = true;
        }
    }
    if !has_mlp {
        // Gate, up, their activation and the product, as in a dense layer of the family.
        let each = if shape.precision == Precision::Full { 16.0 } else { 8.0 };
        let per_token = each * width / shape.get(Symbol::Hidden).max(1.0);
        dense_layer = dense_layer.plus(&Sum::term(per_token, &[Symbol::Tokens, Symbol::Hidden]));
    }
    let share = dense / (layers as f64).max(1.0);
    activations.layer = activations.layer.clone().times(1.0 - share).plus(&dense_layer.times(share));
}

/// torchtitan's selective checkpointing saves attention's output and every second matrix product:
/// of q, k, v, o, gate, up, down the first, third, fifth and seventh, beside the layer's input.
fn selective(activations: &mut Activations, shape: &Shape<'_>) {
    let e = if shape.precision == Precision::Full { 4.0 } else { 2.0 };
    let n = Symbol::Tokens;
    let width = if shape.get(Symbol::FeedForward) > 0.0 { Symbol::FeedForward } else { Symbol::Expert };
    activations.layer = Sum::term(e + shape.precision.residual(), &[n, Symbol::Hidden])
        .plus(&Sum::term(2.0 * e, &[n, Symbol::Query]))
        .plus(&Sum::term(e, &[n, Symbol::Key]))
        .plus(&Sum::term(e, &[n, width]))
        .plus(&Sum::term(4.0, &[n, Symbol::Heads]));
    activations.source = "torchtitan's list of saved operations: attention and every second matrix product";
    // Sixteen published runs lie within a tenth of what is saved.
    activations.doubt = Some((0.12, "selective checkpointing is derived from its list of saved operations"));
}

/// Of a run with adapters over frozen weights.
///
/// # Errors
/// What is not traced, in words.
pub(crate) fn adapted(
    run: &TrainingRun,
    shape: &Shape<'_>,
    adapters: &Adapters,
) -> Result<Activations, String> {
    let label = label(run, adapters);
    // Mistral 4's frozen layers are DeepSeek-V3's but for the router's few numbers a token.
    let family = if shape.family == "mistral4" { "deepseek_v3" } else { shape.family };
    let name = format!("lora {family} {label}");
    let with_attention = Table::find(&format!("{name} {}", attention_key(run)));
    let table = with_attention.or_else(|| Table::find(&name)).ok_or_else(|| {
        format!("what a frozen {} layer keeps under adapters ({label}) is not traced yet", shape.family)
    })?;
    let parts = Blend::new(shape, table, |block, _| Table::find(&format!("lora {block} {label}")))?;
    let checkpointed = !matches!(run.activation_checkpointing.value, Checkpointing::None);
    let mut own = adapters.saved(&shape.symbols);
    let stage3 = run.parallelism.data_parallel.value == DataParallel::Zero3;
    if stage3 && run.quantization.value == Quantization::None {
        own = own.plus(&adapters.frozen_inputs(shape));
    }
    let mut layer = parts.get("layer").plus(&own);
    if adapters.output_projection {
        layer = layer.plus(&parts.get("output-copy"));
    }
    let point = if adapters.down_projection { "mlp" } else { "attention" };
    let point = if adapters.dropout { format!("{point}-dropout") } else { point.to_owned() };
    let mut transient = parts.get(&format!("transient-{point}"));
    if checkpointed {
        transient = parts.get(&format!("checkpoint-transient-{point}")).plus(&own);
    }
    // Blocks whose mixer may be their largest point.
    let mixer = if adapters.dropout { "transient-mixer-dropout" } else { "transient-mixer" };
    let mixer = if checkpointed { format!("checkpoint-{mixer}") } else { mixer.to_owned() };
    if let Some(mixer) = parts.part(&mixer) {
        let mixer = if checkpointed { mixer.plus(&own) } else { mixer };
        transient = larger(transient, mixer, &shape.symbols);
    }
    let mut checkpoint = parts.get("checkpoint-layer");
    if run.reentrant_checkpointing.value && run.quantization.value == Quantization::Int8 {
        // LLM.int8 keeps its inputs where saved-tensor hooks do not see them, so that they outlive
        // the first forward, unless that one runs without gradients.
        checkpoint = Sum::term(shape.precision.residual(), &[Symbol::Tokens, Symbol::Hidden]);
    }
    let mut activations = Activations {
        table,
        layer,
        checkpoint,
        body: parts.get(if checkpointed { "checkpoint-body" } else { "body" }),
        transient,
        encoder: None,
        source: "traced frozen block of transformers; adapters' inputs in closed form",
        doubt: doubt(run, shape)
            .or(adapters.decomposed().then_some((0.25, "DoRA's temporaries are not traced"))),
    };
    stacked_experts(run, shape, adapters, &mut activations, checkpointed);
    if with_attention.is_none() {
        attention_differs(run, shape, &mut activations, checkpointed, parts.main_share());
    }
    own_layers::apply(&mut activations, run, shape, Some(adapters), checkpointed);
    if shape.architecture.family != Family::Gemma4 && window_needs_mask(run, shape.architecture) {
        window_of_frozen(shape, &mut activations, checkpointed);
    }
    fake_quantized(&mut activations, run, shape);
    Ok(activations)
}

/// Experts that are one tensor a projection. Adapters on them and 4-bit or 8-bit storage both make a
/// 16-bit matrix before the layer runs, which autograd keeps: traced with PEFT 0.21 and
/// bitsandbytes 0.50 on Mixtral and Qwen3-MoE.
fn stacked_experts(
    run: &TrainingRun,
    shape: &Shape<'_>,
    adapters: &Adapters,
    activations: &mut Activations,
    checkpointed: bool,
) {
    let mut kept = Sum::default();
    let mut backward = None;
    if let Some((formed, at_experts)) = adapters.formed(&shape.symbols) {
        kept = formed;
        backward = Some(at_experts);
    } else if run.quantized_experts.value && run.quantization.value != Quantization::None {
        let elements = shape.inventory.stacked_experts() as f64 / (shape.architecture.layers as f64).max(1.0);
        kept = stack_of_experts(2.0 * elements, &shape.symbols);
    }
    if kept.is_empty() {
        return;
    }
    if run.fused_experts.value {
        fused_experts(activations, kept);
        return;
    }
    // Means over all layers; a layer that has experts keeps more where others have none.
    let layers = shape.architecture.layers;
    let sparse = (0..layers).filter(|l| shape.architecture.layer_is_sparse(*l)).count().max(1);
    let to_one = layers.max(1) as f64 / sparse as f64;
    let of_one = kept.clone().times(to_one);
    let whole = if checkpointed { activations.layer.clone().plus(&of_one) } else { Sum::default() };
    activations.layer = activations.layer.clone().plus(&kept);
    if checkpointed {
        activations.transient = activations.transient.clone().plus(&of_one);
    }
    if let Some(at_experts) = backward.map(|at| at.times(to_one)) {
        activations.transient =
            larger(activations.transient.clone(), whole.plus(&at_experts), &shape.symbols);
    }
}

/// Axolotl's ScatterMoE and SonicMoE kernels multiply with adapters apart and make 16-bit copies of
/// 4-bit experts again in the backward: of `kept` only what grows with the tokens stays, and a stack
/// is there while its layer runs.
fn fused_experts(activations: &mut Activations, kept: Sum) {
    let by_token = |symbols: &[Symbol]| !symbols.contains(&Symbol::Tokens);
    let tokens = kept.clone().without(by_token);
    let stack = kept.plus(&tokens.clone().times(-1.0));
    activations.layer = activations.layer.clone().plus(&tokens);
    // Two of the three projections are one tensor.
    activations.transient = activations.transient.clone().plus(&tokens).plus(&stack.times(2.0 / 3.0));
    activations.doubt = Some((0.3, "kernels for experts that are not traced"));
}

/// The frozen tables are traced with fused attention. Another attention changes a frozen layer by
/// what it changes a trained one.
fn attention_differs(
    run: &TrainingRun,
    shape: &Shape<'_>,
    activations: &mut Activations,
    checkpointed: bool,
    share: f64,
) {
    let attention = attention_key(run);
    let (Some(fused), Some(asked)) = (shape.table("sdpa", false), shape.table(attention, false)) else {
        return;
    };
    if attention == "sdpa" {
        return;
    }
    let change = |name: &str| asked.get(name).plus(&fused.get(name).times(-1.0));
    let scores =
        |symbols: &[Symbol]| !symbols.contains(&Symbol::Sequence) && !symbols.contains(&Symbol::Tokens);
    activations.layer = activations.layer.clone().plus(&change("layer").without(scores).times(share));
    if checkpointed {
        activations.body = activations.body.clone().plus(&change("checkpoint-body").without(scores));
    }
    let name = if checkpointed { "checkpoint-transient" } else { "transient" };
    let moved = activations.transient.clone().plus(&change(name).without(scores));
    activations.transient = larger(activations.transient.clone(), moved, &shape.symbols);
}

/// As [`masked_window`], for the frozen table: the change that the mask makes to a trained layer.
fn window_of_frozen(shape: &Shape<'_>, activations: &mut Activations, checkpointed: bool) {
    let (Some(fused), Some(masked)) = (shape.table("sdpa", false), shape.table("sdpa+mask", false)) else {
        return;
    };
    let change = if shape.family == "phi3" && shape.get(Symbol::Heads) == shape.get(Symbol::KvHeads) {
        // Nothing is repeated and nothing is freed: the mask alone (traced with Phi-3 mini).
        pairs(masked.get("layer"))
    } else {
        masked_layer(shape, masked, false).plus(&fused.get("layer").times(-1.0))
    };
    let change = change.times(windowed_share(shape));
    activations.layer = activations.layer.clone().plus(&change);
    if checkpointed {
        let mask = Sum::term(1.0, &[Symbol::Sequence, Symbol::Sequence]);
        activations.body = activations.body.clone().plus(&mask);
        activations.transient = activations.transient.clone().plus(&change);
    }
}

/// The frozen table's name: base, autocast, preparation, adapters.
fn label(run: &TrainingRun, adapters: &Adapters) -> String {
    let base = match run.quantization.value {
        packed if packed.is_packed() => "nf4",
        Quantization::Int8 => "int8",
        Quantization::None | Quantization::Fp8 if run.layers_read_fp32() => "fp32",
        _ => "bf16",
    };
    let prepared = run.quantised_beside_fp32();
    // LLM.int8 and prepared models are traced under autocast only, which they run under in practice.
    let autocast = run.autocast.value || base == "int8" || prepared;
    let wide = adapters.weight >= 4.0 && !gathered_in_half(run);
    let storage = if wide || base == "int8" || prepared { "fp32" } else { "bf16" };
    let storage = if base == "fp32" { "fp32" } else { storage };
    format!(
        "{base}{}{}/{storage}-adapters",
        if autocast { "+autocast" } else { "" },
        if prepared { "+kbit_prep" } else { "" },
    )
}
