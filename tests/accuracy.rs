//! How far the estimate is off, against traced and measured training steps.

#[path = "accuracy/native.rs"]
mod native;

use native::{architecture, estimate_native, oracle_row, read_csv, sharded_row, shared};

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
