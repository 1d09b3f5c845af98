//! Everything the ledger's lines are computed from: the run, its model in the tables' words, what
//! is trained, what is kept.

use super::activations::{self, Activations};
use super::adapters::Adapters;
use super::beside;
use super::dtensor;
use super::expression::Symbol;
use super::loss::{self, Chunks, LossContext, LossMemory};
use super::parallel::{self, Degrees, Slice};
use super::parameters::{Inventory, ParameterCount, Place, patterns};
use super::pipeline::{self, Live};
use super::shape::{Precision, Shape};
use super::states::{self, OptimizerMemory, Trained};
use crate::catalog::{Architecture, Family};
use crate::run::{
    Checkpointing, Kernels, Method, ModelCode, Optimizer, Quantization, Task, TrainingRun, Unknown,
};

/// Trained parameters by where their gradients appear in the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Groups {
    /// In the layers.
    pub(crate) layers: f64,
    /// The output head's own matrix.
    pub(crate) head: f64,
    /// All.
    pub(crate) total: f64,
    /// The head and the embedding are one trained tensor.
    pub(crate) tied: bool,
}

/// The plan of an estimate.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The run.
    pub(crate) run: &'a TrainingRun,
    /// Its model.
    pub(crate) shape: Shape<'a>,
    /// Its adapters.
    pub(crate) adapters: Option<Adapters>,
    /// Its activations.
    pub(crate) activations: Activations,
    /// Its loss.
    pub(crate) loss: LossMemory,
    /// What the loss was worked out from.
    pub(crate) loss_context: LossContext,
    /// What is trained.
    pub(crate) groups: Groups,
    /// The same in the optimizer's words.
    pub(crate) trained: Trained,
    /// The optimizer.
    pub(crate) optimizer: OptimizerMemory,
    /// Bytes of a stored trained weight.
    pub(crate) weight: f64,
    /// Bytes of a gradient.
    pub(crate) gradient: f64,
    /// The part of the model that this rank holds.
    pub(crate) slice: Slice,
    /// What other micro-batches keep on it, in PyTorch's pipelines.
    pub(crate) live: Option<Live>,
    /// Parameters of the whole model, and its embedding's.
    pub(crate) whole: (u64, u64),
    /// Trained parameters of the whole model.
    pub(crate) whole_trained: f64,
    /// Experts are spread over data-parallel ranks already: what is added to the rank's parameters
    /// before they are divided by all of those.
    pub(crate) spread_experts: f64,
}

