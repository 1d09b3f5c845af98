//! How far the estimate is off, against traced and measured training steps.
//!
//! `cargo test --test accuracy -- --nocapture` prints the tables; `LLMLINT_UPDATE=1` writes
//! `docs/accuracy.md`, `docs/accuracy.svg` and the recorded figures anew.

#![expect(clippy::print_stdout, reason = "the tables are what this suite is run for")]

#[path = "accuracy/native.rs"]
mod native;
#[path = "accuracy/parallel.rs"]
mod parallel;
#[path = "accuracy/plot.rs"]
mod plot;
#[path = "accuracy/score.rs"]
mod score;
#[path = "accuracy/verdicts.rs"]
mod verdicts;

use std::path::Path;

use native::{Row, architecture, estimate_native, measured_row, oracle_row, read_csv, sharded_row, shared};
use score::{Scored, by, summarise, table};

/// The figure of an estimate that a row measures.
fn scored(
    row: &Row,
    source: String,
    stratum: String,
    kind: &str,
    truth: &str,
    e: &llmlint::memory::Estimate,
) -> Scored {
    let (figure, interval) = match kind {
        "allocated" => (e.allocated, e.allocated_interval),
        "reserved" => (e.reserved, e.reserved_interval),
        _ => (e.device, e.device_interval),
    };
    Scored {
        id: row["id"].clone(),
        source,
        stratum,
        batches: "one length",
        truth: truth.parse().expect("bytes"),
        estimate: figure.0 as f64,
        low: interval.low.0 as f64,
        high: interval.high.0 as f64,
    }
}

/// Measured rows of our own table, each in the native format.
fn measured(confidence: &str) -> Vec<Scored> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accuracy/measured.csv");
    let mut rows = Vec::new();
    for row in read_csv(&path).iter().filter(|r| r["confidence"] == confidence) {
        let (text, estimated) = measured_row(row);
        match estimated {
            Ok(estimate) => {
                let source = row["id"].split('-').next().unwrap_or_default().to_owned();
                let mut one = scored(row, source, stratum(&text), &row["figure"], &row["bytes"], &estimate);
                one.batches = batches(&text);
                rows.push(one);
            }
            Err(why) => println!("no estimate for {}: {why}", row["id"]),
        }
    }
    rows
}

/// Whether batches of other lengths than the longest come: from the native text.
fn batches(text: &str) -> &'static str {
    if text.contains("\"batching\": \"padded\"") { "lengths vary" } else { "one length" }
}

/// `lora, checkpointed`: from the native text.
fn stratum(text: &str) -> String {
    let method = ["qlora", "lora"]
        .into_iter()
        .find(|m| text.contains(&format!("\"method\": \"{m}\"")))
        .unwrap_or("full");
    let whole = text.contains("\"activation_checkpointing\": \"none\"");
    format!("{method}, {}", if whole { "nothing recomputed" } else { "checkpointed" })
}

/// Traced rows of one table: allocated, and beside it reserved and whether the phase is right.
struct Traced {
    allocated: Vec<Scored>,
    reserved: Vec<Scored>,
    phases_right: usize,
    unknown: Vec<String>,
}

/// The oracle's words for a moment, in ours.
fn same_moment(traced: &str, phase: &str) -> bool {
    match traced {
        "fwd" | "fwd_head" => phase == "forward-end",
        "bwd_head" => phase == "loss",
        "bwd" | "recompute" => {
            matches!(phase, "head-backward" | "backward-top" | "backward-bottom" | "backward-end")
        }
        "opt" => phase == "optimizer-step",
        _ => true,
    }
}

fn traced(shared: &Path, table: &str, group: &str, express: fn(&Row) -> String) -> Traced {
    let mut all =
        Traced { allocated: Vec::new(), reserved: Vec::new(), phases_right: 0, unknown: Vec::new() };
    for row in read_csv(&shared.join("truth").join(table)) {
        let text = express(&row);
        match architecture(shared, &row["model"]).and_then(|a| estimate_native(&text, &a)) {
            Ok(estimate) => {
                let source = format!("traced: {}", row[group]);
                let figure = |kind: &str, column: &str| {
                    scored(&row, source.clone(), stratum_of_text(&text), kind, &row[column], &estimate)
                };
                all.allocated.push(figure("allocated", "peak"));
                all.reserved.push(figure("reserved", "reserved"));
                let phase = row.get("phase").map_or("", String::as_str);
                all.phases_right += usize::from(same_moment(phase, estimate.phase.as_str()));
            }
            Err(why) => all.unknown.push(format!("{} ({}): {why}", row["id"], row["model"])),
        }
    }
    all
}

