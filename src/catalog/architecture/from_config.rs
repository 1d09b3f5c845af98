//! A Hugging Face `config.json` object to an [`Architecture`].

use super::{Architecture, Family, Mla, Moe, defaults, spellings, vision};
use serde_json::{Map, Value};

/// Usual name, and the names that stand for it: the `attribute_map`s of transformers' config
/// classes, old checkpoints' spellings, and the native format's.
const ALIASES: &[(&str, &[&str])] = &[
    ("hidden_size", &["n_embd", "n_embed", "d_model", "dim"]),
    (
        "intermediate_size",
        &["n_inner", "ffn_dim", "d_ff", "ffn_hidden_size", "hidden_dim", "encoder_ffn_dim"],
    ),
    ("num_hidden_layers", &["n_layer", "n_layers", "num_layers", "encoder_layers"]),
    ("num_attention_heads", &["n_head", "n_heads", "num_heads", "encoder_attention_heads"]),
    ("num_key_value_heads", &["num_kv_heads", "n_kv_heads", "n_head_kv"]),
    ("head_dim", &["d_kv"]),
    ("max_position_embeddings", &["n_positions", "max_seq_len", "seq_length"]),
    ("num_experts", &["num_local_experts", "n_routed_experts"]),
];

/// Above this a dimension is a typing error; it also keeps products of two within 64 bits.
pub(super) const LARGEST_DIMENSION: u64 = 1 << 28;

/// The same for layers, which are counted one by one.
pub(super) const MOST_LAYERS: u64 = 1_000;

/// Dropout rates that act on activations of the layers (a classifier's is none of them).
const DROPOUTS: &[&str] = &[
    "dropout",
    "dropout_rate",
    "hidden_dropout",
    "hidden_dropout_prob",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "activation_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "emb_pdrop",
    "attn_pdrop",
    "resid_dropout",
    "embed_dropout",
    "residual_dropout",
    "embedding_dropout",
    "mlp_dropout",
];

