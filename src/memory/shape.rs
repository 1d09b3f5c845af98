//! A run's model in the words of the tables: which block of them applies, and a value for every
//! symbol.

use super::coefficients::Table;
use super::draws::Draws;
use super::expression::{Symbol, Symbols};
use super::parallel::{self, Degrees, Slice};
use super::parameters::Inventory;
use crate::catalog::{Architecture, Family};
use crate::run::{Attention, Batching, DataParallel, Dtype, Kernels, ModelCode, TrainingRun};

/// What weights and activations of the trained model are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// Weights and everything else in 16 bits.
    Half,
    /// 16-bit weights under autocast.
    HalfAutocast,
    /// Everything in fp32.
    Full,
    /// fp32 weights under 16-bit autocast.
    Mixed,
}

impl Precision {
    /// Of a run. FSDP and ZeRO keep fp32 shards but gather 16-bit weights: to the layers they are
    /// 16-bit models.
    pub(crate) fn of(run: &TrainingRun) -> Precision {
        let half = |dtype: Dtype| dtype.bytes() < 4;
        let gathered = !matches!(run.parallelism.data_parallel.value, DataParallel::None | DataParallel::Ddp);
        match (half(run.weights.value), half(run.compute.value), run.autocast.value) {
            (true, _, true) => Precision::HalfAutocast,
            (true, _, false) => Precision::Half,
            (false, false, _) => Precision::Full,
            (false, true, _) if gathered => Precision::Half,
            (false, true, _) => Precision::Mixed,
        }
    }

    /// The word of the tables.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Precision::Half => "bf16",
            Precision::HalfAutocast => "amp16",
            Precision::Full => "fp32",
            Precision::Mixed => "autocast",
        }
    }

    /// Bytes of an element of the residual stream: fp32 weights make it fp32, under autocast too.
    pub(crate) fn residual(self) -> f64 {
        match self {
            Precision::Half | Precision::HalfAutocast => 2.0,
            Precision::Full | Precision::Mixed => 4.0,
        }
    }

    /// Bytes of a logit as the head makes it.
    pub(crate) fn logit(self) -> f64 {
        if self == Precision::Full { 4.0 } else { 2.0 }
    }

    /// Under autocast?
    pub(crate) fn autocast(self) -> bool {
        matches!(self, Precision::HalfAutocast | Precision::Mixed)
    }
}