impl<'a> Plan<'a> {
    /// Works everything out.
    ///
    /// # Errors
    /// What is missing or not modelled.
    pub(crate) fn new(
        run: &'a TrainingRun,
        architecture: &'a Architecture,
        slice: &Slice,
    ) -> Result<Plan<'a>, Vec<Unknown>> {
        let problems = not_modelled(run, architecture);
        if !problems.is_empty() {
            return Err(problems);
        }
        let one = |what: &str, why: String| vec![Unknown { what: what.into(), why, location: None }];
        let mut shape = Shape::new(run, architecture).map_err(|why| one("model", why))?;
        // Chosen and rejected answers go through the model in one batch.
        let sides = if run.task.value == Task::Preference { 2 } else { 1 };
        let sequences = run.micro_batch_size.value.saturating_mul(sides);
        shape.set_sequences(run, sequences);
        let degrees = Degrees::of(run);
        let whole = (shape.inventory.total(), shape.inventory.embedding());
        let whole_groups = groups(run, &shape.inventory, None);
        shape.take_part(slice, degrees);
        let spread_experts = shape.inventory.experts() as f64 * (1.0 / degrees.expert_replicas() - 1.0);
        let adapters = run.lora.as_ref().map(|lora| Adapters::of(run, lora, architecture, &shape.inventory));
        if let Some(lora) = &run.lora {
            shape.symbols.set(Symbol::Rank, lora.rank.value);
        }
        let mut activations = match &adapters {
            Some(adapters) => activations::adapted(run, &shape, adapters),
            None => activations::full(run, &shape),
        }
        .map_err(|why| one("activations", why))?;
        let megatron = run.model_code.value == ModelCode::Megatron;
        if megatron {
            parallel::megatron_layer(&mut activations, run, &shape).map_err(|why| one("activations", why))?;
        }
        if run.parallelism.sequence_parallel.value && degrees.tensor > 1 {
            let split = dtensor::splits(run);
            let gathered = if split { 0.0 } else { shape.precision.residual() };
            parallel::sequence_parallel(&mut activations, degrees.tensor, gathered);
            if split {
                dtensor::gather(&mut activations, run, &shape.symbols);
            }
        }
        let groups = groups(run, &shape.inventory, adapters.as_ref());
        let weight = match &adapters {
            Some(adapters) => adapters.weight,
            None => run.weights.value.bytes() as f64,
        };
        let trained = trained(run, &shape.inventory, adapters.as_ref(), &groups);
        // With fp32 masters the step runs on them.
        let stepped = if run.master_weights.value { 4.0 } else { weight };
        let kept = |trained: &Trained, weight, state| {
            let implementation = run.optimizer_implementation.value;
            states::optimizer(run.optimizer.value, implementation, trained, weight, state)
        };
        let state = run.optimizer_state.value.bytes() as f64;
        let apart = adapters.as_ref().filter(|a| a.saved_modules > 0.0 && a.saved_weight != a.weight);
        let optimizer = match apart {
            None => kept(&trained, stepped, state),
            Some(adapters) => saved_apart(&trained, adapters).and_then(|(rest, saved)| {
                // A state has its parameter's dtype.
                let of_saved = if state == adapters.weight { adapters.saved_weight } else { state };
                Some(kept(&rest, stepped, state)?.plus(&kept(&saved, adapters.saved_weight, of_saved)?))
            }),
        }
        .ok_or_else(|| {
            let why = "what this optimizer keeps is not modelled";
            vec![Unknown {
                what: "optimizer".into(),
                why: why.into(),
                location: run.optimizer.origin.location(),
            }]
        })?;
        let context = loss_context(run, &shape, adapters.as_ref());
        let mut loss = if megatron && !run.loss.value.without_logits() {
            parallel::megatron_loss()
        } else {
            loss::loss(context, activations.table, &shape.symbols)
        };
        dtensor::loss(&mut loss, run);
        if architecture.without_vocabulary_head() {
            loss = LossMemory { source: "no vocabulary is scored", ..LossMemory::default() };
        } else if !slice.last {
            loss = LossMemory { source: loss.source, ..LossMemory::default() };
        } else if !run.parallelism.vocab_parallel_loss.value && degrees.tensor > 1 {
            for sum in [&mut loss.forward, &mut loss.saved, &mut loss.backward] {
                *sum = parallel::gathered_logits(sum, degrees.tensor);
            }
            loss.head_backward = loss.head_backward.map(|s| parallel::gathered_logits(&s, degrees.tensor));
        }
        let mut plan = Plan {
            run,
            adapters,
            activations,
            loss,
            loss_context: context,
            groups,
            trained,
            optimizer,
            weight,
            gradient: run.gradients.value.bytes() as f64,
            slice: slice.clone(),
            live: None,
            whole,
            whole_trained: if run.lora.is_some() { groups.total } else { whole_groups.total },
            spread_experts,
            shape,
        };
        plan.live = pipeline::live(&plan);
        Ok(plan)
    }

    /// Parameters, total and trained.
    pub(crate) fn count(&self) -> ParameterCount {
        let adapters = self.adapters.as_ref().map_or(0.0, Adapters::parameters);
        ParameterCount {
            total: self.whole.0.saturating_add(adapters as u64),
            trainable: self.whole_trained as u64,
            embedding: self.whole.1,
        }
    }

    /// Parameters that are stored in 4 or 8 bits where the run quantises its base.
    pub(crate) fn quantized(&self) -> f64 {
        let inventory = &self.shape.inventory;
        let experts = if self.run.quantized_experts.value { inventory.stacked_experts() } else { 0 };
        (inventory.quantizable() + experts).saturating_sub(inventory.fused_projections()) as f64
    }

    /// Layers.
    pub(crate) fn layers(&self) -> f64 {
        (self.slice.layers() + self.shape.architecture.encoder_layers) as f64
    }

    /// Layers that autograd goes through: under `freeze` only the last ones.
    pub(crate) fn trained_layers(&self) -> f64 {
        match (self.run.method.value, &self.run.trainable_layers) {
            (Method::Freeze, Some(n)) if !self.run.beside.spread_layers => {
                (n.value as f64).min(self.layers())
            }
            _ => self.layers(),
        }
    }

    /// Bytes of a token's residual stream element whose gradient is in flight.
    pub(crate) fn residual(&self) -> f64 {
        if self.adapters.is_some() {
            2.0_f64.max(self.shape.precision.residual())
        } else {
            self.shape.precision.residual()
        }
    }
}