impl Family {
    /// The family of a config's `model_type`, look-alikes included.
    pub fn from_model_type(model_type: &str) -> Option<Family> {
        Some(match model_type {
            // Yi's own class is Llama's under another name.
            "llama" | "Yi" | "yi" => Family::Llama,
            "mistral" | "ministral3" => Family::Mistral,
            "qwen2" | "qwen2_vl_text" | "qwen2_5_vl_text" => Family::Qwen2,
            "qwen3" | "qwen3_vl_text" => Family::Qwen3,
            "gemma" => Family::Gemma,
            "gemma2" => Family::Gemma2,
            "gemma3_text" => Family::Gemma3Text,
            "phi" | "phi-msft" => Family::Phi,
            "phi3" => Family::Phi3,
            "gpt2" => Family::Gpt2,
            "gpt_neox" => Family::GptNeox,
            "gptj" => Family::Gptj,
            "gpt_neo" => Family::GptNeo,
            "falcon" | "RefinedWeb" | "RefinedWebModel" => Family::Falcon,
            "opt" => Family::Opt,
            "bloom" => Family::Bloom,
            "mpt" => Family::Mpt,
            "stablelm" | "stablelm_epoch" => Family::StableLm,
            "starcoder2" => Family::Starcoder2,
            "gpt_bigcode" => Family::GptBigcode,
            "olmo" => Family::Olmo,
            "olmo2" | "olmo3" => Family::Olmo2,
            "smollm3" => Family::SmolLm3,
            "granite" => Family::Granite,
            "glm" => Family::Glm,
            "glm4" | "glm4v_text" | "glm46v_text" => Family::Glm4,
            "glm4_moe" | "glm4v_moe_text" => Family::Glm4Moe,
            "cohere" => Family::Cohere,
            "cohere2" => Family::Cohere2,
            "mixtral" => Family::Mixtral,
            "qwen2_moe" => Family::Qwen2Moe,
            "qwen3_moe" | "qwen3_vl_moe_text" => Family::Qwen3Moe,
            "qwen3_5_text" => Family::Qwen35,
            "qwen3_5_moe_text" => Family::Qwen35Moe,
            "qwen3_next" => Family::Qwen3Next,
            "llama4_text" => Family::Llama4,
            "mllama_text_model" => Family::Mllama,
            "seed_oss" => Family::SeedOss,
            "ernie4_5" => Family::Ernie45,
            "ernie4_5_moe" => Family::Ernie45Moe,
            "hunyuan_v1_dense" => Family::HunyuanDense,
            "hunyuan_v1_moe" => Family::HunyuanMoe,
            "arcee" => Family::Arcee,
            "apertus" => Family::Apertus,
            "nemotron" => Family::Nemotron,
            "nemotron_h" => Family::NemotronH,
            "exaone4" => Family::Exaone4,
            "glm4_moe_lite" => Family::Glm4MoeLite,
            "minicpm3" => Family::MiniCpm3,
            "mistral4" => Family::Mistral4,
            "minimax_m2" => Family::MiniMaxM2,
            "afmoe" => Family::Afmoe,
            "granitemoe" | "granitemoehybrid" => Family::GraniteMoeHybrid,
            "lfm2" => Family::Lfm2,
            "lfm2_moe" => Family::Lfm2Moe,
            "falcon_h1" => Family::FalconH1,
            "jamba" => Family::Jamba,
            "kimi_linear" => Family::KimiLinear,
            "gemma3n_text" => Family::Gemma3n,
            "gemma4_text" | "gemma4_unified_text" => Family::Gemma4,
            "olmoe" => Family::Olmoe,
            "phimoe" => Family::Phimoe,
            "gpt_oss" => Family::GptOss,
            "deepseek_v2" => Family::DeepseekV2,
            "deepseek_v3" => Family::DeepseekV3,
            "dbrx" => Family::Dbrx,
            "bert" => Family::Bert,
            "roberta" | "xlm-roberta" | "camembert" => Family::Roberta,
            "distilbert" => Family::DistilBert,
            "albert" => Family::Albert,
            "modernbert" => Family::ModernBert,
            "t5" | "mt5" => Family::T5,
            "bart" => Family::Bart,
            "mamba" => Family::Mamba,
            "guide_gpt" => Family::GuideGpt,
            _ => return None,
        })
    }
}

/// See [`Architecture::from_config`].
pub(super) fn read(config: &Map<String, Value>) -> Result<Architecture, String> {
    if let Some((text, vision)) = vision::split(config) {
        let mut architecture = language(text, false)?;
        architecture.extra_parameters = extra_parameters(config)?;
        if architecture.quantized.is_none() {
            architecture.quantized = quantized(config);
        }
        architecture.vision = Some(vision);
        return Ok(architecture);
    }
    let extra = extra_parameters(config)?;
    Ok(Architecture { extra_parameters: extra, ..language(config.clone(), true)? })
}

/// `extra_parameters`, a field of ours: parameters of towers whose shapes are not known here.
fn extra_parameters(config: &Map<String, Value>) -> Result<u64, String> {
    match config.get("extra_parameters") {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value
            .as_u64()
            .filter(|n| *n < 1 << 43)
            .ok_or_else(|| "`extra_parameters` is not a number of parameters".to_owned()),
    }
}

/// A config's fields, under their usual names where they have another.
pub(super) struct Fields {
    pub(super) map: Map<String, Value>,
    defaulted: Vec<String>,
}

