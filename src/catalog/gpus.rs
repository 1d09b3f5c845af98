//! GPUs by the names people write, with the memory a process can really use.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::units::Bytes;

/// One GPU product.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// The canonical name: `H100-80GB-SXM5`.
    pub name: &'static str,
    /// Other spellings that mean this product and no other.
    pub aliases: Vec<&'static str>,
    /// Names it shares with other products: `a100`.
    pub ambiguous: Vec<&'static str>,
    /// What `torch.cuda.mem_get_info` gives as total at least (lowest reading known).
    pub usable: Bytes,
    /// True when that figure was read in a source, false when it is from memory.
    pub read: bool,
    /// Where it was read.
    pub source: &'static str,
    /// What else a person should know.
    pub note: &'static str,
    /// The figure on the box, in GB.
    pub marketed_gb: u32,
    /// Who makes it.
    pub vendor: &'static str,
    /// CUDA compute capability times ten (`sm_90` is 90); 0 for other vendors.
    pub sm: u32,
    /// Native bf16.
    pub bf16: bool,
    /// Native fp8.
    pub fp8: bool,
    /// Native fp4.
    pub fp4: bool,
    /// FlashAttention 2 runs on it.
    pub flash_attention_2: bool,
    /// FlashAttention 3 runs on it.
    pub flash_attention_3: bool,
}

/// Why a GPU name gives no GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuError {
    /// The name stands for several products; their names.
    Ambiguous(Vec<&'static str>),
    /// Nobody knows it; near names.
    Unknown(Vec<&'static str>),
}

const DATA: &str = include_str!("data/gpus.tsv");

struct Table {
    gpus: Vec<Gpu>,
    /// Normalised spelling to the index of the only product it can mean.
    exact: HashMap<String, usize>,
    /// Normalised spelling to the products that share it.
    shared: HashMap<String, Vec<usize>>,
}

// Parsed once, and only in runs that name a GPU: 150 lines take a few dozen microseconds.
static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(DATA));

impl Table {
    fn read(data: &'static str) -> Table {
        let gpus: Vec<Gpu> = rows(data).filter_map(|fields| gpu(&fields)).collect();
        let mut shared: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, gpu) in gpus.iter().enumerate() {
            for name in &gpu.ambiguous {
                shared.entry(squash(name)).or_default().push(index);
            }
        }
        let mut exact = HashMap::new();
        for (index, gpu) in gpus.iter().enumerate() {
            for name in std::iter::once(&gpu.name).chain(&gpu.aliases) {
                exact.entry(squash(name)).or_insert(index);
            }
        }
        for (index, gpu) in gpus.iter().enumerate() {
            for name in &gpu.aliases {
                let bare = squash(&without_vendor(name));
                if !shared.contains_key(&bare) {
                    exact.entry(bare).or_insert(index);
                }
            }
        }
        Table { gpus, exact, shared }
    }
}

/// The data lines of a table, field by field: comments and the header line are left out.
pub(super) fn rows(data: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    data.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .skip(1)
        .map(|l| l.split('\t').collect())
}

fn gpu(fields: &[&'static str]) -> Option<Gpu> {
    let text = |index: usize| fields.get(index).copied().unwrap_or_default();
    let list = |index: usize| text(index).split("; ").filter(|name| !name.is_empty()).collect();
    let has = |feature: &str| text(6).split(' ').any(|f| f == feature);
    Some(Gpu {
        name: fields.first()?,
        usable: Bytes::from_gib(text(1).parse().ok()?),
        read: text(2) == "read",
        marketed_gb: text(3).parse().ok()?,
        vendor: text(4),
        sm: text(5).parse().ok()?,
        bf16: has("bf16"),
        fp8: has("fp8"),
        fp4: has("fp4"),
        flash_attention_2: has("fa2"),
        flash_attention_3: has("fa3"),
        aliases: list(7),
        ambiguous: list(8),
        source: text(9),
        note: text(10),
    })
}

/// Every GPU, in the table's order.
pub fn all() -> &'static [Gpu] {
    &TABLE.gpus
}

/// Finds a GPU by any spelling of its name.
///
/// # Errors
/// [`GpuError`] with the choices.
pub fn find(name: &str) -> Result<&'static Gpu, GpuError> {
    let table = &*TABLE;
    let at = |index: &usize| table.gpus.get(*index);
    for spelling in [squash(name), squash(&without_vendor(name))] {
        if let Some(gpu) = table.exact.get(&spelling).and_then(at) {
            return Ok(gpu);
        }
        if let Some(choices) = table.shared.get(&spelling) {
            return Err(GpuError::Ambiguous(choices.iter().filter_map(at).map(|gpu| gpu.name).collect()));
        }
    }
    find_by_parts(&table.gpus, name)
}

/// A name taken apart: `A100 80GB PCIe` is model `a100`, 80 GB, form `pcie`.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    model: String,
    memory_gb: Option<u32>,
    form: Option<&'static str>,
    mig: Option<String>,
}

