//! What end-to-end tests share: the binary in a clean environment, and where the shared data is.
#![allow(dead_code, unreachable_pub, clippy::print_stdout, reason = "each test target uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The crate's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shared data: corpus, measured runs, tables. `None` is said aloud.
pub fn shared() -> Option<PathBuf> {
    let place = std::env::var_os("LLMLINT_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    if place.join("corpus").is_dir() {
        return Some(place);
    }
    println!("SKIPPED: the shared data is not at {} (LLMLINT_SHARED names another place)", place.display());
    None
}

/// True when expected outputs are to be written anew: `LLMLINT_UPDATE=1`.
pub fn updating() -> bool {
    std::env::var_os("LLMLINT_UPDATE").is_some()
}

/// Compares with a file that is kept, or writes it.
pub fn assert_kept(path: &Path, now: &str) {
    if updating() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).expect("folder");
        }
        std::fs::write(path, now).expect("writable");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == now,
        "{} is stale: read the difference, then run with LLMLINT_UPDATE=1\n--- kept\n{kept}\n--- now\n{now}",
        path.display()
    );
}

/// What the binary did.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The binary in `directory`, without the caller's environment.
pub fn llmlint(directory: &Path, arguments: &[&str]) -> Ran {
    llmlint_with(directory, arguments, &[], "")
}

/// The same with variables and stdin.
pub fn llmlint_with(directory: &Path, arguments: &[&str], variables: &[(&str, &str)], stdin: &str) -> Ran {
    use std::io::Write;
    let mut command = Command::new(env!("CARGO_BIN_EXE_llmlint"));
    command.args(arguments).current_dir(directory).env_clear();
    // Windows programs do not start without these.
    for name in ["PATH", "SYSTEMROOT", "TEMP"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(variables.iter().copied());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    if let Some(mut pipe) = child.stdin.take() {
        // A command that does not read stdin may be gone already.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the binary ends");
    Ran {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
