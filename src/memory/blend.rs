//! Models whose layers differ: the tables of several blocks, put together by how many layers have
//! each.

use super::coefficients::Table;
use super::expression::{Sum, Symbol, Symbols};
use super::shape::Shape;
use crate::catalog::{Architecture, Family, Layer, LayerMlp, Mixer};

/// A block that some of the layers have.
#[derive(Clone, Debug)]
struct Member {
    table: Table,
    layers: f64,
    /// Symbols that are not the model's usual ones in these layers, as a factor.
    factors: Vec<(Symbol, f64)>,
    /// With the model's usual attention.
    attends: bool,
}

/// The tables of a model's layers.
#[derive(Clone, Debug)]
pub(crate) struct Blend {
    main: Table,
    /// In the order of their first layers; one that is `main` without factors is most models' all.
    members: Vec<Member>,
    symbols: Symbols,
}

/// What decides a layer's table, and how its dimensions differ.
type Key = (&'static str, Vec<(Symbol, f64)>, bool);

impl Blend {
    /// For the layers of `shape`'s model. `find` gives the table of a block, by its name and
    /// whether it attends within a window that others of the model do not have.
    ///
    /// # Errors
    /// Which block is not traced.
    pub(crate) fn new(
        shape: &Shape<'_>,
        main: Table,
        find: impl Fn(&str, bool) -> Option<Table>,
    ) -> Result<Blend, String> {
        let a = shape.architecture;
        let mut kinds: Vec<(Key, f64)> = Vec::new();
        if differs(a.family) {
            for index in 0..a.layers {
                let layer = a.layer(index);
                let windowed = layer.mixer == Mixer::SlidingAttention;
                let key = (block(shape.family, a, layer, index), factors(a, layer)?, windowed);
                match kinds.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, layers)) => *layers += 1.0,
                    None => kinds.push((key, 1.0)),
                }
            }
        } else {
            kinds.push(((shape.family, Vec::new(), false), a.layers.max(1) as f64));
        }
        let members = kinds
            .into_iter()
            .map(|((name, factors, windowed), layers)| {
                let table = if name == shape.family && !windowed { Some(main) } else { find(name, windowed) };
                let table = table.ok_or_else(|| format!("what a {name} layer keeps is not traced yet"))?;
                let attends = table == main || name == "jamba-moe" || name == "gemma3n-sparse";
                Ok(Member { table, layers, factors, attends })
            })
            .collect::<Result<Vec<_>, String>>()?;
        Ok(Blend { main, members, symbols: shape.symbols.clone() })
    }

    /// Of one table, for every layer.
    pub(crate) fn of(main: Table, shape: &Shape<'_>) -> Blend {
        let member = Member { table: main, layers: 1.0, factors: Vec::new(), attends: true };
        Blend { main, members: vec![member], symbols: shape.symbols.clone() }
    }

    /// One part, `None` where no block has it: of what a layer keeps the mean, of what one layer's
    /// backward adds the largest, of what the model keeps once the first layer's.
    pub(crate) fn part(&self, name: &str) -> Option<Sum> {
        if let [Member { table, factors, .. }] = self.members.as_slice()
            && factors.is_empty()
        {
            return table.part(name);
        }
        let each = || self.members.iter().filter_map(|m| Some((m, m.scaled(m.table.part(name)?))));
        if name.contains("transient") {
            return each()
                .map(|(_, sum)| sum)
                .max_by(|a, b| a.value(&self.symbols).total_cmp(&b.value(&self.symbols)));
        }
        if name.contains("body") {
            return self.members.first().and_then(|m| Some(m.scaled(m.table.part(name)?)));
        }
        if name.contains("layer") || name == "output-copy" {
            let all: f64 = self.members.iter().map(|m| m.layers).sum();
            let mean = |sum: Sum, (member, part): (&Member, Sum)| sum.plus(&part.times(member.layers / all));
            return each().next().is_some().then(|| each().fold(Sum::default(), mean));
        }
        self.main.part(name)
    }

    /// One part, nothing where no block has it.
    pub(crate) fn get(&self, name: &str) -> Sum {
        self.part(name).unwrap_or_default()
    }

    /// Share of the layers that have the model's usual attention.
    pub(crate) fn main_share(&self) -> f64 {
        let all: f64 = self.members.iter().map(|m| m.layers).sum();
        let main = self.members.iter().filter(|m| m.attends).map(|m| m.layers).sum::<f64>();
        if all > 0.0 { main / all } else { 1.0 }
    }
}

impl Member {
    /// In the model's usual symbols.
    fn scaled(&self, mut sum: Sum) -> Sum {
        for term in &mut sum.0 {
            for (symbol, factor) in &self.factors {
                let times = term.symbols.iter().filter(|s| *s == symbol).count();
                term.coefficient *= factor.powi(i32::try_from(times).unwrap_or(0));
            }
        }
        sum.times(1.0)
    }
}

