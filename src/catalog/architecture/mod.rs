//! A model's shape: everything that parameter counts and activations need.

mod defaults;
mod from_config;
mod layers;
mod recent;
mod spellings;
mod vision;

pub use layers::{Layer, LayerMlp, Mixer};
pub use vision::{Vision, VisionClass};

/// Which modelling code of transformers a model runs: the unit of parameter names and of saved
/// activations. Several public families share one (`Yi`, `TinyLlama`, `SmolLM` are `llama`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the `model_type` of a Hugging Face config.json")]
pub enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma,
    Gemma2,
    Gemma3Text,
    Phi,
    Phi3,
    #[serde(rename = "gpt2")]
    Gpt2,
    GptNeox,
    Gptj,
    GptNeo,
    Falcon,
    Opt,
    Bloom,
    Mpt,
    #[serde(rename = "stablelm")]
    StableLm,
    Starcoder2,
    GptBigcode,
    Olmo,
    Olmo2,
    #[serde(rename = "smollm3")]
    SmolLm3,
    Granite,
    Glm,
    Glm4,
    /// GLM-4.5 and its successors with experts.
    Glm4Moe,
    Cohere,
    Cohere2,
    Mixtral,
    #[serde(rename = "qwen2_moe")]
    Qwen2Moe,
    #[serde(rename = "qwen3_moe")]
    Qwen3Moe,
    /// Qwen3.5: three layers of gated delta nets to one of gated attention.
    #[serde(rename = "qwen3_5")]
    Qwen35,
    /// Qwen3.5 with experts.
    #[serde(rename = "qwen3_5_moe")]
    Qwen35Moe,
    #[serde(rename = "qwen3_next")]
    Qwen3Next,
    /// Llama 4's language model.
    Llama4,
    /// Llama 3.2 Vision's language model: some layers attend to the image alone.
    Mllama,
    SeedOss,
    #[serde(rename = "ernie4_5")]
    Ernie45,
    #[serde(rename = "ernie4_5_moe")]
    Ernie45Moe,
    #[serde(rename = "hunyuan_v1_dense")]
    HunyuanDense,
    #[serde(rename = "hunyuan_v1_moe")]
    HunyuanMoe,
    Arcee,
    Apertus,
    Nemotron,
    /// Mamba-2, attention and MLPs as layers of their own.
    NemotronH,
    Exaone4,
    /// GLM-4.7-Flash: experts with latent attention.
    Glm4MoeLite,
    #[serde(rename = "minicpm3")]
    MiniCpm3,
    Mistral4,
    #[serde(rename = "minimax_m2")]
    MiniMaxM2,
    Afmoe,
    /// Granite 3 MoE and Granite 4: Mamba-2 or attention, experts or a dense MLP.
    #[serde(rename = "granitemoehybrid")]
    GraniteMoeHybrid,
    Lfm2,
    Lfm2Moe,
    FalconH1,
    Jamba,
    KimiLinear,
    #[serde(rename = "gemma3n_text")]
    Gemma3n,
    #[serde(rename = "gemma4_text")]
    Gemma4,
    Olmoe,
    Phimoe,
    GptOss,
    DeepseekV2,
    DeepseekV3,
    Dbrx,
    Bert,
    Roberta,
    #[serde(rename = "distilbert")]
    DistilBert,
    Albert,
    #[serde(rename = "modernbert")]
    ModernBert,
    T5,
    Bart,
    Mamba,
    /// The seed guide's plain GPT: learned positions, two norms a layer, none at the end, no biases.
    GuideGpt,
}

/// Mixture-of-experts dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Moe {
    /// Routed experts a layer.
    pub experts: u64,
    /// Experts a token goes to.
    pub experts_per_token: u64,
    /// FFN width of one expert.
    pub intermediate_size: u64,
    /// Shared experts a layer.
    pub shared_experts: u64,
    /// FFN width of all shared experts together (0: none).
    pub shared_intermediate_size: u64,
    /// Leading layers with a dense FFN instead.
    pub first_dense_layers: u64,
}

/// Multi-head latent attention dimensions (DeepSeek-V2/V3).
#[derive(Clone, Debug, PartialEq)]
pub struct Mla {
    /// Rank of the query compression; `None`: queries are not compressed.
    pub q_lora_rank: Option<u64>,
    /// Rank of the key/value compression.
    pub kv_lora_rank: u64,
    /// Per-head query/key width without rotary.
    pub qk_nope_head_dim: u64,
    /// Per-head rotary width.
    pub qk_rope_head_dim: u64,
    /// Per-head value width.
    pub v_head_dim: u64,
}