/// The adapters and the modules trained in full, each in the optimizer's words.
fn saved_apart(all: &Trained, adapters: &Adapters) -> Option<(Trained, Trained)> {
    let saved = adapters.saved_modules;
    let rest = Trained { parameters: (all.parameters - saved).max(0.0), ..*all };
    let modules = Trained {
        parameters: saved,
        tensors: 1.0,
        largest: saved,
        small: 0.0,
        rows_and_columns: 0.0,
        matrices: saved,
        ..*all
    };
    (saved > 0.0).then_some((rest, modules))
}

/// Settings that no formula covers yet.
fn not_modelled(run: &TrainingRun, architecture: &Architecture) -> Vec<Unknown> {
    let mut list = Vec::new();
    let mut push =
        |what: &str, why: String, location| list.push(Unknown { what: what.into(), why, location });
    if run.sequence_length.value == 0 {
        push(
            "sequence length",
            "set the number of tokens a sequence has".into(),
            run.sequence_length.origin.location(),
        );
    }
    if run.task.value == Task::Rollout && run.beside.rollout.is_none() {
        let why = "what this way of generating inside training keeps is not modelled yet";
        push("task", why.into(), run.task.origin.location());
    }
    let parallel = &run.parallelism;
    let degrees = Degrees::of(run);
    if degrees.pipeline.max(degrees.context) > 1 && architecture.vision.is_some() {
        let why = "pipeline and context parallelism of vision-language models are not modelled";
        push("model", why.into(), None);
    }
    let megatron = run.model_code.value == ModelCode::Megatron;
    if degrees.tensor > 1 && run.lora.is_some() && !megatron {
        let why = "adapters under tensor parallelism are not modelled";
        push("tensor parallel", why.into(), parallel.tensor.origin.location());
    }
    if degrees.pipeline > 1 && run.lora.is_some() && !megatron {
        let why = "adapters under pipeline parallelism are not modelled";
        push("pipeline parallel", why.into(), parallel.pipeline.origin.location());
    }
    if matches!(run.activation_checkpointing.value, Checkpointing::Modules { .. }) && !megatron {
        let why = "recomputing modules by name is Megatron's; other layers are not modelled so";
        push("activation checkpointing", why.into(), run.activation_checkpointing.origin.location());
    }
    if let Some(named) = &run.beside.trained_patterns
        && patterns::compile(&named.value).is_none()
    {
        let why = "one of the patterns is no regular expression that is understood here";
        push("trained parameters", why.into(), named.origin.location());
    }
    if degrees.expert > 1 && architecture.moe.is_none() {
        let why = "the model has no experts to spread";
        push("expert parallel", why.into(), parallel.expert.origin.location());
    }
    if let Some(format) = &architecture.quantized
        && run.quantization.value == Quantization::None
    {
        let why =
            format!("the checkpoint itself is quantised ({format}); say `quantization` for what is loaded");
        push("quantization", why, run.model.origin.location());
    }
    list
}