// `sxm4` and `sxm` say the same: one product never comes in two SXM generations.
const FORMS: [(&str, &str); 8] = [
    ("pcie", "pcie"),
    ("sxm2", "sxm"),
    ("sxm3", "sxm"),
    ("sxm4", "sxm"),
    ("sxm5", "sxm"),
    ("sxm6", "sxm"),
    ("sxm", "sxm"),
    ("nvl", "nvl"),
];

fn parts(name: &str) -> Parts {
    let mut parts = Parts { model: String::new(), memory_gb: None, form: None, mig: None };
    let lower = without_vendor(name);
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').collect();
    let mut words = words.into_iter().filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        if let Some((_, form)) = FORMS.iter().find(|(spelling, _)| *spelling == word) {
            parts.form = Some(form);
        } else if let Some(gb) = gigabytes(word).filter(|_| parts.memory_gb.is_none()) {
            parts.memory_gb = Some(gb);
        } else if let Some(gb) =
            word.parse().ok().filter(|_| matches!(words.peek(), Some(&"gb" | &"gib" | &"g")))
        {
            parts.memory_gb = Some(gb);
            words.next();
        } else if is_mig_profile(word) {
            parts.mig = Some(word.to_owned());
        } else if !matches!(
            word,
            "mig" | "hbm2" | "hbm2e" | "hbm3" | "hbm3e" | "oam" | "gcd" | "tile" | "laptopgpu"
        ) {
            parts.model.push_str(word);
        }
    }
    if let Some(rest) =
        parts.model.strip_prefix("rtx").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    {
        parts.model = rest.to_owned();
    }
    parts
}

fn gigabytes(word: &str) -> Option<u32> {
    let digits =
        word.strip_suffix("gb").or_else(|| word.strip_suffix("gib")).or_else(|| word.strip_suffix('g'))?;
    digits.parse().ok()
}

/// `3g.40gb`, also with the media suffix of `1g.10gb+me` already split off.
fn is_mig_profile(word: &str) -> bool {
    word.split_once("g.").is_some_and(|(slices, memory)| {
        slices.len() == 1 && slices.parse::<u8>().is_ok() && gigabytes(memory).is_some()
    })
}

