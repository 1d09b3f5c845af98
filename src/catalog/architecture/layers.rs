//! What each layer of a model is made of, where its layers differ.

use serde_json::Value;

use super::{Architecture, Family};

/// What a layer mixes tokens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mixer {
    /// Attention, of the model's usual dimensions.
    Attention,
    /// Attention within a window, where those layers have dimensions of their own (Gemma 4).
    SlidingAttention,
    /// A gated delta net (Qwen3-Next, Qwen3.5).
    DeltaNet,
    /// Kimi's delta attention.
    KimiDelta,
    /// Attention to the image alone (Llama 3.2 Vision).
    CrossAttention,
    /// A state space of the second kind (Mamba-2).
    Mamba2,
    /// A state space of the first kind (Jamba).
    Mamba1,
    /// Attention and Mamba-2 side by side (Falcon-H1).
    AttentionAndMamba2,
    /// A short convolution (LFM2).
    ShortConvolution,
    /// The layer mixes nothing: it is an MLP alone (Nemotron-H).
    None,
}

/// A layer's MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerMlp {
    /// Dense, of the model's FFN width.
    Dense,
    /// Dense, of twice that width.
    Double,
    /// Routed experts.
    Sparse,
    /// None: the layer only mixes (Nemotron-H).
    None,
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layer {
    /// What it mixes tokens with.
    pub mixer: Mixer,
    /// Its MLP.
    pub mlp: LayerMlp,
    /// Its keys and values are an earlier layer's (Gemma 3n and 4).
    pub shares_keys: bool,
}

impl Architecture {
    /// What `layer` (from 0) is made of.
    pub fn layer(&self, layer: u64) -> Layer {
        let shares_keys = self.layer_shares_keys(layer);
        if self.family == Family::NemotronH {
            let (mixer, mlp) = match self.layer_type(layer) {
                Some("moe") => (Mixer::None, LayerMlp::Sparse),
                Some("mlp") => (Mixer::None, LayerMlp::Dense),
                Some("attention" | "full_attention") => (Mixer::Attention, LayerMlp::None),
                _ => (Mixer::Mamba2, LayerMlp::None),
            };
            return Layer { mixer, mlp, shares_keys };
        }
        let mlp = if self.layer_is_sparse(layer) {
            LayerMlp::Sparse
        } else if shares_keys && self.config_bool("use_double_wide_mlp") == Some(true) {
            LayerMlp::Double
        } else {
            LayerMlp::Dense
        };
        Layer { mixer: self.mixer(layer), mlp, shares_keys }
    }

    fn mixer(&self, layer: u64) -> Mixer {
        let linear = |otherwise: bool| match self.layer_type(layer) {
            Some(kind) => matches!(kind, "linear_attention" | "mamba" | "mamba2"),
            None => otherwise,
        };
        let every = |key: &str, default: u64| self.config_u64(key).unwrap_or(default).max(1);
        match self.family {
            Family::Qwen35 | Family::Qwen35Moe | Family::Qwen3Next
                if linear(!(layer + 1).is_multiple_of(every("full_attention_interval", 4))) =>
            {
                Mixer::DeltaNet
            }
            Family::KimiLinear if linear(!(layer + 1).is_multiple_of(4)) => Mixer::KimiDelta,
            Family::GraniteMoeHybrid if linear(!self.is_of_type("granitemoe")) => Mixer::Mamba2,
            Family::FalconH1 => Mixer::AttentionAndMamba2,
            Family::Jamba => {
                let period = every("attn_layer_period", 8);
                let offset = self.config_u64("attn_layer_offset").unwrap_or(4);
                let attention = match self.layer_type(layer) {
                    Some(kind) => kind.ends_with("attention") && kind != "linear_attention",
                    None => layer % period == offset,
                };
                if attention { Mixer::Attention } else { Mixer::Mamba1 }
            }
            Family::Lfm2 | Family::Lfm2Moe => match self.layer_type(layer) {
                Some("conv" | "short_conv") => Mixer::ShortConvolution,
                Some(_) => Mixer::Attention,
                None => match self.config.get("full_attn_idxs").and_then(Value::as_array) {
                    Some(full) if !full.iter().any(|l| l.as_u64() == Some(layer)) => Mixer::ShortConvolution,
                    _ => Mixer::Attention,
                },
            },
            Family::Gemma4 => {
                let full = match self.layer_type(layer) {
                    Some(kind) => kind == "full_attention",
                    None => (layer + 1).is_multiple_of(6),
                };
                // The class makes the last layer attend to everything, whatever the config lists.
                if full || layer + 1 == self.layers { Mixer::Attention } else { Mixer::SlidingAttention }
            }
            Family::Mllama if self.attends_to_image(layer) => Mixer::CrossAttention,
            _ => Mixer::Attention,
        }
    }

    fn layer_type(&self, layer: u64) -> Option<&str> {
        let types = self.config.get("layer_types").and_then(Value::as_array)?;
        types.get(usize::try_from(layer).ok()?)?.as_str()
    }

    fn is_of_type(&self, model_type: &str) -> bool {
        self.config.get("model_type").and_then(Value::as_str) == Some(model_type)
    }

    fn layer_shares_keys(&self, layer: u64) -> bool {
        let shared = match self.family {
            Family::Gemma4 | Family::Gemma3n => self.config_u64("num_kv_shared_layers").unwrap_or(0),
            _ => 0,
        };
        layer >= self.layers.saturating_sub(shared) && shared > 0
    }

    fn attends_to_image(&self, layer: u64) -> bool {
        match self.config.get("cross_attention_layers").and_then(Value::as_array) {
            Some(layers) => layers.iter().any(|l| l.as_u64() == Some(layer)),
            None => layer % 5 == 3,
        }
    }

    /// True when `layer` (from 0) has experts.
    pub fn layer_is_sparse(&self, layer: u64) -> bool {
        let Some(moe) = &self.moe else { return false };
        let listed = |key: &str| {
            let layers = self.config.get(key).and_then(Value::as_array)?;
            Some(layers.iter().any(|l| l.as_u64() == Some(layer)))
        };
        let every = |key: &str, default: u64| self.config_u64(key).unwrap_or(default).max(1);
        match self.family {
            Family::NemotronH => self.layer_type(layer) == Some("moe"),
            Family::Llama4 => listed("moe_layers")
                .unwrap_or_else(|| (layer + 1).is_multiple_of(every("interleave_moe_layer_step", 1))),
            Family::Qwen2Moe | Family::Qwen3Moe | Family::Qwen3Next => {
                listed("mlp_only_layers") != Some(true)
                    && (layer + 1).is_multiple_of(every("decoder_sparse_step", 1))
            }
            Family::Jamba => {
                layer % every("expert_layer_period", 2) == self.config_u64("expert_layer_offset").unwrap_or(1)
            }
            Family::Glm4MoeLite | Family::KimiLinear => {
                let types = self.config.get("mlp_layer_types").and_then(Value::as_array);
                let kind = types.and_then(|t| t.get(usize::try_from(layer).ok()?)?.as_str());
                kind.map_or(layer >= moe.first_dense_layers, |kind| kind == "sparse")
            }
            _ => layer >= moe.first_dense_layers,
        }
    }
}
