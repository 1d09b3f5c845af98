//! Cloud instance types, and other ways to name a whole machine: `p4d.24xlarge`, `8xA100-80GB`.

use std::sync::LazyLock;

use super::gpus::{self, Gpu, GpuError};
use crate::units::Bytes;

/// A cloud instance type.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// What the provider calls it.
    pub name: &'static str,
    /// The provider.
    pub provider: &'static str,
    /// Its GPU.
    pub gpu: &'static Gpu,
    /// How many.
    pub gpus: u64,
    /// The host's memory as the provider lists it.
    pub host_memory: Option<Bytes>,
    /// True when the line was read in a source, false when it is from memory.
    pub read: bool,
    /// Where it was read.
    pub source: &'static str,
}

/// What a machine's name says about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Its GPU.
    pub gpu: &'static Gpu,
    /// How many, when the name says so.
    pub gpus: Option<u64>,
    /// The host's memory, when the name says so.
    pub host_memory: Option<Bytes>,
}

const DATA: &str = include_str!("data/instances.tsv");

static INSTANCES: LazyLock<Vec<Instance>> =
    LazyLock::new(|| gpus::rows(DATA).filter_map(|fields| instance(&fields)).collect());

fn instance(fields: &[&'static str]) -> Option<Instance> {
    let text = |index: usize| fields.get(index).copied().unwrap_or_default();
    Some(Instance {
        name: fields.first()?,
        provider: text(1),
        gpu: gpus::find(text(2)).ok()?,
        gpus: text(3).parse().ok()?,
        host_memory: text(4).parse().ok().map(Bytes::from_gib),
        read: text(5) == "read",
        source: text(6),
    })
}

/// Every instance type, in the table's order.
pub fn all() -> &'static [Instance] {
    &INSTANCES
}

/// Finds an instance type by its name. SageMaker's `ml.` and Azure's `Standard_` may be there or not.
pub fn find(name: &str) -> Option<&'static Instance> {
    let bare = |name: &str| {
        let lower = name.trim().to_ascii_lowercase();
        lower.strip_prefix("ml.").or_else(|| lower.strip_prefix("standard_")).unwrap_or(&lower).to_owned()
    };
    let wanted = bare(name);
    INSTANCES.iter().find(|instance| bare(instance.name) == wanted)
}

/// Finds a machine by an instance type, a GPU's name, or a count and a GPU's name
/// (`8xH100`, `H100 x8`, `H100:8`).
///
/// # Errors
/// [`GpuError`] with the choices.
pub fn machine(name: &str) -> Result<Machine, GpuError> {
    if let Some(instance) = find(name) {
        return Ok(Machine {
            gpu: instance.gpu,
            gpus: Some(instance.gpus),
            host_memory: instance.host_memory,
        });
    }
    let whole = gpus::find(name).map(|gpu| Machine { gpu, gpus: None, host_memory: None });
    match (whole, counted(name)) {
        (Err(GpuError::Unknown(_)), Some((count, rest))) => {
            gpus::find(rest).map(|gpu| Machine { gpu, gpus: Some(count), host_memory: None })
        }
        (whole, _) => whole,
    }
}

/// The count before or after a GPU's name, and the name.
fn counted(name: &str) -> Option<(u64, &str)> {
    let name = name.trim();
    let number = |text: &str| text.trim().parse().ok().filter(|n| (1..=100_000).contains(n));
    if let Some((count, rest)) = name.split_once(['x', 'X', '×', '*'])
        && let Some(count) = number(count)
    {
        return Some((count, rest.trim()));
    }
    let (rest, count) = name.rsplit_once([':', 'x', 'X', '×', '*'])?;
    Some((number(count)?, rest.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str) -> (&'static str, Option<u64>, Option<f64>) {
        let machine = machine(name).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        (machine.gpu.name, machine.gpus, machine.host_memory.map(Bytes::gib))
    }

    #[test]
    fn an_instance_gives_gpu_count_and_host_memory() {
        assert_eq!(said("p4d.24xlarge"), ("A100-40GB-SXM4", Some(8), Some(1152.0)));
        assert_eq!(said("ml.p4d.24xlarge"), ("A100-40GB-SXM4", Some(8), Some(1152.0)));
        assert_eq!(said("Standard_ND96asr_v4"), ("A100-40GB-SXM4", Some(8), Some(900.0)));
        assert_eq!(said("nd96asr_v4"), ("A100-40GB-SXM4", Some(8), Some(900.0)));
        assert_eq!(said("a3-highgpu-8g"), ("H100-80GB-SXM5", Some(8), Some(1872.0)));
        assert_eq!(said("gpu_1x_a10"), ("A10", Some(1), Some(200.0)));
    }

    #[test]
    fn a_count_may_stand_before_or_after_a_name() {
        for name in ["8xH100", "8 x H100-80GB", "H100:8", "H100 x8", "h100-80gb x 8"] {
            assert_eq!(said(name), ("H100-80GB-SXM5", Some(8), None), "{name}");
        }
        assert_eq!(said("H100"), ("H100-80GB-SXM5", None, None));
        assert_eq!(said("MI300X"), ("MI300X-192GB", None, None));
        assert!(matches!(machine("8xA100"), Err(GpuError::Ambiguous(_))));
    }

    #[test]
    fn every_line_is_read() {
        assert_eq!(all().len(), gpus::rows(DATA).count());
    }
}