fn find_by_parts(gpus: &'static [Gpu], name: &str) -> Result<&'static Gpu, GpuError> {
    let wanted = parts(name);
    if wanted.model.is_empty() {
        return Err(GpuError::Unknown(Vec::new()));
    }
    let known: Vec<(&'static Gpu, Parts)> = gpus.iter().map(|gpu| (gpu, parts(gpu.name))).collect();
    let same_model = || known.iter().filter(|(_, parts)| parts.model == wanted.model);
    let whole = |gpu: &Gpu, parts: &Parts| parts.memory_gb.unwrap_or(gpu.marketed_gb);
    let fits: Vec<&'static Gpu> = same_model()
        .filter(|(gpu, parts)| {
            parts.mig == wanted.mig
                && wanted.memory_gb.is_none_or(|gb| gb == whole(gpu, parts))
                && wanted.form.is_none_or(|form| parts.form.is_none_or(|own| own == form))
        })
        .map(|(gpu, _)| *gpu)
        .collect();
    match fits.as_slice() {
        [] => {}
        [first, rest @ ..] => {
            // Two forms of one product that differ in nothing we use: either will do.
            let alike = |gpu: &&Gpu| gpu.usable == first.usable && gpu.sm == first.sm;
            if rest.iter().all(alike) {
                return Ok(first);
            }
            return Err(GpuError::Ambiguous(fits.iter().map(|gpu| gpu.name).collect()));
        }
    }
    let mut near: Vec<&'static str> =
        same_model().filter(|(_, parts)| parts.mig.is_none()).map(|(gpu, _)| gpu.name).collect();
    if near.is_empty() {
        near = nearest(&known, &wanted.model);
    }
    Err(GpuError::Unknown(near))
}

fn nearest(known: &[(&'static Gpu, Parts)], model: &str) -> Vec<&'static str> {
    let mut scored: Vec<(f64, &'static str)> = known
        .iter()
        .filter(|(_, parts)| parts.mig.is_none())
        .map(|(gpu, parts)| (strsim::jaro_winkler(model, &parts.model), gpu.name))
        .filter(|(score, _)| *score > 0.85)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Letters and digits only, in lower case: `NVIDIA A100 80GB PCIe` is `nvidiaa10080gbpcie`.
fn squash(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// In lower case and without the words that say nothing about the product.
fn without_vendor(name: &str) -> String {
    let lower = name.to_ascii_lowercase().replace(['_', '/', ':'], "-");
    lower
        .split_inclusive(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| {
            let word = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            !matches!(word, "nvidia" | "geforce" | "tesla" | "amd" | "instinct" | "gpu" | "graphics" | "card")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(spelling: &str) -> &'static str {
        find(spelling).map_or_else(|error| panic!("{spelling}: {error:?}"), |gpu| gpu.name)
    }

    #[test]
    fn spellings_people_write() {
        for (spelling, expected) in [
            ("h100", "H100-80GB-SXM5"),
            ("H100-80GB", "H100-80GB-SXM5"),
            ("H100 80GB HBM3", "H100-80GB-SXM5"),
            ("NVIDIA H100 80GB HBM3", "H100-80GB-SXM5"),
            ("H100 PCIe", "H100-80GB-PCIe"),
            ("H100 NVL", "H100-94GB-NVL"),
            ("A100 80GB PCIe", "A100-80GB-PCIe"),
            ("a100_80gb", "A100-80GB-SXM4"),
            ("A100 80G", "A100-80GB-SXM4"),
            ("A100-SXM4 80 GB", "A100-80GB-SXM4"),
            ("nvidia-tesla-a100", "A100-40GB-SXM4"),
            ("Tesla V100-SXM2-32GB", "V100-32GB"),
            ("Tesla T4", "T4"),
            ("RTX 4090", "RTX-4090"),
            ("rtx4090", "RTX-4090"),
            ("4090", "RTX-4090"),
            ("NVIDIA GeForce RTX 4090", "RTX-4090"),
            ("RTX 4090 24GB", "RTX-4090"),
            ("RTX 4060 Ti 16GB", "RTX-4060-Ti-16GB"),
            ("rtx 3060 12 GB", "RTX-3060-12GB"),
            ("L40S 48GB", "L40S"),
            ("L40S", "L40S"),
            ("MI300X", "MI300X-192GB"),
            ("AMD Instinct MI300X OAM", "MI300X-192GB"),
            ("A6000", "RTX-A6000"),
            ("A100 80GB MIG 3g.40gb", "A100-80GB-SXM4:MIG-3g.40gb"),
            ("H100-80GB-SXM5:MIG-1g.10gb", "H100-80GB-SXM5:MIG-1g.10gb"),
            ("b200", "B200-180GB"),
        ] {
            assert_eq!(name(spelling), expected, "{spelling}");
        }
    }

    #[test]
    fn names_of_several_products_are_refused_with_the_choices() {
        for spelling in [
            "a100",
            "A100",
            "NVIDIA A100",
            "A100 PCIe",
            "v100",
            "rtx6000",
            "RTX 4060 Ti",
            "gh200",
            "rtx 3080",
        ] {
            let Err(GpuError::Ambiguous(choices)) = find(spelling) else {
                panic!("{spelling}: {:?}", find(spelling))
            };
            assert!(choices.len() > 1, "{spelling}: {choices:?}");
        }
        let Err(GpuError::Ambiguous(choices)) = find("a100") else { panic!() };
        assert_eq!(
            choices,
            ["A100-40GB-SXM4", "A100-40GB-PCIe", "A100-80GB-SXM4", "A100-80GB-PCIe", "A100-64GB"]
        );
    }

    #[test]
    fn unknown_names_get_near_ones() {
        assert_eq!(find("RTX 4090 48GB"), Err(GpuError::Unknown(vec!["RTX-4090"])));
        assert_eq!(find("L40X"), Err(GpuError::Unknown(vec!["L40", "L40S", "L4"])));
        assert_eq!(find("abacus"), Err(GpuError::Unknown(vec![])));
        assert_eq!(find(""), Err(GpuError::Unknown(vec![])));
        assert_eq!(find("80GB"), Err(GpuError::Unknown(vec![])));
    }

    #[test]
    fn the_lowest_reading_is_the_usable_memory() {
        let usable = |name: &str| find(name).map(|gpu| format!("{:.2}", gpu.usable.gib()));
        assert_eq!(usable("A100-80GB"), Ok("79.10".into()));
        assert_eq!(usable("RTX 4090"), Ok("23.51".into()));
        assert_eq!(usable("T4"), Ok("14.56".into()));
    }

    #[test]
    fn every_line_is_read_and_every_name_finds_its_own_product() {
        assert_eq!(all().len(), rows(DATA).count());
        for gpu in all() {
            for spelling in std::iter::once(&gpu.name).chain(&gpu.aliases) {
                assert_eq!(name(spelling), gpu.name, "{spelling}");
            }
            for spelling in &gpu.ambiguous {
                assert!(matches!(find(spelling), Err(GpuError::Ambiguous(_))), "{spelling}");
            }
            // Memory a process can use is 85 to 107 % of 10^9 times the figure on the box (a GiB is
            // 7 % more than a GB), except partitions that vendors round as they like.
            let share = gpu.usable.0 as f64 / (f64::from(gpu.marketed_gb) * 1e9);
            assert!((0.85..1.08).contains(&share), "{}: {share}", gpu.name);
        }
    }
}
