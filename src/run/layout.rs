//! Megatron's `pipeline_model_parallel_layout`: which chunk of the pipeline has which layers, in a string.

/// More symbols than any model has layers.
const MOST: usize = 4096;

/// The first layer of each chunk but the first, in the order of the model; `None`: the string is none.
///
/// Chunks lie between `|`; `t` is a layer, `E` the embedding, `m` a layer that predicts further tokens,
/// `L` the loss. What stands before `*n`, one symbol or some in brackets, is repeated; commas part
/// nothing (Megatron core, `pipeline_parallel_layer_layout.py`).
pub fn chunk_starts(layout: &str) -> Option<Vec<u64>> {
    let mut starts = Vec::new();
    let mut layers = 0;
    for symbol in expanded(layout)?.chars() {
        match symbol {
            '|' => starts.push(layers),
            't' => layers += 1,
            _ => {}
        }
    }
    Some(starts)
}

/// Every symbol written out.
fn expanded(layout: &str) -> Option<String> {
    let mut rest = layout.chars().filter(|c| !c.is_whitespace() && *c != ',').peekable();
    let mut out = String::new();
    while let Some(symbol) = rest.next() {
        let part = match symbol {
            '(' => {
                let mut inside = String::new();
                loop {
                    match rest.next()? {
                        ')' => break,
                        // Brackets do not lie in brackets.
                        '(' => return None,
                        inner => inside.push(inner),
                    }
                }
                expanded(&inside)?
            }
            'E' | 't' | 'm' | 'L' | '|' => symbol.to_string(),
            _ => return None,
        };
        let mut times = 1;
        if rest.next_if_eq(&'*').is_some() {
            let mut digits = String::new();
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            times = digits.parse::<usize>().ok()?;
        }
        if out.len().saturating_add(part.len().saturating_mul(times)) > MOST {
            return None;
        }
        out.push_str(&part.repeat(times));
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_says_where_chunks_start() {
        // DeepSeek-V3's 61 layers over eight ranks of four chunks; the last has none but the ends.
        let starts = chunk_starts("Et|(tt|)*30mL").unwrap_or_default();
        assert_eq!(starts.len(), 31);
        assert_eq!((starts.first(), starts.get(1), starts.last()), (Some(&1), Some(&3), Some(&61)));
        assert_eq!(chunk_starts("E t*2, t | t*3 L"), Some(vec![3]));
        // Llama 3 70B over eight ranks of five chunks.
        let starts = chunk_starts("Et*2|(t*2|)*34,t*3|(t*2|)*3,tL").unwrap_or_default();
        assert_eq!((starts.len(), starts.last()), (39, Some(&79)));
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        for text in ["", "E|x", "(t|*3", "t*", "t*99999", "(t(t))*2", "(t|)*5000"] {
            assert_eq!(chunk_starts(text), None, "{text}");
        }
    }
}
