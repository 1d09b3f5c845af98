//! The list of a model's parameter tensors, and the sums over it.

use super::{build::Build, decoders, encoders, gpt, vision};
use crate::catalog::{Architecture, Family};

/// Where in the model a tensor sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In the vision tower or the projector of a vision-language model.
    Vision,
    /// Before the first layer: token, position and type embeddings and their norm.
    Embedding,
    /// In the encoder's layers of an encoder-decoder.
    Encoder {
        /// Index of the first layer that has it.
        first: u64,
        /// How many layers in a row have it.
        count: u64,
    },
    /// In the layers (the decoder's, for an encoder-decoder).
    Layers {
        /// Index of the first layer that has it.
        first: u64,
        /// How many layers in a row have it.
        count: u64,
    },
    /// The norm after the last layer.
    FinalNorm,
    /// The output head with what stands before it (BERT's transform).
    Head,
    /// Anything else outside the layers (OPT's projections, ALBERT's one shared layer).
    Other,
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The token embedding.
    InputEmbedding,
    /// Learned positions, T5's relative position table included.
    PositionEmbedding,
    /// Segment embeddings (BERT).
    TypeEmbedding,
    /// Projections, sinks and gates of attention.
    Attention,
    /// The dense MLP, and shared experts.
    Mlp,
    /// Routed experts.
    Expert,
    /// What chooses among them.
    Router,
    /// Scale or shift of a norm.
    Norm,
    /// The output head.
    Head,
    /// A state-space mixer (Mamba).
    Mixer,
    /// A low-rank adapter's part.
    Adapter,
    /// Anything else.
    Other,
}

/// How a linear layer stores its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinearKind {
    /// `torch.nn.Linear`: out by in.
    Linear,
    /// transformers' `Conv1D` (GPT-2): in by out.
    Conv1d,
}

/// A linear layer: PEFT can adapt it, and bitsandbytes can quantise most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Linear {
    /// Input features.
    pub input: u64,
    /// Output features.
    pub output: u64,
    /// The module's class.
    pub kind: LinearKind,
}

/// One parameter tensor, or one of the same shape in each of several layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// As in `named_parameters()`, `*` for the layer: `model.layers.*.self_attn.q_proj.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// How many of them there are.
    pub copies: u64,
    /// Where.
    pub place: Place,
    /// What for.
    pub role: Role,
    /// Set on the weight of a linear layer.
    pub linear: Option<Linear>,
    /// It is another tensor of the list under a second name: counted there, not here.
    pub tied: bool,
}

impl Tensor {
    /// Elements of one copy.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |n, &side| n.saturating_mul(side))
    }

    /// Elements of all copies, 0 for a tied tensor.
    pub fn parameters(&self) -> u64 {
        if self.tied { 0 } else { self.elements().saturating_mul(self.copies) }
    }

    /// The name of the module that owns it: `model.layers.*.self_attn.q_proj`.
    pub fn module(&self) -> &str {
        self.name.rsplit_once('.').map_or(self.name.as_str(), |(module, _)| module)
    }

    /// The module's name within its layer (`self_attn.q_proj`), or in full outside the layers.
    pub fn module_in_layer(&self) -> &str {
        self.module().split_once(".*.").map_or(self.module(), |(_, rest)| rest)
    }

    /// The last part of the module's name: `q_proj`.
    pub fn module_name(&self) -> &str {
        self.module().rsplit_once('.').map_or(self.module(), |(_, last)| last)
    }

    /// True for a tensor in a layer of the model, encoder or decoder.
    pub fn in_layer(&self) -> bool {
        matches!(self.place, Place::Layers { .. } | Place::Encoder { .. })
    }

    /// True for a `.bias`.
    pub fn is_bias(&self) -> bool {
        self.name.ends_with(".bias")
    }

    /// A bias or norm: one dimension.
    pub fn is_vector(&self) -> bool {
        self.shape.len() == 1
    }
}

/// Layers in a row that have the same tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKind {
    /// They belong to the encoder of an encoder-decoder.
    pub encoder: bool,
    /// Index of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Parameters of one of them.
    pub parameters: u64,
}

/// Every parameter tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Inventory {
    family: Family,
    tensors: Vec<Tensor>,
    extra: u64,
}

/// More parameters than any machine could hold: a typing error, and beyond it sums could overflow.
const ABSURD: u128 = 1 << 53;

