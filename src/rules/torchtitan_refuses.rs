//! Settings that torchtitan itself refuses, found before the GPUs are rented.

use super::Checked;
use super::refusals::{Extend, Refusals};
use crate::declare_rule;
use crate::document::Value;
use crate::finding::Finding;
use crate::framework::baseline::count;

declare_rule! {
    /// ## What it does
    ///
    /// Finds combinations that a torchtitan run stops on: degrees whose product is not the number
    /// of GPUs, a batch that the ranks or the pipeline cannot split evenly, a sequence that the
    /// tensor ranks cannot split, replicas without sharding beside other parallelism, a step inside
    /// backward together with pipelines or experts, `memory_budget` or async tensor parallelism
    /// without a compiled model.
    ///
    /// ## Why
    ///
    /// Each is an assertion or an exception in torchtitan (`parallel_dims.py`, `parallelize.py`,
    /// `optimizer.py`, `train.py`), raised when every rank has already started.
    ///
    /// ## Example
    ///
    /// ```toml title="llama3_8b.toml" mark="pipeline_parallel_microbatch_size = >4<"
    /// [model]
    /// name = "llama3"
    /// flavor = "8B"
    ///
    /// [training]
    /// local_batch_size = 6
    /// seq_len = 8192
    ///
    /// [parallelism]
    /// pipeline_parallel_degree = 4
    /// pipeline_parallel_microbatch_size = 4
    /// ```
    ///
    /// ```console
    /// $ llmlint llama3_8b.toml
    /// ```
    ///
    /// ## The fix
    ///
    /// The message names the setting and the condition.
    ///
    /// ```diff title="llama3_8b.toml"
    /// -local_batch_size = 6
    /// +local_batch_size = 8
    /// ```
    TorchtitanRefuses, "torchtitan-refuses", Error, "torchtitan stops on these settings"
}

impl TorchtitanRefuses {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(root), Some("torchtitan")) = (file.root, file.framework.map(|f| f.name())) else { return };
        let mut r = Refusals { rule: Self::NAME, root, findings };
        let degrees = Degrees::read(&r);
        product(file, &mut r, &degrees);
        batches(file, &mut r, &degrees);
        combinations(&mut r, &degrees);
        checkpointing(&mut r);
        optimizer(&mut r);
    }
}

/// A degree with its value's place; 1 where it is absent.
type Degree<'a> = (u64, Option<Value<'a>>);

struct Degrees<'a> {
    replicate: Degree<'a>,
    /// `None`: -1 or absent.
    shard: Option<(u64, Value<'a>)>,
    tensor: Degree<'a>,
    pipeline: Degree<'a>,
    context: Degree<'a>,
    expert: Degree<'a>,
}

impl<'a> Degrees<'a> {
    fn read(r: &Refusals<'a, '_>) -> Degrees<'a> {
        let first =
            |keys: &[&str]| keys.iter().find_map(|key| r.get(key)).and_then(|v| count(v).map(|n| (n, v)));
        let degree = |keys: &[&str]| first(keys).map_or((1, None), |(n, v)| (n, Some(v)));
        Degrees {
            replicate: degree(&[
                "parallelism.data_parallel_replicate_degree",
                "training.data_parallel_replicate_degree",
            ]),
            shard: first(&[
                "parallelism.data_parallel_shard_degree",
                "training.data_parallel_shard_degree",
                "training.data_parallel_degree",
            ]),
            tensor: degree(&["parallelism.tensor_parallel_degree", "training.tensor_parallel_degree"]),
            pipeline: degree(&[
                "parallelism.pipeline_parallel_degree",
                "experimental.pipeline_parallel_degree",
            ]),
            context: degree(&["parallelism.context_parallel_degree", "experimental.context_parallel_degree"]),
            expert: degree(&["parallelism.expert_parallel_degree"]),
        }
    }

    fn model(&self) -> u64 {
        self.tensor.0.saturating_mul(self.pipeline.0).saturating_mul(self.context.0)
    }
}

/// With every degree written, their product must be the number of GPUs.
fn product(file: &Checked<'_>, r: &mut Refusals<'_, '_>, d: &Degrees<'_>) {
    let (Some((shard, at)), Some(gpus)) = (d.shard, file.budget.and_then(|b| b.gpus)) else { return };
    let product = shard.saturating_mul(d.replicate.0).saturating_mul(d.model());
    if product != gpus {
        r.refuse(
            at,
            format!("the parallel degrees come to {product} GPUs, {gpus} are declared"),
            "torchtitan asserts that replicas x shards x context x tensor x pipeline is the world size.",
        )
        .advise("set the shard degree to -1, and it takes what is left");
    }
}