impl Fields {
    /// A whole number; `None` when absent or null.
    pub(super) fn count(&self, key: &str) -> Result<Option<u64>, String> {
        let value = match self.map.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        // `4096.0` is what some exporters write.
        let number = value.as_u64().or_else(|| {
            value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..1e15).contains(x)).map(|x| x as u64)
        });
        match number {
            Some(n) if n <= LARGEST_DIMENSION => Ok(Some(n)),
            Some(n) => Err(format!("`{key}` is {n}, which no model has")),
            None => Err(format!("`{key}` is not a whole number")),
        }
    }

    pub(super) fn positive(&self, key: &str) -> Result<Option<u64>, String> {
        match self.count(key)? {
            Some(0) => Err(format!("`{key}` is 0")),
            other => Ok(other),
        }
    }

    pub(super) fn need(&self, key: &str) -> Result<u64, String> {
        self.positive(key)?.ok_or_else(|| format!("`{key}` is missing"))
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, String> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(format!("`{key}` is neither true nor false")),
        }
    }

    pub(super) fn nested(&self, outer: &str, key: &str) -> Option<&Value> {
        self.map.get(outer)?.as_object()?.get(key)
    }

    /// The config lists a layer of this type.
    pub(super) fn has_layer_type(&self, wanted: &str) -> bool {
        let types = self.map.get("layer_types").and_then(Value::as_array);
        types.is_some_and(|types| types.iter().any(|kind| kind.as_str() == Some(wanted)))
    }

    pub(super) fn give(&mut self, key: &str, value: impl Into<Value>) {
        self.map.insert(key.to_owned(), value.into());
    }
}

fn language(config: Map<String, Value>, required: bool) -> Result<Architecture, String> {
    let model_type = ["model_type", "architecture"]
        .iter()
        .find_map(|key| config.get(*key)?.as_str())
        .ok_or("`model_type` is missing")?
        .to_owned();
    let family = Family::from_model_type(&model_type)
        .ok_or_else(|| format!("model_type `{model_type}` is not supported"))?;
    let mut fields = Fields { map: config, defaulted: Vec::new() };
    if matches!(model_type.as_str(), "qwen2_vl_text" | "qwen2_5_vl_text") {
        // Their attention always divides the hidden size.
        fields.map.remove("head_dim");
    }
    spellings::unnest(&mut fields, family, &model_type)?;
    for (usual, others) in ALIASES {
        if fields.map.get(*usual).is_none_or(Value::is_null)
            && let Some(value) =
                others.iter().find_map(|name| fields.map.get(*name).filter(|v| !v.is_null())).cloned()
        {
            fields.give(usual, value);
        }
    }
    if required {
        // Every config.json says these two; without them the class's defaults would describe
        // another model.
        for key in ["hidden_size", "num_hidden_layers"] {
            fields.need(key)?;
        }
    }
    for (key, value) in defaults::of(family, &model_type) {
        if !fields.map.contains_key(*key) {
            match value {
                defaults::Value::N(n) => fields.give(key, *n),
                defaults::Value::B(b) => fields.give(key, *b),
            }
            fields.defaulted.push((*key).to_owned());
        }
    }
    assemble(fields, family)
}

