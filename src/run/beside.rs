//! What some ways of training keep on the GPU beside the trained model: other models, and the
//! texts that are generated between steps.

use super::{ModelRef, Origin, Setting};

/// Why a second model is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Distillation learns from its logits. Frozen.
    Teacher,
    /// Scores the answers. Frozen.
    Reward,
    /// Predicts the scores, and is trained like the policy (PPO).
    Value,
    /// Its hidden states are what is learnt to match. Frozen.
    Features,
}

impl Role {
    /// For a message: `teacher model`.
    pub fn describe(self) -> &'static str {
        match self {
            Role::Teacher => "teacher model",
            Role::Reward => "reward model",
            Role::Value => "value model",
            Role::Features => "feature network",
        }
    }
}

/// A model beside the trained one.
#[derive(Clone, Debug, PartialEq)]
pub struct Companion {
    /// Why it is there.
    pub role: Role,
    /// Which model.
    pub model: Setting<ModelRef>,
    /// Its parameters, once it was looked up.
    pub parameters: u64,
}

/// Who writes the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generator {
    /// The trained model itself, with a cache of keys and values.
    Model,
    /// The same without a cache.
    WithoutCache,
    /// vLLM on the same GPU, which sets a share of the card aside for itself.
    Colocated,
    /// A server on other GPUs.
    Elsewhere,
}

/// Texts generated between steps (PPO, GRPO).
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Sequences a GPU generates at once, each as long as the run's sequences.
    pub sequences: Setting<u64>,
    /// Who generates.
    pub generator: Setting<Generator>,
    /// The part of the card that a colocated vLLM takes, between 0 and 1.
    pub share: Option<Setting<f64>>,
    /// `share` in bytes, once the card is known.
    pub reserved: u64,
    /// A colocated vLLM gives its memory back between generations (sleep mode).
    pub sleeps: bool,
}

/// What fake quantisation copies (quantisation-aware training).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FakeQuantization {
    /// Weights only.
    Weights,
    /// Weights and the inputs of the linear layers.
    WeightsAndInputs,
}

/// Something that is only bounded, not derived: how far activations and temporaries may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Doubt {
    /// Why, for the interval's list of causes.
    pub why: &'static str,
    /// How much lower they may be, as a part of them.
    pub below: f64,
    /// How much higher.
    pub above: f64,
}

/// All of it; the default is nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beside {
    /// Other models.
    pub companions: Vec<Companion>,
    /// Generation between steps.
    pub rollout: Option<Rollout>,
    /// Quantisation-aware training.
    pub fake_quantization: Option<Setting<FakeQuantization>>,
    /// The adapters are orthogonal, in blocks of this size (OFT), and not of low rank.
    pub orthogonal_block: Option<Setting<u64>>,
    /// The weights of routed experts stay in the host's memory, and are computed with there.
    pub experts_on_host: Option<Setting<bool>>,
    /// Regular expressions over parameters' names, from their start: only what matches is trained.
    pub trained_patterns: Option<Setting<Vec<String>>>,
    /// The trained layers are not the last ones, so that the backward goes through all.
    pub spread_layers: bool,
    /// What is trained beside adapters is cast to their dtype.
    pub trained_like_adapters: bool,
    /// What widens the interval.
    pub doubts: Vec<Doubt>,
}

impl Beside {
    /// The settings with their values as people write them, for `explain`.
    pub(super) fn settings(&self) -> Vec<(&'static str, String, &Origin)> {
        let mut list: Vec<(&'static str, String, &Origin)> = Vec::new();
        for companion in &self.companions {
            let name = match companion.role {
                Role::Teacher => "teacher_model",
                Role::Reward => "reward_model",
                Role::Value => "value_model",
                Role::Features => "feature_network",
            };
            list.push((name, companion.model.value.to_string(), &companion.model.origin));
        }
        if let Some(rollout) = &self.rollout {
            list.push(("rollout.sequences", rollout.sequences.value.to_string(), &rollout.sequences.origin));
            let generator = match rollout.generator.value {
                Generator::Model => "the trained model",
                Generator::WithoutCache => "the trained model, without a cache",
                Generator::Colocated => "vLLM on the same GPU",
                Generator::Elsewhere => "vLLM on other GPUs",
            };
            list.push(("rollout.generator", generator.into(), &rollout.generator.origin));
            if let Some(share) = &rollout.share {
                list.push(("rollout.vllm_share", share.value.to_string(), &share.origin));
            }
        }
        if let Some(fake) = &self.fake_quantization {
            let what = match fake.value {
                FakeQuantization::Weights => "weights",
                FakeQuantization::WeightsAndInputs => "weights and inputs",
            };
            list.push(("fake_quantization", what.into(), &fake.origin));
        }
        if let Some(block) = &self.orthogonal_block {
            list.push(("oft.block_size", block.value.to_string(), &block.origin));
        }
        if let Some(patterns) = &self.trained_patterns {
            list.push(("trained_parameters", patterns.value.join(", "), &patterns.origin));
        }
        if let Some(host) = &self.experts_on_host {
            list.push(("offload.experts", host.value.to_string(), &host.origin));
        }
        list
    }
}