impl Inventory {
    /// The tensors of `architecture`, as transformers 5.23 builds the model with its usual head
    /// (causal, masked or sequence-to-sequence language modelling).
    ///
    /// # Errors
    /// A sentence that says which dimensions do not go together.
    pub fn of(architecture: &Architecture) -> Result<Inventory, String> {
        let mut build = Build::new(architecture);
        match architecture.family {
            Family::Gpt2
            | Family::GptNeox
            | Family::Gptj
            | Family::GptNeo
            | Family::Falcon
            | Family::Opt
            | Family::Bloom
            | Family::Mpt
            | Family::GptBigcode
            | Family::Mamba
            | Family::GuideGpt => gpt::model(&mut build)?,
            Family::Bert
            | Family::Roberta
            | Family::DistilBert
            | Family::Albert
            | Family::ModernBert
            | Family::T5
            | Family::Bart => encoders::model(&mut build)?,
            _ => decoders::model(&mut build)?,
        }
        if let Some(part) = &architecture.vision {
            vision::model(&mut build, part, architecture.hidden_size)?;
        }
        let tensors = build.finish();
        let all: u128 = tensors
            .iter()
            .map(|t| u128::from(t.elements()) * u128::from(t.copies))
            .fold(u128::from(architecture.extra_parameters), u128::saturating_add);
        if all > ABSURD {
            return Err("the model's dimensions give more than 9·10^15 parameters".into());
        }
        Ok(Inventory { family: architecture.family, tensors, extra: architecture.extra_parameters })
    }

    /// Some of the tensors, or parts of them: what one rank holds.
    pub(crate) fn part(&self, tensors: Vec<Tensor>) -> Inventory {
        Inventory { family: self.family, tensors, extra: self.extra }
    }

    /// Other tensors of the same model: the trained ones of adapter training.
    pub(super) fn with_tensors(&self, tensors: Vec<Tensor>) -> Inventory {
        Inventory { family: self.family, tensors, extra: 0 }
    }

    /// The modelling code.
    pub fn family(&self) -> Family {
        self.family
    }

    /// True when there is a vision part.
    pub fn has_vision(&self) -> bool {
        self.tensors.iter().any(|t| t.place == Place::Vision)
    }

    /// The list, in the order of the forward pass.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensors that are not another one's second name.
    pub fn own(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter().filter(|t| !t.tied)
    }

    fn sum(&self, which: impl Fn(&Tensor) -> bool) -> u64 {
        self.own().filter(|t| which(t)).map(Tensor::parameters).fold(0, u64::saturating_add)
    }

    /// All parameters, tied ones once, with those of a vision part.
    pub fn total(&self) -> u64 {
        self.sum(|_| true).saturating_add(self.extra)
    }

    /// All parameters of the language model, tied ones once.
    pub fn language(&self) -> u64 {
        self.sum(|t| t.place != Place::Vision)
    }

    /// Parameters outside the language model: the vision part's, and any that are not listed.
    pub fn extra(&self) -> u64 {
        self.sum(|t| t.place == Place::Vision).saturating_add(self.extra)
    }

    /// Parameters in the layers, encoder's and decoder's.
    pub fn in_layers(&self) -> u64 {
        self.sum(Tensor::in_layer)
    }

    /// The layers by kind, in order, the encoder's first.
    pub fn layer_kinds(&self) -> Vec<LayerKind> {
        let mut kinds: Vec<LayerKind> = Vec::new();
        for encoder in [true, false] {
            let mut ranges: Vec<(u64, u64, u64)> = Vec::new();
            for tensor in self.own() {
                let (first, count) = match (tensor.place, encoder) {
                    (Place::Encoder { first, count }, true) | (Place::Layers { first, count }, false) => {
                        (first, count)
                    }
                    _ => continue,
                };
                let per_layer = tensor.parameters().checked_div(count).unwrap_or(0);
                ranges.push((first, first + count, per_layer));
            }
            let mut edges: Vec<u64> = ranges.iter().flat_map(|r| [r.0, r.1]).collect();
            edges.sort_unstable();
            edges.dedup();
            for (&first, &end) in edges.iter().zip(edges.iter().skip(1)) {
                let parameters =
                    ranges.iter().filter(|r| r.0 <= first && end <= r.1).map(|r| r.2).sum::<u64>();
                if parameters > 0 {
                    kinds.push(LayerKind { encoder, first, count: end - first, parameters });
                }
            }
        }
        kinds
    }

    /// Parameters of the largest layer.
    pub fn largest_layer(&self) -> u64 {
        self.layer_kinds().iter().map(|k| k.parameters).max().unwrap_or(0)
    }

    /// Parameters of the layers' matrices (two dimensions): what autocast casts and caches.
    /// Grouped expert tensors have three dimensions and are not among them.
    pub fn layer_linear_parameters(&self) -> u64 {
        self.sum(|t| t.in_layer() && t.shape.len() == 2)
    }

    /// Parameters of the input embedding.
    pub fn embedding(&self) -> u64 {
        self.sum(|t| t.role == Role::InputEmbedding)
    }