/// A model's shape, from a `config.json` or the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The modelling code.
    pub family: Family,
    /// Transformer layers (of the decoder, for encoder-decoders).
    pub layers: u64,
    /// Encoder layers of an encoder-decoder; 0 otherwise.
    pub encoder_layers: u64,
    /// Hidden size `d`.
    pub hidden_size: u64,
    /// FFN width `f`.
    pub intermediate_size: u64,
    /// Query heads.
    pub heads: u64,
    /// Key/value heads.
    pub kv_heads: u64,
    /// Width of one head.
    pub head_dim: u64,
    /// Vocabulary, padding included.
    pub vocab_size: u64,
    /// Learned positions, or the longest sequence the model was made for; 0 where the config
    /// sets no limit (T5, Mamba).
    pub max_positions: u64,
    /// Input and output embeddings are one tensor.
    pub tied_embeddings: bool,
    /// Sliding attention window in tokens, where the model uses one.
    pub sliding_window: Option<u64>,
    /// Layers that use the window (`None`: all, when there is a window).
    pub sliding_layers: Option<u64>,
    /// Biases on q, k, v.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub attention_out_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// The model config's own dropout rate (residual, attention), where training applies it.
    pub dropout: f64,
    /// ALiBi instead of rotary positions (Falcon, BLOOM, MPT).
    pub alibi: bool,
    /// Attention and MLP run in parallel off one norm (Falcon, GPT-J, Phi, Cohere).
    pub parallel_residual: bool,
    /// Experts.
    pub moe: Option<Moe>,
    /// Latent attention.
    pub mla: Option<Mla>,
    /// Quantisation that the checkpoint itself has (`quantization_config`): `nf4`, `fp8`, `gptq`, `mxfp4`, …
    pub quantized: Option<String>,
    /// The vision part of a vision-language model; the other fields describe its language model.
    pub vision: Option<Vision>,
    /// Parameters beyond both, counted but not shaped.
    pub extra_parameters: u64,
    /// Dimensions that the config leaves out and that are its class's default in transformers.
    pub defaulted: Vec<String>,
    /// The `config.json` object it came from, for rare family-specific fields; names that stand
    /// for one of the usual names (`n_embd`) are there under the usual name as well, and absent
    /// fields hold the default of the config's class.
    pub config: serde_json::Map<String, serde_json::Value>,
}

impl Architecture {
    /// Loaded bare or as a classifier: the first of `architectures` names a class of an encoder
    /// that scores no vocabulary (`BertModel`, `BertForSequenceClassification`).
    pub fn without_vocabulary_head(&self) -> bool {
        let class = self.config.get("architectures").and_then(|list| list.get(0)).and_then(|c| c.as_str());
        let plain = |class: &str| {
            let class = class.strip_suffix("Model").or_else(|| class.split_once("For").map(|(base, _)| base));
            matches!(class, Some("Bert" | "Roberta" | "XLMRoberta" | "DistilBert"))
        };
        matches!(self.family, Family::Bert | Family::Roberta | Family::DistilBert)
            && class.is_some_and(|c| plain(c) && !c.ends_with("LM") && !c.ends_with("PreTraining"))
    }

    /// A whole number in the original config.
    pub fn config_u64(&self, key: &str) -> Option<u64> {
        self.config.get(key)?.as_u64()
    }

    /// A dimension in the original config; `None` when absent or null.
    ///
    /// # Errors
    /// A sentence, when it is no whole number or larger than any model has.
    pub fn dimension(&self, key: &str) -> Result<Option<u64>, String> {
        match self.config.get(key) {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(value) => value
                .as_u64()
                .filter(|n| *n <= from_config::LARGEST_DIMENSION)
                .map(Some)
                .ok_or_else(|| format!("`{key}` is not a whole number that a model has")),
        }
    }

    /// A flag in the original config.
    pub fn config_bool(&self, key: &str) -> Option<bool> {
        self.config.get(key)?.as_bool()
    }

    /// Reads a Hugging Face `config.json` object, or the native format's spelling of one
    /// (`architecture` for `model_type`, `d_model`, `n_heads`, …). A vision-language config gives
    /// its language model, with the rest in [`Architecture::vision`].
    ///
    /// # Errors
    /// A sentence that says which `model_type` or field is missing or not supported.
    pub fn from_config(config: &serde_json::Map<String, serde_json::Value>) -> Result<Architecture, String> {
        from_config::read(config)
    }
}
