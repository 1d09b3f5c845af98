//! Runs the composite action as a runner does, without GitHub: `action.yml` is loaded, inputs
//! are substituted in `env:` only, the `GITHUB_*` files lie in a temporary folder, and the log
//! is read the way the runner reads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_yaml::Value;

/// One use of the action in a workflow.
pub(crate) struct Job {
    folder: tempfile::TempDir,
    inputs: BTreeMap<String, String>,
    github: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    action: PathBuf,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    /// The log, both streams.
    pub(crate) log: String,
    /// Every workflow command that the runner would obey, in order.
    pub(crate) commands: Vec<LogCommand>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) summary: String,
    /// Inputs of the `uses:` steps whose condition holds.
    pub(crate) uploads: Vec<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogCommand {
    pub(crate) name: String,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) data: String,
}

impl Outcome {
    /// Commands of one name.
    pub(crate) fn of(&self, name: &str) -> Vec<&LogCommand> {
        self.commands.iter().filter(|c| c.name == name).collect()
    }

    /// Asserts that nothing but annotations is obeyed, and that each is ours.
    pub(crate) fn only_our_commands(&self) {
        for command in &self.commands {
            assert!(
                matches!(command.name.as_str(), "error" | "warning" | "notice"),
                "{command:?}\n{}",
                self.log
            );
            let title = command.properties.get("title").map_or("", String::as_str);
            let ours = title == "llmlint" || llmlint::settings::rule_exists(title).is_ok();
            assert!(ours, "{command:?}\n{}", self.log);
        }
    }
}

impl Job {
    /// A workspace with these files, that is a git repository with one commit.
    pub(crate) fn new(files: &[(&str, &str)]) -> Job {
        let job = Job::empty();
        job.git(&["init", "-q"]);
        job.write(files);
        job.commit();
        job
    }

    /// A workspace without anything.
    pub(crate) fn empty() -> Job {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["workspace", "temp", "home"] {
            std::fs::create_dir(folder.path().join(name)).expect("created");
        }
        Job {
            folder,
            inputs: BTreeMap::new(),
            github: BTreeMap::from([
                ("event_name".into(), "push".into()),
                ("repository".into(), "o/r".into()),
            ]),
            environment: BTreeMap::from([("LLMLINT_BINARY".into(), env!("CARGO_BIN_EXE_llmlint").into())]),
            action: env!("CARGO_MANIFEST_DIR").into(),
        }
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    pub(crate) fn write(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = self.workspace().join(name);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("created");
            std::fs::write(path, text).expect("written");
        }
    }

    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let done = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"])
            .args(arguments)
            .current_dir(self.workspace())
            .output()
            .expect("git runs");
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    pub(crate) fn input(mut self, name: &str, value: &str) -> Job {
        self.inputs.insert(name.into(), value.into());
        self
    }