fn assemble(fields: Fields, family: Family) -> Result<Architecture, String> {
    let hidden_size = fields.need("hidden_size")?;
    let stacked = fields.need("num_hidden_layers")?;
    let (layers, encoder_layers) = match family {
        Family::T5 => (fields.positive("num_decoder_layers")?.unwrap_or(stacked), stacked),
        Family::Bart => (fields.need("decoder_layers")?, stacked),
        _ => (stacked, 0),
    };
    if layers.max(encoder_layers) > MOST_LAYERS {
        return Err(format!("`num_hidden_layers` is {}, which no model has", layers.max(encoder_layers)));
    }
    let heads = match fields.positive("num_attention_heads")? {
        Some(heads) => heads,
        None if family == Family::Mamba => 1,
        None => return Err("`num_attention_heads` is missing".into()),
    };
    let head_dim = match (fields.positive("head_dim")?, family) {
        (_, Family::Cohere2) | (None, _) => hidden_size / heads,
        (Some(width), _) => width,
    };
    let head_dim = match family {
        _ if has_latent_attention(family) => fields.need("qk_rope_head_dim")?,
        _ => head_dim,
    };
    if head_dim == 0 {
        return Err(format!("`hidden_size` {hidden_size} is smaller than the {heads} attention heads"));
    }
    let kv_heads = kv_heads(&fields, family, heads)?;
    let (qkv_bias, attention_out_bias, mlp_bias) = biases(&fields, family)?;
    let (sliding_window, sliding_layers) = sliding(&fields, family, layers)?;
    let architecture = Architecture {
        family,
        layers,
        encoder_layers,
        hidden_size,
        intermediate_size: intermediate_size(&fields, family, hidden_size)?,
        heads,
        kv_heads,
        head_dim,
        vocab_size: fields.need("vocab_size")?,
        max_positions: fields.count("max_position_embeddings")?.unwrap_or(0),
        // Llama 3.2 Vision's two have different numbers of rows; the classes of Nemotron-H and Kimi Linear tie nothing.
        tied_embeddings: fields.flag("tie_word_embeddings")?
            && !matches!(family, Family::Mllama | Family::NemotronH | Family::KimiLinear),
        sliding_window,
        sliding_layers,
        qkv_bias,
        attention_out_bias,
        mlp_bias,
        dropout: dropout(&fields, family),
        alibi: match family {
            Family::Bloom => true,
            Family::Mpt => fields.nested("attn_config", "alibi").and_then(Value::as_bool).unwrap_or(true),
            _ => fields.flag("alibi")?,
        },
        parallel_residual: match family {
            Family::Gptj | Family::Phi | Family::Cohere | Family::Cohere2 => true,
            Family::Falcon => fields.flag("parallel_attn")?,
            _ => fields.flag("use_parallel_residual")?,
        },
        moe: moe(&fields, family)?,
        mla: mla(&fields, family)?,
        quantized: quantized(&fields.map),
        vision: None,
        extra_parameters: 0,
        defaulted: fields.defaulted,
        config: fields.map,
    };
    positions_are_known(&architecture)?;
    Ok(architecture)
}

/// Learned positions are parameters, so their number must be known.
fn positions_are_known(a: &Architecture) -> Result<(), String> {
    let learned = matches!(
        a.family,
        Family::Gpt2
            | Family::GptBigcode
            | Family::GptNeo
            | Family::Opt
            | Family::Bert
            | Family::Roberta
            | Family::DistilBert
            | Family::Albert
            | Family::Bart
            | Family::GuideGpt
    );
    if learned && a.max_positions == 0 {
        return Err("`max_position_embeddings` is missing, and this model learns its positions".into());
    }
    Ok(())
}

fn kv_heads(fields: &Fields, family: Family, heads: u64) -> Result<u64, String> {
    let multi_query = fields.flag("multi_query")?;
    Ok(match family {
        Family::Falcon if !fields.flag("new_decoder_architecture")? => {
            if multi_query {
                1
            } else {
                heads
            }
        }
        Family::GptBigcode => {
            if multi_query {
                1
            } else {
                heads
            }
        }
        Family::Gpt2 | Family::GptNeox | Family::Gptj | Family::GptNeo | Family::Opt | Family::Bloom => heads,
        _ => fields.positive("num_key_value_heads")?.unwrap_or(heads),
    })
}

fn intermediate_size(fields: &Fields, family: Family, hidden_size: u64) -> Result<u64, String> {
    match family {
        Family::Bloom => return Ok(hidden_size.saturating_mul(4)),
        Family::Mpt => {
            return Ok(fields.positive("expansion_ratio")?.unwrap_or(4).saturating_mul(hidden_size));
        }
        Family::Mamba => return Ok(fields.need("expand")?.saturating_mul(hidden_size)),
        _ => {}
    }
    match (fields.positive("intermediate_size")?, family) {
        (Some(width), _) => Ok(width),
        // These classes mean four times the hidden size by an absent or null width.
        (
            None,
            Family::Gpt2
            | Family::Gptj
            | Family::GptNeo
            | Family::GptBigcode
            | Family::Falcon
            | Family::GuideGpt,
        ) => Ok(hidden_size.saturating_mul(4)),
        // Every layer has experts; the class knows no dense width.
        (None, Family::Qwen35Moe) => fields.need("moe_intermediate_size"),
        (None, _) => Err("`intermediate_size` is missing".into()),
    }
}