/// The family's name in the tables. Families that share a block of modelling code share a name.
pub(crate) fn family_key(architecture: &Architecture) -> &'static str {
    match architecture.family {
        Family::Llama | Family::Mistral => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
        Family::Gemma => "gemma",
        Family::Gemma2 => "gemma2",
        Family::Gemma3Text => "gemma3_text",
        Family::Phi => "phi",
        Family::Phi3 => "phi3",
        Family::Gpt2 | Family::GuideGpt => "gpt2",
        Family::GptNeox => "gpt_neox",
        Family::Gptj => "gptj",
        Family::GptNeo => "gpt_neo",
        Family::GptBigcode => "gpt_bigcode",
        Family::Falcon if architecture.alibi => "falcon-alibi",
        Family::Falcon => "falcon",
        Family::Opt => "opt",
        Family::Bloom => "bloom",
        Family::Mpt => "mpt",
        Family::StableLm => "stablelm",
        Family::Starcoder2 => "starcoder2",
        Family::Olmo => "olmo",
        Family::Olmo2
            if architecture.config.get("model_type").and_then(serde_json::Value::as_str) == Some("olmo3") =>
        {
            "olmo3"
        }
        Family::Olmo2 => "olmo2",
        Family::SmolLm3 => "smollm3",
        Family::Granite => "granite",
        Family::Glm => "glm",
        Family::Glm4 => "glm4",
        Family::Glm4Moe => "glm4_moe",
        Family::Cohere => "cohere",
        Family::Cohere2 => "cohere2",
        Family::Mixtral => "mixtral",
        Family::Phimoe => "phimoe",
        Family::Qwen2Moe => "qwen2_moe",
        Family::Qwen3Moe => "qwen3_moe",
        // Its layers keep what Qwen3.5's with experts keep, tensor by tensor.
        Family::Qwen3Next => "qwen3_5_moe",
        Family::Qwen35 => "qwen3_5",
        Family::Qwen35Moe => "qwen3_5_moe",
        Family::Llama4 => "llama4",
        Family::Mllama => "mllama",
        Family::SeedOss => "seed_oss",
        Family::Ernie45 => "ernie4_5",
        Family::Ernie45Moe => "ernie4_5_moe",
        Family::HunyuanDense => "hunyuan_v1_dense",
        Family::HunyuanMoe => "hunyuan_v1_moe",
        Family::Arcee => "arcee",
        Family::Apertus => "apertus",
        Family::Nemotron => "nemotron",
        Family::NemotronH => "nemotron_h",
        Family::Exaone4 => "exaone4",
        // The same, of DeepSeek-V3's.
        Family::Glm4MoeLite => "deepseek_v3",
        Family::MiniCpm3 => "minicpm3",
        Family::Mistral4 => "mistral4",
        Family::MiniMaxM2 => "minimax_m2",
        Family::Afmoe => "afmoe",
        Family::GraniteMoeHybrid => match &architecture.moe {
            None => "granitemoehybrid",
            Some(moe) if moe.shared_intermediate_size == 0 => "granitemoe",
            Some(_) => "granitemoehybrid-moe",
        },
        Family::Lfm2 => "lfm2",
        Family::Lfm2Moe => "lfm2_moe",
        Family::FalconH1 => "falcon_h1",
        Family::Jamba => "jamba",
        Family::KimiLinear => "kimi_linear",
        Family::Gemma3n => "gemma3n",
        Family::Gemma4 if architecture.moe.is_some() => "gemma4-moe",
        Family::Gemma4 if architecture.config_u64("hidden_size_per_layer_input").unwrap_or(0) > 0 => {
            "gemma4-ple"
        }
        Family::Gemma4 => "gemma4",
        Family::Olmoe => "olmoe",
        Family::GptOss => "gpt_oss",
        Family::DeepseekV2 => "deepseek_v2",
        Family::DeepseekV3 => "deepseek_v3",
        Family::Dbrx => "dbrx",
        Family::Bert => "bert",
        Family::Roberta => "roberta",
        Family::DistilBert => "distilbert",
        Family::Albert => "albert",
        Family::ModernBert => "modernbert",
        Family::T5 if gated(architecture) => "t5-gated",
        Family::T5 => "t5",
        Family::Bart => "bart",
        Family::Mamba => "mamba",
    }
}

/// T5 1.1 and Flan-T5 gate their MLP.
fn gated(architecture: &Architecture) -> bool {
    let form = architecture.config.get("feed_forward_proj").and_then(serde_json::Value::as_str);
    form.is_some_and(|form| form.starts_with("gated"))
}

/// A run's model, ready for the tables.
#[derive(Clone, Debug)]
pub(crate) struct Shape<'a> {
    /// Its shape.
    pub(crate) architecture: &'a Architecture,
    /// Its tensors.
    pub(crate) inventory: Inventory,
    /// Its name in the tables.
    pub(crate) family: &'static str,
    /// What it runs in.
    pub(crate) precision: Precision,
    /// A value for every symbol.
    pub(crate) symbols: Symbols,
    /// How long its batches are.
    pub(crate) draws: Draws,
}