fn groups(run: &TrainingRun, inventory: &Inventory, adapters: Option<&Adapters>) -> Groups {
    if let Some(adapters) = adapters {
        let total = adapters.parameters() + adapters.saved_modules;
        return Groups { layers: adapters.parameters(), head: 0.0, total, tied: false };
    }
    if run.optimizer.value == Optimizer::Badam {
        // One block at a time: a layer, the embedding or the head.
        let layer = inventory.largest_layer() as f64;
        let largest = layer.max(inventory.embedding() as f64).max(inventory.head() as f64);
        return Groups { layers: layer, head: 0.0, total: largest, tied: false };
    }
    if let Some(named) = &run.beside.trained_patterns
        && let Some(compiled) = patterns::compile(&named.value)
    {
        let matched = patterns::matched(inventory, &compiled);
        return Groups {
            layers: matched.layers as f64,
            head: matched.head as f64,
            total: matched.total as f64,
            tied: inventory.head_is_tied() && matched.embedding > 0,
        };
    }
    let layers = inventory.in_layers() as f64;
    if run.method.value == Method::Freeze {
        let kinds = inventory.layer_kinds();
        let count: u64 = kinds.iter().map(|k| k.count).sum();
        let wanted = run.trainable_layers.as_ref().map_or(count, |n| n.value).min(count);
        let mut left = wanted;
        let mut trained = 0.0;
        // A negative count is of the first layers, which may be of another kind than the last.
        let first = run.beside.spread_layers;
        let ordered: Vec<_> = if first { kinds.iter().collect() } else { kinds.iter().rev().collect() };
        for kind in ordered {
            let taken = left.min(kind.count);
            trained += taken as f64 * kind.parameters as f64;
            left -= taken;
        }
        return Groups { layers: trained, head: 0.0, total: trained, tied: false };
    }
    Groups {
        layers,
        head: inventory.head() as f64,
        total: inventory.language() as f64,
        tied: inventory.head_is_tied(),
    }
}

fn trained(
    run: &TrainingRun,
    inventory: &Inventory,
    adapters: Option<&Adapters>,
    groups: &Groups,
) -> Trained {
    if let Some(adapters) = adapters {
        return Trained {
            parameters: groups.total,
            tensors: adapters.tensors(),
            largest: adapters.largest(),
            small: adapters.small(),
            rows_and_columns: adapters.rows_and_columns(),
            matrices: adapters.parameters(),
            wide: 0.0,
            rank: None,
        };
    }
    let share = if run.method.value == Method::Freeze || run.beside.trained_patterns.is_some() {
        groups.total / (inventory.language() as f64).max(1.0)
    } else {
        1.0
    };
    let largest_in_layer = inventory
        .own()
        .filter(|t| matches!(t.place, Place::Layers { .. }))
        .map(|t| t.elements())
        .max()
        .unwrap_or(0);
    let largest = if share < 1.0 { largest_in_layer } else { inventory.largest_tensor() };
    Trained {
        parameters: groups.total,
        tensors: share * inventory.tensor_count() as f64,
        largest: largest as f64,
        small: share * inventory.parameters_in_tensors_smaller_than(4096) as f64,
        rows_and_columns: share * inventory.adafactor_rows_and_columns() as f64,
        matrices: inventory.layer_linear_parameters() as f64 * share,
        wide: if run.wide_embedding_states.value && share >= 1.0 {
            inventory.embedding() as f64
        } else {
            0.0
        },
        rank: run.optimizer_rank.as_ref().map(|rank| rank.value as f64),
    }
}

fn loss_context(run: &TrainingRun, shape: &Shape<'_>, adapters: Option<&Adapters>) -> LossContext {
    let frozen_head = adapters.is_some_and(|a| a.saved_modules == 0.0) || run.method.value == Method::Freeze;
    let prepared = run.quantised_beside_fp32();
    let saved_head = adapters.is_some_and(|a| a.saved_modules > 0.0 && a.saved_weight >= 4.0)
        && run.weights.value.bytes() < 4
        && run.autocast.value;
    LossContext {
        loss: run.loss.value,
        logit: shape.precision.logit(),
        cast_head: shape.precision == Precision::Mixed || prepared || saved_head,
        saved_head,
        autocast: shape.precision.autocast(),
        head_trained: !frozen_head,
        capped: shape.architecture.family == Family::Gemma2,
        liger: run.kernels.value == Kernels::Liger,
        keep_logits: run.keep_logits.value && !run.loss.value.without_logits(),
        compiled: run.compile.value,
        target: shape.architecture.encoder_layers > 0 || beside::answers_only(run),
        chunks: match run.model_code.value {
            ModelCode::Litgpt => Chunks::Litgpt,
            _ if run.head_in_chunks.value => Chunks::HeadInside,
            ModelCode::Torchtune => Chunks::HeadFirst,
            _ => Chunks::Logits,
        },
    }
}