fn batches(file: &Checked<'_>, r: &mut Refusals<'_, '_>, d: &Degrees<'_>) {
    let local = r.count("training.local_batch_size").or_else(|| r.count("training.batch_size"));
    let gpus = file.run.and_then(|run| run.parallelism.gpus.as_ref()).map(|g| g.value);
    let data = match (d.shard, gpus) {
        (Some((shard, _)), _) => Some(shard.saturating_mul(d.replicate.0)),
        (None, Some(gpus)) if gpus % d.model() == 0 => Some(gpus / d.model()),
        _ => None,
    };
    if let (Some((global, at)), Some((local, beside)), Some(data)) =
        (r.count("training.global_batch_size"), local, data)
    {
        let a_pass = local.saturating_mul(data);
        if global % a_pass != 0 {
            r.refuse(
                at,
                format!("a global batch of {global} is no multiple of {local} x {data} data-parallel ranks"),
                "torchtitan accumulates whole passes and asserts that they come out even.",
            )
            .beside(beside, "sequences per rank and pass");
        }
    }
    if d.pipeline.0 > 1
        && let (Some((local, beside)), Some((micro, at))) =
            (local, r.count("parallelism.pipeline_parallel_microbatch_size"))
        && local % micro != 0
    {
        r.refuse(
            at,
            format!("pipeline micro-batches of {micro} do not divide a batch of {local}"),
            "torchtitan cuts each rank's batch into equal micro-batches.",
        )
        .beside(beside, "the batch");
    }
    if let (Some((length, at)), Some(tensor)) = (r.count("training.seq_len"), d.tensor.1)
        && length % d.tensor.0 != 0
    {
        r.refuse(
            at,
            format!("a sequence of {length} tokens cannot be split over {} tensor ranks", d.tensor.0),
            "tensor parallelism splits the sequence between layers (sequence parallelism).",
        )
        .beside(tensor, "tensor ranks");
    }
}

fn combinations(r: &mut Refusals<'_, '_>, d: &Degrees<'_>) {
    if let (Some(at), Some((1, _))) = (d.replicate.1, d.shard)
        && d.replicate.0 > 1
        && d.model() > 1
    {
        r.refuse(
            at,
            "replicas without sharding allow no other parallelism",
            "with a shard degree of 1 torchtitan uses DDP, which has no tensor, context or pipeline ranks.",
        )
        .advise("raise the shard degree, or set it to -1");
    }
    if let Some(at) = r.on("optimizer.early_step_in_backward") {
        let other = [("pipeline", d.pipeline), ("expert", d.expert)]
            .into_iter()
            .find(|(_, degree)| degree.0 > 1)
            .and_then(|(name, degree)| Some((name, degree.1?)));
        if let Some((name, beside)) = other {
            r.refuse(
                at,
                format!("a step inside backward does not work with {name} parallelism"),
                "torchtitan raises NotImplementedError.",
            )
            .beside(beside, "more than one");
        }
    }
    if let Some((inner, at)) = r.count("parallelism.expert_tensor_parallel_degree")
        && d.expert.0 > 1
        && inner != 1
        && inner != d.tensor.0
    {
        r.refuse(
            at,
            format!(
                "expert tensor parallelism of {inner} is neither 1 nor the tensor degree ({})",
                d.tensor.0
            ),
            "torchtitan supports no other.",
        );
    }
    let asynchronous =
        ["parallelism.enable_async_tensor_parallel", "experimental.enable_async_tensor_parallel"]
            .iter()
            .find_map(|key| r.on(key));
    if let Some(at) = asynchronous
        && d.tensor.0 > 1
        && !compiles_model(r)
    {
        r.refuse(
            at,
            "async tensor parallelism needs a compiled model",
            "torchtitan raises RuntimeError when compile is off.",
        )
        .advise("turn on compile, or this off");
    }
    if let (Some(("fused_rmsnorm", at)), Some(compile)) =
        (r.text("model.norm_type"), r.on("training.compile"))
    {
        r.refuse(
            at,
            "`fused_rmsnorm` does not go with compile",
            "torchtitan raises NotImplementedError; use rmsnorm.",
        )
        .beside(compile, "compile is on");
    }
}

/// `build_optimizers` knows two names; a module of the user's own may know more.
fn optimizer(r: &mut Refusals<'_, '_>) {
    let own = ["job.custom_config_module", "experimental.custom_import", "experimental.custom_args_module"];
    if own.iter().any(|key| r.text(key).is_some_and(|(module, _)| !module.is_empty())) {
        return;
    }
    if let Some((name, at)) = r.text("optimizer.name")
        && !matches!(name, "Adam" | "AdamW")
    {
        r.refuse(
            at,
            format!("torchtitan has no optimizer `{name}`"),
            "it knows Adam and AdamW and raises NotImplementedError on any other.",
        );
    }
}

fn compiles_model(r: &Refusals<'_, '_>) -> bool {
    let on = r.on("compile.enable").or_else(|| r.on("training.compile")).is_some();
    let components = r.get("compile.components");
    on && components.is_none_or(|list| list.items().any(|item| item.as_str() == Some("model")))
}

fn checkpointing(r: &mut Refusals<'_, '_>) {
    let mode = r.text("activation_checkpoint.mode");
    if let Some(("memory_budget", at)) = mode
        && !compiles_model(r)
    {
        r.refuse(
            at,
            "`memory_budget` needs a compiled model",
            "the compiler's partitioner keeps the budget; torchtitan asserts that compile is on.",
        )
        .advise("add `[compile]` with `enable = true`, or use full or selective");
    }
    if let (Some((option, at)), true) = (
        r.text("activation_checkpoint.selective_ac_option"),
        mode.is_none_or(|(mode, _)| mode == "selective"),
    ) && option != "op"
        && !option.parse::<u32>().is_ok_and(|n| n > 0)
    {
        r.refuse(
            at,
            format!("`{option}` is no selective checkpointing option"),
            "torchtitan takes \"op\" or a positive number of layers in quotes.",
        );
    }
}
