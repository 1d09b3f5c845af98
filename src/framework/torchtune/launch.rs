//! The launch line in a torchtune file's header comment. The recipe and the number of processes
//! are nowhere else, and every shipped file carries them; they are taken as the assumption they
//! are.

use crate::document::Document;

/// What a header comment proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// `lora_finetune_distributed`, without its folder.
    pub recipe: String,
    /// Processes in all; `None` for a single-device recipe, which runs one.
    pub processes: Option<u64>,
    /// The comment's line, for the assumption's text.
    pub line: String,
}

impl Launch {
    /// The first `tune run …` of the file's comments.
    pub fn read(document: &Document) -> Option<Launch> {
        document.comments.iter().find_map(|comment| parse(&comment.text))
    }

    /// True when the recipe is one of the single-device ones.
    pub fn single_device(&self) -> bool {
        self.recipe.ends_with("single_device")
    }
}

fn parse(comment: &str) -> Option<Launch> {
    let command = comment.split_once("tune run")?.1;
    let mut words = command.split_whitespace();
    let (mut nodes, mut processes, mut recipe) = (1u64, None, None);
    while let Some(word) = words.next() {
        let (flag, joined) = match word.split_once('=') {
            Some((flag, value)) if word.starts_with("--") => (flag, Some(value)),
            _ => (word, None),
        };
        let mut value = || joined.map(str::to_owned).or_else(|| words.next().map(str::to_owned));
        match flag.replace('-', "_").trim_start_matches('_') {
            "nproc_per_node" => processes = value()?.parse().ok(),
            "nnodes" => nodes = value()?.parse().unwrap_or(1),
            "config" => break,
            _ if flag.starts_with("--") => {
                value();
            }
            _ => {
                recipe = Some(flag.trim_matches('`').rsplit('/').next().unwrap_or(flag).to_owned());
                break;
            }
        }
    }
    let recipe =
        recipe.filter(|name| name.len() > 2 && name.chars().all(|c| c.is_alphanumeric() || c == '_'))?;
    Some(Launch {
        recipe,
        processes: processes.map(|n: u64| n.saturating_mul(nodes)),
        line: comment.trim().chars().take(120).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_recipe_and_the_process_count_are_read_from_a_launch_line() {
        let launch = parse("  tune run --nnodes 2 --nproc_per_node 4 dev/full_dpo_distributed --config x");
        let launch = launch.map(|l| (l.recipe, l.processes));
        assert_eq!(launch, Some(("full_dpo_distributed".into(), Some(8))));
        let single =
            parse("tune run lora_finetune_single_device --config llama3/8B_lora").map(|l| l.processes);
        assert_eq!(single, Some(None));
        assert_eq!(parse("use `tune run` to start"), None);
    }
}