impl<'a> Shape<'a> {
    /// Puts a run's batch and a model's dimensions together.
    ///
    /// # Errors
    /// A sentence, when the model's dimensions do not go together.
    pub(crate) fn new(run: &TrainingRun, architecture: &'a Architecture) -> Result<Shape<'a>, String> {
        let mut shape = Shape {
            architecture,
            inventory: Inventory::of(architecture)?,
            family: table_family(run, architecture),
            precision: Precision::of(run),
            symbols: dimensions(architecture),
            draws: Draws::of(run),
        };
        shape.set_sequences(run, run.micro_batch_size.value);
        let target = run.target_length.as_ref().map_or_else(|| shape.sequence(run), |t| t.value);
        shape.symbols.set(Symbol::Target, target);
        shape.symbols.set(Symbol::TargetTokens, target.saturating_mul(run.micro_batch_size.value));
        Ok(shape)
    }

    /// Sets sequences and tokens a sequence.
    pub(crate) fn set_batch(&mut self, batch: u64, sequence: u64) {
        self.symbols.set(Symbol::Batch, batch);
        self.symbols.set(Symbol::Sequence, sequence);
        self.symbols.set(Symbol::SequencePlusOne, sequence.saturating_add(1));
        self.symbols.set(Symbol::Tokens, batch.saturating_mul(sequence));
        self.symbols.set(Symbol::StateParts, parts_of_sums(&self.symbols));
    }

    /// Tokens a sequence of the longest batch.
    pub(crate) fn sequence(&self, run: &TrainingRun) -> u64 {
        (self.draws.longest * run.sequence_length.value as f64).round() as u64
    }

    /// Sets the sequences of a forward, each of the run's length.
    pub(crate) fn set_sequences(&mut self, run: &TrainingRun, sequences: u64) {
        let length = self.sequence(run);
        if run.batching.value == Batching::Flattened {
            self.set_batch(1, sequences.saturating_mul(length));
        } else {
            self.set_batch(sequences, length);
        }
    }

    /// Leaves what one rank holds of model and batch.
    pub(crate) fn take_part(&mut self, slice: &Slice, degrees: Degrees) {
        if degrees.one() {
            return;
        }
        self.inventory = parallel::inventory(&self.inventory, slice, degrees, self.architecture.kv_heads);
        parallel::dimensions(&mut self.symbols, degrees, slice.last);
        let batch = self.symbols.get(Symbol::Batch) as u64;
        let sequence = self.symbols.get(Symbol::Sequence) as u64;
        self.set_batch(batch, sequence.div_ceil(degrees.context));
    }

    /// A symbol's value.
    pub(crate) fn get(&self, symbol: Symbol) -> f64 {
        self.symbols.get(symbol)
    }

    /// The table for full training with this attention, and its name; families without a fused
    /// attention run eagerly whatever is asked for.
    pub(crate) fn table(&self, attention: &str, dropout: bool) -> Option<Table> {
        self.table_of(self.family, attention, dropout)
    }

    /// The same for another block of the model's.
    pub(crate) fn table_of(&self, family: &str, attention: &str, dropout: bool) -> Option<Table> {
        let precisions: &[&str] = match self.precision {
            Precision::HalfAutocast => &["amp16", "bf16"],
            other => &[other.key()],
        };
        // A model that has SDPA keeps the same for FlashAttention; one that has not runs eagerly
        // where SDPA is asked for.
        let attentions: &[&str] = match attention {
            _ if without_attention(family) => &["sdpa"],
            "eager" => &["eager"],
            "flash" => &["flash", "sdpa", "eager"],
            other => &[other, "eager"],
        };
        for attention in attentions {
            for precision in precisions {
                let key = format!("{family} {precision} {attention}");
                let with = dropout.then(|| Table::find(&format!("{key} dropout"))).flatten();
                if let Some(table) = with.or_else(|| Table::find(&key)) {
                    return Some(table);
                }
            }
        }
        None
    }
}

/// Whose table holds what a layer saves. transformers' MPT scores every pair of tokens in a tensor,
/// its GPT-2 (which LLM Foundry's plain MPT equals in shape) spells GELU out in eight operations;
/// LLM Foundry's own runs FlashAttention and one GELU. Its block then saves, in 16 bits, two norms' inputs and
/// outputs (8Nd), q, k and v (6Nd), attention's output (2Nd) and logsumexp (4Nh), the MLP's middle
/// before and after GELU (4Nf): StarCoder2's sum with as many key heads as query heads.
fn table_family(run: &TrainingRun, architecture: &Architecture) -> &'static str {
    let own_flash = run.model_code.value == ModelCode::LlmFoundry && run.attention.value != Attention::Eager;
    if matches!(architecture.family, Family::Mpt | Family::Gpt2) && own_flash {
        return "starcoder2";
    }
    // transformers' Llama 4 runs every expert over every token; the others group the tokens, as
    // transformers' GLM-4.5 does, which has the same attention and a shared expert as well.
    let grouped = !matches!(run.model_code.value, ModelCode::Transformers);
    if architecture.family == Family::Llama4 && grouped {
        return "glm4_moe";
    }
    family_key(architecture)
}