/// Families whose layers are not all of one block.
fn differs(family: Family) -> bool {
    matches!(
        family,
        Family::Qwen35
            | Family::Qwen35Moe
            | Family::Qwen3Next
            | Family::KimiLinear
            | Family::GraniteMoeHybrid
            | Family::FalconH1
            | Family::Jamba
            | Family::NemotronH
            | Family::Lfm2
            | Family::Lfm2Moe
            | Family::Llama4
            | Family::Gemma3n
            | Family::Gemma4
    )
}

/// The name of a layer's block.
fn block(main: &'static str, a: &Architecture, layer: Layer, index: u64) -> &'static str {
    match (layer.mixer, a.family) {
        (Mixer::DeltaNet, Family::Qwen35) => "qwen3_5-linear",
        (Mixer::DeltaNet, _) => "qwen3_5_moe-linear",
        (Mixer::ShortConvolution, Family::Lfm2) => "lfm2-conv",
        (Mixer::ShortConvolution, _) => "lfm2_moe-conv",
        (_, Family::Llama4) if main == "llama4" && layer.mlp == LayerMlp::Dense => "llama4-dense",
        (Mixer::KimiDelta, _) => "kimi_linear-delta",
        (Mixer::Mamba1, _) if layer.mlp == LayerMlp::Sparse => "jamba-mamba-moe",
        (Mixer::Mamba1, _) => "jamba-mamba",
        (_, Family::Jamba) if layer.mlp == LayerMlp::Sparse => "jamba-moe",
        (Mixer::Mamba2, Family::NemotronH) => "nemotron_h-mamba",
        (Mixer::None, _) if layer.mlp == LayerMlp::Sparse => "nemotron_h-moe",
        (Mixer::None, _) => "nemotron_h-mlp",
        (Mixer::Mamba2, _) if a.moe.is_some() => "granitemoehybrid-moe-mamba",
        (Mixer::Mamba2, _) => "granitemoehybrid-mamba",
        (_, Family::Gemma3n) if keeps_the_largest(a, index) => "gemma3n-sparse",
        _ => main,
    }
}

/// Gemma 3n: the first ten layers keep only the largest values of their MLP's gate, unless the
/// config lists the shares.
fn keeps_the_largest(a: &Architecture, index: u64) -> bool {
    match a.config.get("activation_sparsity_pattern").and_then(serde_json::Value::as_array) {
        Some(shares) => {
            let share = usize::try_from(index).ok().and_then(|i| shares.get(i)?.as_f64());
            share.is_some_and(|share| share > 0.0)
        }
        None => index < 10 && a.layers > 10,
    }
}

/// How a layer's dimensions differ from the model's usual ones.
fn factors(a: &Architecture, layer: Layer) -> Result<Vec<(Symbol, f64)>, String> {
    let mut factors = Vec::new();
    let ratio = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    match a.family {
        Family::Llama4 if layer.mlp == LayerMlp::Dense => {
            let shared = a.moe.as_ref().map_or(a.intermediate_size, |moe| moe.shared_intermediate_size);
            let width = a.dimension("intermediate_size_mlp")?.unwrap_or(shared);
            factors.push((Symbol::FeedForward, ratio(width, shared)));
        }
        Family::NemotronH if layer.mlp == LayerMlp::Dense => {
            let shared = a.moe.as_ref().map_or(a.intermediate_size, |moe| moe.shared_intermediate_size);
            factors.push((Symbol::FeedForward, ratio(a.intermediate_size, shared)));
        }
        Family::Gemma3n if layer.shares_keys => {
            factors.push((Symbol::Key, 0.0));
            factors.push((Symbol::KvHeads, 0.0));
        }
        Family::Gemma4 => {
            if layer.mixer == Mixer::Attention {
                let width = ratio(a.dimension("global_head_dim")?.unwrap_or(a.head_dim), a.head_dim);
                let one_for_both = a.config_bool("attention_k_eq_v") == Some(true);
                let heads = a.dimension("num_global_key_value_heads")?.filter(|_| one_for_both);
                let heads = ratio(heads.unwrap_or(a.kv_heads), a.kv_heads);
                factors.push((Symbol::Query, width));
                factors.push((Symbol::HeadWidth, width));
                if !layer.shares_keys {
                    factors.push((Symbol::Key, width * heads));
                    factors.push((Symbol::KvHeads, heads));
                }
            }
            if layer.shares_keys {
                factors.push((Symbol::Key, 0.0));
                factors.push((Symbol::KvHeads, 0.0));
            }
            if layer.mlp == LayerMlp::Double {
                factors.push((Symbol::FeedForward, 2.0));
            }
        }
        _ => {}
    }
    factors.retain(|(_, factor)| (factor - 1.0).abs() > f64::EPSILON);
    Ok(factors)
}