/// As [`stratum`], for the YAML of a traced row.
fn stratum_of_text(text: &str) -> String {
    let method =
        ["qlora", "lora"].into_iter().find(|m| text.contains(&format!("method: {m}\n"))).unwrap_or("full");
    let whole = text.contains("activation_checkpointing: none");
    format!("{method}, {}", if whole { "nothing recomputed" } else { "checkpointed" })
}

fn absent() -> Option<std::path::PathBuf> {
    let found = shared();
    if found.is_none() {
        println!("SKIPPED: no truth tables at ../shared or $LLMLINT_SHARED");
    }
    found
}

/// What the project promises of traced runs on one GPU.
#[test]
fn traced_runs_are_met() {
    let Some(shared) = absent() else { return };
    let all = traced(&shared, "oracle-grid.csv", "group", oracle_row);
    println!("{}", table(by(&all.allocated, |r| r.source.clone())));
    println!("{}", table(by(&all.reserved, |r| r.stratum.clone())));
    for why in &all.unknown {
        println!("no estimate: {why}");
    }
    let (allocated, reserved) = (summarise(&all.allocated), summarise(&all.reserved));
    println!("allocated {allocated:?}\nreserved {reserved:?}");
    assert!(allocated.median <= 0.1, "median {} %", allocated.median);
    assert!(allocated.p95 <= 2.0, "95th percentile {} %", allocated.p95);
    assert!(allocated.within3 >= 98.0, "within 3 %: {} %", allocated.within3);
    assert!(allocated.worst <= 10.0, "worst {} %", allocated.worst);
    assert!(reserved.median <= 2.0, "reserved: median {} %", reserved.median);
    let right = all.phases_right as f64 / allocated.count as f64;
    assert!(right >= 0.95, "the right phase in {:.1} %", right * 100.0);
    assert!(all.unknown.len() <= 20, "{} rows without an estimate", all.unknown.len());
}

/// The same of sharded runs: DDP, FSDP, ZeRO.
#[test]
fn traced_sharded_runs_are_met() {
    let Some(shared) = absent() else { return };
    let all = traced(&shared, "sharded-grid.csv", "strategy", sharded_row);
    println!("{}", table(by(&all.allocated, |r| r.source.clone())));
    let summary = summarise(&all.allocated);
    println!("{summary:?} {:?}", all.unknown);
    assert!(summary.median <= 0.5, "median {} %", summary.median);
    assert!(summary.p95 <= 4.0, "95th percentile {} %", summary.p95);
    let reserved = summarise(&all.reserved);
    println!("{}\nreserved {reserved:?}", table(by(&all.reserved, |r| r.source.clone())));
    assert!(reserved.median <= 2.0, "reserved: median {} %", reserved.median);
    assert!(reserved.p90 <= 7.5, "reserved: 90th percentile {} %", reserved.p90);
}

/// No run that fitted is refused; of those that ran out of memory nine in ten were to be warned of,
/// and no fewer are than were once.
#[test]
fn verdicts_agree_with_what_runs_did() {
    let rows = verdicts::judged();
    println!("{}\nnot warned of: {}", verdicts::table(&rows), verdicts::missed(&rows));
    let refused: Vec<&str> =
        rows.iter().filter(|r| r.outcome == "fit" && r.verdict == "exceeds").map(|r| r.id.as_str()).collect();
    assert!(refused.is_empty(), "fitted, and called `exceeds`: {refused:?}");
    let warned =
        verdicts::count(&rows, "full", "oom", "exceeds") + verdicts::count(&rows, "full", "oom", "tight");
    assert!(warned >= WARNED, "{warned} runs out of memory are warned of");
    let fits = verdicts::count(&rows, "full", "fit", "fits");
    assert!(fits >= FITS, "{fits} runs that fitted are called so");
}

/// Recorded counts.
const WARNED: usize = 36;
const FITS: usize = 103;