/// Blocks without attention are traced once.
fn without_attention(block: &str) -> bool {
    let mixers = ["-linear", "-conv", "-delta"];
    mixers.iter().any(|m| block.ends_with(m)) || block.contains("-mamba") || block.starts_with("nemotron_h-")
}

/// mamba-ssm sums the gradients of a group's B and C in so many parts that every multiprocessor has
/// work (`ssd_chunk_scan.py`, `_chunk_scan_bwd_dC`).
fn parts_of_sums(s: &Symbols) -> u64 {
    let get = |symbol| s.get(symbol);
    if get(Symbol::StateHeads) == 0.0 || get(Symbol::StateGroups) == 0.0 {
        return 0;
    }
    let chunks = get(Symbol::Batch) * (get(Symbol::Sequence) / get(Symbol::StateChunk).max(1.0)).ceil();
    let heads = (get(Symbol::StateHeads) / get(Symbol::StateGroups)).max(1.0);
    let each = (chunks * get(Symbol::StateHeads) / MULTIPROCESSORS).ceil().clamp(1.0, heads);
    (heads / each).ceil() as u64
}

/// Of an H100 or H200 (NVIDIA's data sheet, SXM); an A100 has 108.
const MULTIPROCESSORS: f64 = 132.0;

/// The attention's name in the tables.
pub(crate) fn attention_key(run: &TrainingRun) -> &'static str {
    match run.attention.value {
        Attention::Eager => "eager",
        Attention::SdpaMath => "sdpa:math",
        // torchtune expands keys and values whatever the mask (`own_layers.rs`).
        _ if run.model_code.value == ModelCode::Torchtune => "sdpa+mask",
        Attention::Sdpa if matches!(run.batching.value, Batching::Padded | Batching::Flattened) => {
            "sdpa+mask"
        }
        Attention::Sdpa => "sdpa",
        Attention::Flash | Attention::Flex => "flash",
    }
}

/// Does training apply dropout?
pub(crate) fn dropout(run: &TrainingRun, architecture: &Architecture) -> bool {
    run.dropout.value.unwrap_or(architecture.dropout) > 0.0
}

/// Does an explicit mask replace the window's flash path? SDPA cannot take a window: transformers
/// passes a mask once the sequence reaches it, and keys and values are repeated.
pub(crate) fn window_needs_mask(run: &TrainingRun, architecture: &Architecture) -> bool {
    run.attention.value == Attention::Sdpa
        && run.kernels.value == Kernels::Torch
        && !matches!(run.batching.value, Batching::Padded | Batching::Flattened)
        && architecture.sliding_window.is_some_and(|window| window > 0 && run.sequence_length.value >= window)
        && architecture.sliding_layers != Some(0)
}