/// Biases on q, k, v; on the attention's output; in the MLP.
fn biases(fields: &Fields, family: Family) -> Result<(bool, bool, bool), String> {
    let attention = fields.flag("attention_bias")?;
    let mlp = fields.flag("mlp_bias")?;
    Ok(match family {
        Family::Llama
        | Family::Granite
        | Family::SmolLm3
        | Family::ModernBert
        | Family::DeepseekV2
        | Family::Arcee
        | Family::Nemotron
        | Family::FalconH1 => (attention, attention, mlp),
        Family::SeedOss => (attention, fields.flag("attention_out_bias")?, mlp),
        Family::NemotronH => (attention, attention, mlp),
        Family::Ernie45 | Family::Ernie45Moe => {
            let bias = fields.flag("use_bias")?;
            (bias, bias, bias)
        }
        Family::Qwen2 => (true, false, false),
        Family::Qwen2Moe => (fields.flag("qkv_bias")?, false, false),
        Family::Qwen3
        | Family::Qwen3Moe
        | Family::Qwen35
        | Family::Qwen35Moe
        | Family::Qwen3Next
        | Family::Llama4
        | Family::Gemma
        | Family::Gemma2
        | Family::Gemma3Text
        | Family::Gemma3n
        | Family::Gemma4
        | Family::HunyuanDense
        | Family::HunyuanMoe
        | Family::Apertus
        | Family::Glm4MoeLite
        | Family::MiniCpm3
        | Family::Mistral4
        | Family::KimiLinear
        | Family::GraniteMoeHybrid
        | Family::Olmo
        | Family::Olmo2
        | Family::Olmoe
        | Family::Phimoe
        | Family::Cohere
        | Family::Cohere2
        | Family::DeepseekV3 => (attention, attention, false),
        Family::GptOss => (attention, attention, true),
        Family::Glm | Family::Glm4 | Family::Glm4Moe => (attention, false, false),
        Family::StableLm => (fields.flag("use_qkv_bias")?, false, false),
        Family::GptNeox => (attention, attention, true),
        Family::Gptj => (false, false, true),
        Family::GptNeo => (false, true, true),
        Family::Falcon => {
            let bias = fields.flag("bias")?;
            (bias, bias, bias)
        }
        Family::Starcoder2 => {
            let bias = fields.flag("use_bias")?;
            (bias, bias, bias)
        }
        Family::Opt => {
            let bias = fields.flag("enable_bias")?;
            (bias, bias, bias)
        }
        Family::Phi
        | Family::Gpt2
        | Family::GptBigcode
        | Family::Bloom
        | Family::Bert
        | Family::Roberta
        | Family::DistilBert
        | Family::Albert
        | Family::Bart => (true, true, true),
        Family::Mistral
        | Family::Mixtral
        | Family::Mllama
        | Family::Exaone4
        | Family::MiniMaxM2
        | Family::Afmoe
        | Family::Lfm2
        | Family::Lfm2Moe
        | Family::Jamba
        | Family::Phi3
        | Family::Mpt
        | Family::Dbrx
        | Family::T5
        | Family::Mamba
        | Family::GuideGpt => (false, false, false),
    })
}