/// Figures that were reached once: `source count median p90`, in percent.
const RECORDED: &str = include_str!("accuracy/recorded.tsv");
/// Percentage points that a figure may worsen by rounding.
const SLACK: f64 = 0.05;

fn recorded_lines(groups: &std::collections::BTreeMap<String, Vec<&Scored>>) -> String {
    let mut out = String::from("source\tcount\tmedian\tp90\n");
    for (source, rows) in groups {
        let s = summarise(rows.iter().copied());
        out.push_str(&format!("{source}\t{}\t{:.2}\t{:.2}\n", s.count, s.median, s.p90));
    }
    out
}

fn all_and_by_source(rows: &[Scored]) -> std::collections::BTreeMap<String, Vec<&Scored>> {
    let mut groups = by(rows, |r| r.source.clone());
    groups.insert("all".into(), rows.iter().collect());
    groups
}

/// Measured runs: no source may get worse than it was.
#[test]
fn measured_runs_are_no_worse_than_recorded() {
    let rows = measured("high");
    let groups = all_and_by_source(&rows);
    println!("{}", table(groups.clone()));
    println!("{}", table(by(&rows, |r| r.stratum.clone())));
    println!("{}", table(by(&rows, |r| r.batches.to_owned())));
    let mut worst: Vec<&Scored> = rows.iter().collect();
    worst.sort_by(|a, b| b.error().abs().total_cmp(&a.error().abs()));
    for r in worst.iter().take(shown()) {
        println!(
            "{:+.1} % {} {:.2} GB, estimated {:.2} [{:.2} {:.2}]",
            r.error() * 100.0,
            r.id,
            r.truth / 1e9,
            r.estimate / 1e9,
            r.low / 1e9,
            r.high / 1e9
        );
    }
    if std::env::var_os("LLMLINT_UPDATE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accuracy/recorded.tsv");
        std::fs::write(path, recorded_lines(&groups)).expect("writable");
        return;
    }
    for line in RECORDED.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [source, count, median, p90] = fields[..] else { panic!("recorded.tsv: {line}") };
        let now =
            summarise(groups.get(source).unwrap_or_else(|| panic!("no rows of {source}")).iter().copied());
        assert!(now.count >= count.parse().expect("count"), "{source}: rows without an estimate");
        assert!(
            now.median <= median.parse::<f64>().expect("median") + SLACK,
            "{source}: median {:.2} %",
            now.median
        );
        assert!(
            now.p90 <= p90.parse::<f64>().expect("p90") + SLACK,
            "{source}: 90th percentile {:.2} %",
            now.p90
        );
    }
}

