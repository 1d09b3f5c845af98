//! Everything the ledger's lines are computed from: the run, its model in the tables' words, what
//! is trained, what is kept.

use super::activations::{self, Activations};
use super::adapters::Adapters;
use super::expression::Symbol;
use super::loss::{self, LossContext, LossMemory};
use super::parameters::{Inventory, ParameterCount, Place};
use super::shape::{Precision, Shape};
use super::states::{self, OptimizerMemory, Trained};
use crate::catalog::{Architecture, Family};
use crate::run::{Loss, Method, ModelCode, Quantization, Task, TrainingRun, Unknown};

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
}

impl<'a> Plan<'a> {
    /// Works everything out.
    ///
    /// # Errors
    /// What is missing or not modelled.
    pub(crate) fn new(
        run: &'a TrainingRun,
        architecture: &'a Architecture,
    ) -> Result<Plan<'a>, Vec<Unknown>> {
        let problems = not_modelled(run, architecture);
        if !problems.is_empty() {
            return Err(problems);
        }
        let one = |what: &str, why: String| vec![Unknown { what: what.into(), why, location: None }];
        let mut shape = Shape::new(run, architecture).map_err(|why| one("model", why))?;
        if run.task.value == Task::Preference {
            // Chosen and rejected answers go through the model in one batch.
            shape.set_batch(run.micro_batch_size.value.saturating_mul(2), run.sequence_length.value);
        }
        let adapters = run.lora.as_ref().map(|lora| Adapters::of(run, lora, architecture, &shape.inventory));
        if let Some(lora) = &run.lora {
            shape.symbols.set(Symbol::Rank, lora.rank.value);
        }
        let activations = match &adapters {
            Some(adapters) => activations::adapted(run, &shape, adapters),
            None => activations::full(run, &shape),
        }
        .map_err(|why| one("activations", why))?;
        let groups = groups(run, &shape.inventory, adapters.as_ref());
        let weight = match &adapters {
            Some(adapters) => adapters.weight,
            None => run.weights.value.bytes() as f64,
        };
        let trained = trained(run, &shape.inventory, adapters.as_ref(), &groups);
        // With fp32 masters the step runs on them.
        let stepped = if run.master_weights.value { 4.0 } else { weight };
        let optimizer = states::optimizer(
            run.optimizer.value,
            run.optimizer_implementation.value,
            &trained,
            stepped,
            run.optimizer_state.value.bytes() as f64,
        )
        .ok_or_else(|| {
            let why = "what this optimizer keeps is not modelled; the others in the schema are";
            vec![Unknown {
                what: "optimizer".into(),
                why: why.into(),
                location: run.optimizer.origin.location(),
            }]
        })?;
        let loss =
            loss::loss(loss_context(run, &shape, adapters.as_ref()), activations.table, &shape.symbols);
        Ok(Plan {
            run,
            adapters,
            activations,
            loss,
            groups,
            trained,
            optimizer,
            weight,
            gradient: run.gradients.value.bytes() as f64,
            shape,
        })
    }

    /// Parameters, total and trained.
    pub(crate) fn count(&self) -> ParameterCount {
        let adapters = self.adapters.as_ref().map_or(0.0, Adapters::parameters);
        ParameterCount {
            total: self.shape.inventory.total().saturating_add(adapters as u64),
            trainable: self.groups.total as u64,
            embedding: self.shape.inventory.embedding(),
        }
    }

    /// Layers.
    pub(crate) fn layers(&self) -> f64 {
        (self.shape.architecture.layers + self.shape.architecture.encoder_layers) as f64
    }

    /// Layers that autograd goes through: under `freeze` only the last ones.
    pub(crate) fn trained_layers(&self) -> f64 {
        match (self.run.method.value, &self.run.trainable_layers) {
            (Method::Freeze, Some(n)) => (n.value as f64).min(self.layers()),
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
    if run.task.value == Task::Rollout {
        let why = "training with generation inside (PPO, GRPO) is not modelled yet";
        push("task", why.into(), run.task.origin.location());
    }
    let parallel = &run.parallelism;
    for (what, degree) in [
        ("tensor parallel", &parallel.tensor),
        ("pipeline parallel", &parallel.pipeline),
        ("context parallel", &parallel.context),
        ("expert parallel", &parallel.expert),
    ] {
        if degree.value > 1 {
            push(what, format!("{what} training is not modelled yet"), degree.origin.location());
        }
    }
    if architecture.encoder_layers > 0 && (run.lora.is_some() || run.loss.value == Loss::Fused) {
        let why = "adapters and fused losses of encoder-decoders are not traced yet";
        push("method", why.into(), run.method.origin.location());
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
    let layers = inventory.in_layers() as f64;
    if run.method.value == Method::Freeze {
        let kinds = inventory.layer_kinds();
        let count: u64 = kinds.iter().map(|k| k.count).sum();
        let wanted = run.trainable_layers.as_ref().map_or(count, |n| n.value).min(count);
        let mut left = wanted;
        let mut trained = 0.0;
        for kind in kinds.iter().rev() {
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
        };
    }
    let share = if run.method.value == Method::Freeze {
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
    }
}

fn loss_context(run: &TrainingRun, shape: &Shape<'_>, adapters: Option<&Adapters>) -> LossContext {
    let frozen_head = adapters.is_some_and(|a| a.saved_modules == 0.0) || run.method.value == Method::Freeze;
    let prepared = run.prepare_kbit.value && run.quantization.value != Quantization::None;
    LossContext {
        loss: run.loss.value,
        logit: shape.precision.logit(),
        cast_head: shape.precision == Precision::Mixed || prepared,
        autocast: shape.precision.autocast(),
        head_trained: !frozen_head,
        capped: shape.architecture.family == Family::Gemma2,
        keep_logits: run.keep_logits.value && run.loss.value != Loss::Fused,
        compiled: run.compile.value,
        target: shape.architecture.encoder_layers > 0,
        chunks_upcast: run.model_code.value != ModelCode::Litgpt,
    }
}