/// The window, and how many layers use it, as the config classes and attention modules have it.
fn sliding(fields: &Fields, family: Family, layers: u64) -> Result<(Option<u64>, Option<u64>), String> {
    let window = match family {
        // Half to each side, as its class has it.
        Family::ModernBert => fields.positive("local_attention")?.map(|w| w / 2).filter(|w| *w > 0),
        Family::Qwen2 | Family::Qwen3 | Family::Qwen2Moe | Family::Qwen3Moe | Family::SmolLm3
            if !fields.flag("use_sliding_window")? =>
        {
            None
        }
        Family::Mistral
        | Family::Mixtral
        | Family::Phi3
        | Family::Phimoe
        | Family::Starcoder2
        | Family::Qwen2
        | Family::Qwen3
        | Family::Qwen2Moe
        | Family::Qwen3Moe
        | Family::SmolLm3
        | Family::Gemma2
        | Family::Gemma3Text
        | Family::Gemma3n
        | Family::Gemma4
        | Family::Exaone4
        | Family::Afmoe
        | Family::Cohere2
        | Family::Olmo2
        | Family::GptOss => fields.count("sliding_window")?.filter(|w| *w > 0),
        _ => None,
    };
    let Some(window) = window else { return Ok((None, None)) };
    let listed = fields.map.get("layer_types").and_then(Value::as_array).map(|types| {
        types.iter().filter(|t| t.as_str().is_some_and(|t| t == "sliding_attention")).count() as u64
    });
    let pattern = |key| Ok::<u64, String>(fields.positive(key)?.unwrap_or(1));
    let count = match (listed, family) {
        (Some(count), _) => Some(count.min(layers)),
        // All but every n-th.
        (None, Family::Gemma3Text | Family::Cohere2 | Family::Olmo2 | Family::Exaone4) => {
            Some(layers - layers / pattern("sliding_window_pattern")?)
        }
        (None, Family::Afmoe) => Some(layers - layers / pattern("global_attn_every_n_layers")?),
        // Their classes' own patterns.
        (None, Family::Gemma3n) => Some(layers - layers / 5),
        (None, Family::Gemma4) => Some(layers - layers / 6),
        // The first and every n-th after it are global.
        (None, Family::ModernBert) => Some(layers - layers.div_ceil(pattern("global_attn_every_n_layers")?)),
        // Every other one, the first included.
        (None, Family::Gemma2 | Family::GptOss) => Some(layers.div_ceil(2)),
        (None, Family::Qwen2Moe) => {
            Some(fields.count("max_window_layers")?.unwrap_or(layers).min(layers).div_ceil(2))
        }
        // Those above the threshold.
        (None, Family::Qwen2 | Family::Qwen3) => {
            Some(layers.saturating_sub(fields.count("max_window_layers")?.unwrap_or(0)))
        }
        _ => None,
    };
    Ok(if count == Some(0) { (None, None) } else { (Some(window), count) })
}

fn dropout(fields: &Fields, family: Family) -> f64 {
    // The class's default where the config names none of them.
    let otherwise = match family {
        Family::Gpt2
        | Family::GptBigcode
        | Family::Opt
        | Family::Bert
        | Family::Roberta
        | Family::DistilBert
        | Family::T5
        | Family::Bart => 0.1,
        _ => 0.0,
    };
    let mut rates = DROPOUTS.iter().filter_map(|key| fields.map.get(*key)?.as_f64()).peekable();
    if rates.peek().is_none() {
        return otherwise;
    }
    rates.filter(|rate| (0.0..=1.0).contains(rate)).fold(0.0, f64::max)
}