fn shown() -> usize {
    std::env::var("ACCURACY_WORST").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

/// `docs/accuracy.md` and its plot say what the tables above say.
#[test]
fn the_documentation_is_current() {
    let Some(shared) = absent() else { return };
    let one = traced(&shared, "oracle-grid.csv", "group", oracle_row);
    let many = traced(&shared, "sharded-grid.csv", "strategy", sharded_row);
    let (high, medium) = (measured("high"), measured("med"));
    let page = page(&one, &many, &high, &medium, &verdicts::judged());
    let plot = plot::svg(&[
        ("traced", "#4477aa", &one.allocated),
        ("traced, sharded", "#228833", &many.allocated),
        ("measured", "#cc3311", &high),
    ]);
    for (name, text) in [("accuracy.md", page), ("accuracy.svg", plot)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        if std::env::var_os("LLMLINT_UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().expect("docs")).expect("writable");
            std::fs::write(&path, &text).expect("writable");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "docs/{name} is stale: run LLMLINT_UPDATE=1 cargo test --test accuracy");
    }
}

fn page(
    one: &Traced,
    many: &Traced,
    high: &[Scored],
    medium: &[Scored],
    verdicts: &[verdicts::Judged],
) -> String {
    let spread: Vec<Scored> = parallel::rows().iter().map(|(row, e)| parallel::scored(row, e)).collect();
    let whole = |rows: &Traced| rows.allocated.clone();
    let mut covered = high.to_vec();
    covered.extend(whole(one));
    format!(
        "<!-- Written by `LLMLINT_UPDATE=1 cargo test --test accuracy`. -->\n\n\
         # How far the estimate is off\n\n\
         Each row is a training step with a known peak, written in the native format and estimated like any file. \
         Errors are of the row's own kind of figure: allocated, reserved or what `nvidia-smi` shows. \
         *Inside the interval* counts rows that lie in the estimate's interval of that figure.\n\n\
         ![estimated against measured](accuracy.svg)\n\n\
         ## Traced runs, one GPU: allocated\n\n\
         A real Hugging Face model and optimizer, real training steps on PyTorch's real CUDA dispatch, autograd and \
         caching allocator, over a stub CUDA runtime. {} rows; the peak's moment is right in {:.1} %.\n\n{}\n\
         The same rows, reserved:\n\n{}\n\
         Not estimated: {} rows ({}).\n\n\
         ## Traced runs, data parallel: allocated\n\n{}\n\
         The same rows, reserved:\n\n{}\n\
         ## Measured runs, one GPU\n\n\
         Published figures of real runs whose settings are fully known, by source, by kind of run, and by whether \
         the batches' lengths vary.\n\n{}\n{}\n{}\n\
         Rows whose settings are known in part, apart:\n\n{}\n\
         ## Measured runs, many GPUs\n\n\
         Published figures again: Megatron core's own tests (`mcore`), SimuMax, torchtitan, torchao, fsdp_qlora.\n\n{}\n\
         ## Verdicts\n\n\
         Runs that are known to have fitted or to have run out of memory on a GPU of known size: benchmark tables and \
         issue threads. `tight` means that the interval straddles the budget. Where settings are known in part, what \
         the source does not say is set to the least that it can be, or inferred, and the row is counted apart. \
         Runs near a card's end are what such sources report, so many are tight.\n\n{}\n\
         Ran out of memory and not warned of: {}.\n\n\
         ## Where it is weakest\n\n{}",
        one.allocated.len(),
        one.phases_right as f64 / one.allocated.len() as f64 * 100.0,
        table(all_and_by_source(&one.allocated)),
        table(by(&one.reserved, |r| r.stratum.clone())),
        one.unknown.len(),
        families(&one.unknown),
        table(all_and_by_source(&many.allocated)),
        table(all_and_by_source(&many.reserved)),
        table(all_and_by_source(high)),
        table(by(high, |r| r.stratum.clone())),
        table(by(high, |r| r.batches.to_owned())),
        table(all_and_by_source(medium)),
        table(all_and_by_source(&spread)),
        verdicts::table(verdicts),
        verdicts::missed(verdicts),
        WEAKEST,
    )
}

/// The models that have no estimate, once each.
fn families(unknown: &[String]) -> String {
    let names: std::collections::BTreeSet<&str> =
        unknown.iter().filter_map(|u| u.split(['(', ')']).nth(1)).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

const WEAKEST: &str = include_str!("accuracy/weakest.md");

/// `ACCURACY_DUMP=file cargo test --test accuracy dump -- --ignored`: one line a row.
#[test]
#[ignore = "a tool, not a check"]
fn dump() {
    let Some(shared) = shared() else { panic!("no ../shared") };
    let mut out = String::from("table,id,peak,est,reserved,est_reserved,phase,est_phase,why\n");
    for (table, express) in [("oracle", oracle_row as fn(&native::Row) -> String), ("sharded", sharded_row)] {
        for row in read_csv(&shared.join(format!("truth/{table}-grid.csv"))) {
            let estimate =
                architecture(&shared, &row["model"]).and_then(|a| estimate_native(&express(&row), &a));
            let phase = row.get("phase").map_or("", String::as_str);
            let line = match estimate {
                Ok(e) => format!(
                    "{table},{},{},{},{},{},{phase},{},\n",
                    row["id"],
                    row["peak"],
                    e.allocated.0,
                    row["reserved"],
                    e.reserved.0,
                    e.phase.as_str()
                ),
                Err(why) => format!(
                    "{table},{},{},0,{},0,{phase},,{}\n",
                    row["id"],
                    row["peak"],
                    row["reserved"],
                    why.replace(',', ";")
                ),
            };
            out.push_str(&line);
        }
    }
    let path = std::env::var("ACCURACY_DUMP").unwrap_or_else(|_| "/tmp/accuracy.csv".into());
    std::fs::write(path, out).expect("writable");
}