    /// Parameters of every embedding table: tokens, positions, segments.
    pub fn all_embeddings(&self) -> u64 {
        self.sum(|t| matches!(t.role, Role::InputEmbedding | Role::PositionEmbedding | Role::TypeEmbedding))
    }

    /// Parameters of the output head's matrix; 0 when it is the input embedding.
    pub fn head(&self) -> u64 {
        self.sum(|t| t.role == Role::Head && t.shape.len() == 2 && t.place == Place::Head)
    }

    /// True when the head's matrix is the input embedding.
    pub fn head_is_tied(&self) -> bool {
        self.tensors.iter().any(|t| t.role == Role::Head && t.tied && t.shape.len() == 2)
    }

    /// How many parameter tensors there are.
    pub fn tensor_count(&self) -> u64 {
        self.own().map(|t| t.copies).sum()
    }

    /// Elements of the largest tensor.
    pub fn largest_tensor(&self) -> u64 {
        self.own().map(Tensor::elements).max().unwrap_or(0)
    }

    /// Parameters in tensors of fewer than `limit` elements (bitsandbytes keeps 32-bit states for
    /// those under 4096).
    pub fn parameters_in_tensors_smaller_than(&self, limit: u64) -> u64 {
        self.sum(|t| t.elements() < limit)
    }

    /// What Adafactor keeps: for a matrix (or a stack of them) one value a row and one a column,
    /// for a vector one an element.
    pub fn adafactor_rows_and_columns(&self) -> u64 {
        self.own()
            .map(|t| {
                let each = match t.shape.as_slice() {
                    [.., rows, columns] if *rows > 0 && *columns > 0 => {
                        (t.elements() / columns).saturating_add(t.elements() / rows)
                    }
                    _ => t.elements(),
                };
                each.saturating_mul(t.copies)
            })
            .fold(0, u64::saturating_add)
    }

    /// Parameters in tensors of one dimension.
    pub fn in_vectors(&self) -> u64 {
        self.sum(Tensor::is_vector)
    }

    /// Parameters named `.bias`.
    pub fn biases(&self) -> u64 {
        self.sum(Tensor::is_bias)
    }

    /// Parameters in vectors that are no biases: scales of norms, and the few other vectors.
    pub fn norm_weights(&self) -> u64 {
        self.sum(|t| t.is_vector() && !t.is_bias())
    }

    /// Parameters of the norms, scales and shifts.
    pub fn norms(&self) -> u64 {
        self.sum(|t| t.role == Role::Norm)
    }

    /// Parameters of the routed experts.
    pub fn experts(&self) -> u64 {
        self.sum(|t| t.role == Role::Expert)
    }

    /// Weights of the linear layers that are not the output head, with their tensors.
    pub fn linears(&self) -> impl Iterator<Item = (&Tensor, Linear)> {
        self.tensors
            .iter()
            .filter(|t| t.role != Role::Head)
            .filter_map(|t| t.linear.map(|linear| (t, linear)))
    }

    /// True when bitsandbytes replaces the module of this weight on loading: a `Conv1D`, or an
    /// `nn.Linear` and no subclass of it, that is not the head nor (T5's `wo`) kept in fp32.
    pub fn is_quantizable(&self, tensor: &Tensor) -> bool {
        let subclass = match self.family {
            Family::Phimoe | Family::Llama4 => tensor.role == Role::Router,
            Family::T5 => tensor.module_name() == "wo",
            _ => false,
        };
        // The output projection of `nn.MultiheadAttention` (SigLIP's pooling head).
        let pooling =
            tensor.place == Place::Vision && tensor.name.ends_with("head.attention.out_proj.weight");
        tensor.linear.is_some() && tensor.role != Role::Head && !subclass && !pooling
    }

    /// Parameters of routed experts that are one tensor a projection and no linear layers.
    pub fn stacked_experts(&self) -> u64 {
        self.sum(|t| t.role == Role::Expert && t.linear.is_none())
    }

    /// Parameters that a 4-bit or 8-bit load quantises: see [`Inventory::is_quantizable`].
    pub fn quantizable(&self) -> u64 {
        self.sum(|t| self.is_quantizable(t))
    }

    /// Parameters of Mamba-2's output projections. mamba-ssm's fused function multiplies with the
    /// weight itself, so that a packed one fails: Axolotl leaves Falcon-H1's `out_proj` in 16 bits
    /// (`loaders/model.py`), and the same call stands in Nemotron-H and Granite 4 (transformers 5.23).
    pub fn fused_projections(&self) -> u64 {
        let fused = matches!(self.family, Family::FalconH1 | Family::NemotronH | Family::GraniteMoeHybrid);
        self.sum(|t| fused && t.role == Role::Mixer && t.linear.is_some() && t.module_name() == "out_proj")
    }
}