fn moe(fields: &Fields, family: Family) -> Result<Option<Moe>, String> {
    let (width, shared, shared_width, first_dense_layers) = match family {
        Family::Llama4 | Family::HunyuanMoe => {
            let width = fields.need("intermediate_size")?;
            (width, 1, width, 0)
        }
        // Absent or zero experts: a dense MLP of the shared width.
        Family::GraniteMoeHybrid if fields.count("num_experts")?.unwrap_or(0) == 0 => return Ok(None),
        Family::GraniteMoeHybrid => {
            let shared = fields.count("shared_intermediate_size")?.unwrap_or(0);
            (fields.need("intermediate_size")?, u64::from(shared > 0), shared, 0)
        }
        Family::Gemma4 if !fields.flag("enable_moe_block")? => return Ok(None),
        // The dense MLP stays beside the experts.
        Family::Gemma4 => (fields.need("moe_intermediate_size")?, 1, fields.need("intermediate_size")?, 0),
        Family::Lfm2Moe => {
            let dense = fields.count("num_dense_layers")?.unwrap_or(0);
            (fields.need("moe_intermediate_size")?, 0, 0, dense)
        }
        Family::NemotronH if !fields.has_layer_type("moe") => return Ok(None),
        Family::NemotronH => {
            // The width of all of them together, whatever `n_shared_experts` says.
            let shared = fields.need("moe_shared_expert_intermediate_size")?;
            (fields.need("moe_intermediate_size")?, 1, shared, 0)
        }
        Family::Mixtral
        | Family::Olmoe
        | Family::Phimoe
        | Family::GptOss
        | Family::Dbrx
        | Family::Jamba
        | Family::MiniMaxM2 => (fields.need("intermediate_size")?, 0, 0, 0),
        Family::Qwen3Moe => (fields.need("moe_intermediate_size")?, 0, 0, 0),
        Family::Qwen2Moe | Family::Qwen35Moe | Family::Qwen3Next => {
            let shared = fields.count("shared_expert_intermediate_size")?.unwrap_or(0);
            (fields.need("moe_intermediate_size")?, 1, shared, 0)
        }
        Family::DeepseekV2
        | Family::DeepseekV3
        | Family::Glm4Moe
        | Family::Glm4MoeLite
        | Family::Mistral4
        | Family::KimiLinear
        | Family::Afmoe
        | Family::Ernie45Moe => {
            let width = fields.need("moe_intermediate_size")?;
            let shared = fields.count("n_shared_experts")?.unwrap_or(0);
            (width, shared, shared.saturating_mul(width), fields.count("first_k_dense_replace")?.unwrap_or(0))
        }
        _ => return Ok(None),
    };
    Ok(Some(Moe {
        experts: fields.need("num_experts")?,
        experts_per_token: fields.need("num_experts_per_tok")?,
        intermediate_size: width,
        shared_experts: shared,
        shared_intermediate_size: shared_width,
        first_dense_layers,
    }))
}

/// Multi-head latent attention.
fn has_latent_attention(family: Family) -> bool {
    matches!(
        family,
        Family::DeepseekV2
            | Family::DeepseekV3
            | Family::Glm4MoeLite
            | Family::MiniCpm3
            | Family::Mistral4
            | Family::KimiLinear
    )
}

fn mla(fields: &Fields, family: Family) -> Result<Option<Mla>, String> {
    if !has_latent_attention(family) {
        return Ok(None);
    }
    Ok(Some(Mla {
        q_lora_rank: fields.positive("q_lora_rank")?,
        kv_lora_rank: fields.need("kv_lora_rank")?,
        qk_nope_head_dim: fields.need("qk_nope_head_dim")?,
        qk_rope_head_dim: fields.need("qk_rope_head_dim")?,
        v_head_dim: fields.need("v_head_dim")?,
    }))
}

/// The checkpoint's own quantisation, by the name of the format.
fn quantized(config: &Map<String, Value>) -> Option<String> {
    let table = config.get("quantization_config")?.as_object()?;
    let flag = |key: &str| table.get(key).and_then(Value::as_bool) == Some(true);
    let method = table.get("quant_method").and_then(Value::as_str).unwrap_or("bitsandbytes");
    Some(match method {
        "bitsandbytes" if flag("load_in_8bit") => "int8".to_owned(),
        "bitsandbytes" => {
            table.get("bnb_4bit_quant_type").and_then(Value::as_str).unwrap_or("fp4").to_owned()
        }
        other => other.to_owned(),
    })
}