fn dimensions(a: &Architecture) -> Symbols {
    let mut s = Symbols::default();
    let query = a.heads.saturating_mul(a.head_dim);
    let key = a.kv_heads.saturating_mul(a.head_dim);
    s.set(Symbol::Hidden, a.hidden_size);
    s.set(Symbol::FeedForward, a.intermediate_size);
    s.set(Symbol::Heads, a.heads);
    s.set(Symbol::KvHeads, a.kv_heads);
    s.set(Symbol::HeadWidth, a.head_dim);
    s.set(Symbol::Query, query);
    s.set(Symbol::Key, key);
    s.set(Symbol::QueryKeyValue, query.saturating_add(key.saturating_mul(2)));
    s.set(Symbol::Vocabulary, a.vocab_size);
    if let Some(moe) = &a.moe {
        s.set(Symbol::Experts, moe.experts);
        s.set(Symbol::TopK, moe.experts_per_token);
        s.set(Symbol::Expert, moe.intermediate_size);
        s.set(Symbol::FeedForward, moe.shared_intermediate_size);
    }
    let dimension = |key: &str| a.dimension(key).ok().flatten().unwrap_or(0);
    let (keys, values) = (dimension("linear_num_key_heads"), dimension("linear_num_value_heads"));
    s.set(Symbol::DeltaKeys, keys.saturating_mul(dimension("linear_key_head_dim")));
    s.set(Symbol::DeltaValues, values.saturating_mul(dimension("linear_value_head_dim")));
    s.set(Symbol::DeltaHeads, values);
    s.set(Symbol::DeltaKeyWidth, dimension("linear_key_head_dim"));
    s.set(Symbol::PerLayer, dimension("hidden_size_per_layer_input"));
    if a.family == Family::KimiLinear {
        let (heads, width) = (dimension("linear_num_heads"), dimension("linear_head_dim"));
        s.set(Symbol::DeltaValues, heads.saturating_mul(width));
        s.set(Symbol::DeltaHeads, heads);
        s.set(Symbol::DeltaKeyWidth, width);
    }
    state_spaces(a, &dimension, &mut s);
    if let Some(mla) = &a.mla {
        let h = a.heads;
        s.set(Symbol::LatentQuery, h.saturating_mul(mla.qk_nope_head_dim + mla.qk_rope_head_dim));
        s.set(Symbol::LatentValue, h.saturating_mul(mla.v_head_dim));
        s.set(Symbol::LatentKeyValue, h.saturating_mul(mla.qk_nope_head_dim + mla.v_head_dim));
        s.set(Symbol::KvRank, mla.kv_lora_rank);
        s.set(Symbol::KvRankRope, mla.kv_lora_rank + mla.qk_rope_head_dim);
        s.set(Symbol::QueryRank, mla.q_lora_rank.unwrap_or(0));
    }
    s
}

/// Dimensions of Mamba's layers, under each family's names for them (as `parameters/mixers.rs`).
fn state_spaces(a: &Architecture, dimension: &dyn Fn(&str) -> u64, s: &mut Symbols) {
    let expanded = a.hidden_size.saturating_mul(dimension("mamba_expand"));
    let (inner, groups, state, heads, chunk) = match a.family {
        Family::Jamba => {
            s.set(Symbol::StateRank, a.config_u64("mamba_dt_rank").unwrap_or(a.hidden_size.div_ceil(16)));
            // Dense and routed MLPs have one width.
            s.set(Symbol::Expert, a.intermediate_size);
            (expanded, 0, dimension("mamba_d_state"), 0, 0)
        }
        Family::Mamba => {
            s.set(Symbol::StateRank, a.config_u64("time_step_rank").unwrap_or(a.hidden_size.div_ceil(16)));
            (a.hidden_size.saturating_mul(dimension("expand")), 0, dimension("state_size"), 0, 0)
        }
        Family::NemotronH => {
            let heads = dimension("mamba_num_heads");
            let inner = heads.saturating_mul(dimension("mamba_head_dim"));
            (inner, dimension("n_groups"), dimension("ssm_state_size"), heads, dimension("chunk_size"))
        }
        Family::FalconH1 | Family::GraniteMoeHybrid => {
            let own = Some(dimension("mamba_d_ssm")).filter(|n| *n > 0 && a.family == Family::FalconH1);
            let (groups, state) = (dimension("mamba_n_groups"), dimension("mamba_d_state"));
            let chunk = dimension("mamba_chunk_size");
            (own.unwrap_or(expanded), groups, state, dimension("mamba_n_heads"), chunk)
        }
        _ => return,
    };
    // The usual chunk of mamba-ssm, where a config leaves it out.
    let chunk = if chunk == 0 { 256 } else { chunk };
    s.set(Symbol::StateInner, inner);
    s.set(Symbol::StateGroups, groups);
    s.set(Symbol::StateSize, state);
    s.set(Symbol::StateHeads, heads);
    s.set(Symbol::StateChunk, chunk);
    s.set(Symbol::StatePerToken, inner.saturating_mul(state) / chunk);
}