    /// A value of the `github` context, such as `event.pull_request.base.sha`.
    pub(crate) fn github(mut self, name: &str, value: &str) -> Job {
        self.github.insert(name.into(), value.into());
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Job {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// The event of a pull request from the same repository.
    pub(crate) fn pull_request(self, base: &str, sha: &str) -> Job {
        self.github("event_name", "pull_request")
            .github("event.pull_request.base.sha", base)
            .github("event.pull_request.number", "7")
            .github("event.pull_request.head.repo.full_name", "o/r")
            .github("sha", sha)
    }

    /// Puts a program of this text in front of the PATH.
    pub(crate) fn program(self, name: &str, text: &str) -> Job {
        use std::os::unix::fs::PermissionsExt as _;
        let bin = self.folder.path().join("bin");
        std::fs::create_dir_all(&bin).expect("created");
        let path = bin.join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        self
    }

    /// Uses a copy of the action with this table of checksums, and no binary of ours.
    pub(crate) fn with_checksums(mut self, table: &str) -> Job {
        let copy = self.folder.path().join("action");
        std::fs::create_dir_all(copy.join("action")).expect("created");
        for name in ["action.yml", "action/run.sh"] {
            std::fs::copy(self.action.join(name), copy.join(name)).expect("copied");
        }
        std::fs::write(copy.join("action/checksums.txt"), table).expect("written");
        self.action = copy;
        self.environment.remove("LLMLINT_BINARY");
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn run(&self) -> Outcome {
        let text = std::fs::read_to_string(self.action.join("action.yml")).expect("action.yml");
        let action: Value = serde_yaml::from_str(&text).expect("action.yml is YAML");
        let mut context = self.github.clone();
        context = context.into_iter().map(|(name, value)| (format!("github.{name}"), value)).collect();
        for (name, input) in action["inputs"].as_mapping().expect("inputs") {
            let name = name.as_str().expect("a name");
            let default = input["default"].as_str().unwrap_or_default();
            let value = self.inputs.get(name).cloned().unwrap_or_else(|| expand(default, &context));
            context.insert(format!("inputs.{name}"), value);
        }
        for name in self.inputs.keys() {
            assert!(context.contains_key(&format!("inputs.{name}")), "no input {name}");
        }
        let mut outcome = Outcome {
            code: 0,
            log: String::new(),
            commands: Vec::new(),
            outputs: BTreeMap::new(),
            summary: String::new(),
            uploads: Vec::new(),
        };
        for step in action["runs"]["steps"].as_sequence().expect("steps") {
            let condition = step["if"].as_str().unwrap_or("success()");
            context.insert("success()".into(), if outcome.code == 0 { "true" } else { "" }.into());
            context.insert("always()".into(), "true".into());
            if evaluate(condition, &context).is_empty() {
                continue;
            }
            if let Some(script) = step["run"].as_str() {
                assert!(!script.contains("${{"), "an expression inside of run: {script}");
                assert_eq!(step["shell"].as_str(), Some("bash"));
                self.step(script, &step["env"], &context, &mut outcome);
                let id = step["id"].as_str().expect("an id");
                for (name, value) in &outcome.outputs {
                    context.insert(format!("steps.{id}.outputs.{name}"), value.clone());
                }
            } else {
                let with = step["with"].as_mapping().expect("with");
                outcome.uploads.push(
                    with.iter()
                        .map(|(name, value)| {
                            let name = name.as_str().expect("a name").to_owned();
                            (name, expand(value.as_str().expect("text"), &context))
                        })
                        .collect(),
                );
            }
        }
        // What the action declares is what a workflow sees.
        outcome.outputs = action["outputs"]
            .as_mapping()
            .expect("outputs")
            .iter()
            .map(|(name, output)| {
                let value = expand(output["value"].as_str().expect("a value"), &context);
                (name.as_str().expect("a name").to_owned(), value)
            })
            .collect();
        outcome
    }

    fn step(
        &self,
        script: &str,
        environment: &Value,
        context: &BTreeMap<String, String>,
        outcome: &mut Outcome,
    ) {
        let temp = self.folder.path().join("temp");
        let [script_file, output, summary] = ["step.sh", "output", "summary"].map(|name| temp.join(name));
        std::fs::write(&script_file, script).expect("written");
        std::fs::write(&output, "").expect("written");
        std::fs::write(&summary, "").expect("written");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["--noprofile", "--norc", "-eo", "pipefail"])
            .arg(&script_file)
            .current_dir(self.workspace())
            .env_clear()
            .env("PATH", format!("{}:{path}", self.folder.path().join("bin").display()))
            .env("HOME", self.folder.path().join("home"))
            .env("LANG", "C.UTF-8")
            .env("CI", "true")
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_ACTION_PATH", &self.action)
            .env("GITHUB_WORKSPACE", self.workspace())
            .env("GITHUB_REPOSITORY", "o/r")
            .env("GITHUB_SHA", self.github.get("sha").map_or("", String::as_str))
            .env("GITHUB_OUTPUT", &output)
            .env("GITHUB_STEP_SUMMARY", &summary)
            .env("RUNNER_TEMP", &temp)
            .envs(&self.environment);
        for (name, value) in environment.as_mapping().expect("env") {
            command.env(name.as_str().expect("a name"), expand(value.as_str().expect("text"), context));
        }
        let done = command.output().expect("bash runs");
        outcome.code = done.status.code().unwrap_or(-1);
        outcome.log =
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        outcome.commands = commands(&outcome.log);
        outcome.summary = std::fs::read_to_string(&summary).expect("the summary");
        for line in std::fs::read_to_string(&output).expect("the outputs").lines() {
            let (name, value) = line.split_once('=').expect("name=value");
            outcome.outputs.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// Text with `${{ … }}` in it.
fn expand(text: &str, context: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        let (expression, after) = after.split_once("}}").expect("a closed expression");
        expanded.push_str(before);
        expanded.push_str(&evaluate(expression, context));
        rest = after;
    }
    expanded + rest
}

/// The part of GitHub's expressions that the action uses; false is the empty text.
fn evaluate(expression: &str, context: &BTreeMap<String, String>) -> String {
    let expression = expression.trim();
    if let Some(inner) = expression.strip_prefix('(').and_then(|e| e.strip_suffix(')'))
        && !inner.contains(['(', ')'])
    {
        return evaluate(inner, context);
    }
    if let Some((left, right)) = split_outside(expression, "&&") {
        // `||` binds weaker than `&&`; without parentheses it is looked for first.
        if let Some((left, right)) = split_outside(expression, "||") {
            let left = evaluate(left, context);
            return if left.is_empty() { evaluate(right, context) } else { left };
        }
        let left = evaluate(left, context);
        return if left.is_empty() { left } else { evaluate(right, context) };
    }
    if let Some((left, right)) = split_outside(expression, "||") {
        let left = evaluate(left, context);
        return if left.is_empty() { evaluate(right, context) } else { left };
    }
    for (operator, wanted) in [("==", true), ("!=", false)] {
        if let Some((left, right)) = expression.split_once(operator) {
            let equal = evaluate(left, context) == evaluate(right, context);
            return if equal == wanted { "true".into() } else { String::new() };
        }
    }
    match expression.strip_prefix('\'').and_then(|e| e.strip_suffix('\'')) {
        Some(literal) => literal.to_owned(),
        None => context.get(expression).cloned().unwrap_or_default(),
    }
}

fn split_outside<'e>(expression: &'e str, operator: &str) -> Option<(&'e str, &'e str)> {
    let mut depth = 0;
    for (at, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && expression[at..].starts_with(operator) => {
                return Some((&expression[..at], &expression[at + operator.len()..]));
            }
            _ => {}
        }
    }
    None
}

/// The commands a runner finds in a log (actions/runner, ActionCommand.cs): `::name k=v::data` at
/// the start of a line after white space, and the older `##[name k=v]data` anywhere in a line.
/// Between `::stop-commands::TOKEN` and `::TOKEN::` it obeys none.
pub(crate) fn commands(log: &str) -> Vec<LogCommand> {
    let mut found = Vec::new();
    let mut stopped: Option<String> = None;
    for line in log.split(['\n', '\r']) {
        let new = line.trim_start().strip_prefix("::").and_then(|rest| rest.split_once("::"));
        let old = line.split_once("##[").and_then(|(_, rest)| rest.split_once(']')).filter(|_| new.is_none());
        let Some((head, data)) = new.or(old) else { continue };
        if let Some(token) = &stopped {
            if head == token {
                stopped = None;
            }
            continue;
        }
        let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
        if name == "stop-commands" {
            assert!(data.len() >= 32, "a guessable token: {data}");
            stopped = Some(data.to_owned());
            continue;
        }
        let separator = if new.is_some() { ',' } else { ';' };
        let unescape = |text: &str| {
            text.replace("%2C", ",")
                .replace("%3A", ":")
                .replace("%0A", "\n")
                .replace("%0D", "\r")
                .replace("%25", "%")
        };
        found.push(LogCommand {
            name: name.to_owned(),
            properties: properties
                .split(separator)
                .filter_map(|p| p.split_once('='))
                .map(|(k, v)| (k.to_owned(), unescape(v)))
                .collect(),
            data: unescape(data),
        });
    }
    assert_eq!(stopped, None, "commands stay stopped for later steps");
    found
}
