//! What a layer saves and needs, by family, precision and attention: reviewable data, read from
//! the text files beside this one. Their heads say where the numbers come from.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::expression::Sum;

const FILES: [&str; 6] = [
    include_str!("full.txt"),
    include_str!("liger.txt"),
    include_str!("lora.txt"),
    include_str!("litgpt.txt"),
    include_str!("encoder-decoder.txt"),
    include_str!("torch.txt"),
];

/// The tables of one way to run one family: named sums, parsed when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table(&'static str);

impl Table {
    /// The table under `key`: `llama bf16 sdpa`.
    pub(crate) fn find(key: &str) -> Option<Table> {
        static INDEX: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
        INDEX.get_or_init(index).get(key).map(|block| Table(block))
    }

    /// One part of it; `None` when the table does not have it.
    pub(crate) fn part(self, name: &str) -> Option<Sum> {
        self.0.lines().find_map(|line| {
            let (part, sum) = line.split_once(" =")?;
            (part == name).then(|| Sum::parse(sum.trim())).flatten()
        })
    }

    /// One part of it, nothing when the table does not have it.
    pub(crate) fn get(self, name: &str) -> Sum {
        self.part(name).unwrap_or_default()
    }
}

/// One pass over the text: each `[key]` and the lines up to the next.
fn index() -> HashMap<&'static str, &'static str> {
    let mut blocks = HashMap::with_capacity(1024);
    for file in FILES {
        for block in file.split("\n[").skip(1) {
            if let Some((key, lines)) = block.split_once("]\n") {
                blocks.insert(key, lines);
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_tables_parses() {
        for (key, block) in index() {
            for line in block.lines().filter(|line| !line.is_empty()) {
                let Some((_, sum)) = line.split_once(" =") else { panic!("[{key}] {line}: no sum") };
                assert!(Sum::parse(sum.trim()).is_some(), "[{key}] {line}");
            }
        }
    }

    #[test]
    fn a_llama_layer_is_the_sum_worked_out_tensor_by_tensor() {
        // Two norms: fp32 input 4Nd, normalised 2Nd, output 2Nd each; two fp32 rsqrt 4N; q, k, v
        // and the attention's output; logsumexp 4Nh; gate, up, silu, product 2Nf each.
        let layer = Table::find("llama bf16 sdpa").map(|t| t.get("layer")).unwrap_or_default();
        let by_hand = Sum::parse("16*N*d + 8*N + 4*N*q + 4*N*k + 4*N*h + 8*N*f + 3*B").unwrap_or_default();
        assert!(layer.plus(&by_hand.times(-1.0)).is_empty());
    }
}
