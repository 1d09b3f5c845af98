//! `--online`, against servers on this machine.

#![allow(clippy::print_stdout, reason = "a build without the feature says so")]

use std::process::{Command, Output};

fn llmlint(endpoint: &str, token: &str, model: &str, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("run.yaml");
    let text = format!("llmlint: 1\nmodel:\n  id: {model}\ntraining:\n  method: full\n");
    std::fs::write(&file, text).expect("written");
    Command::new(env!("CARGO_BIN_EXE_llmlint"))
        .args(["explain", "--gpu", "H100-80GB", "--gpus", "1", "--format", "json"])
        .args(arguments)
        .arg(&file)
        .env("HF_ENDPOINT", endpoint)
        .env("HF_TOKEN", token)
        .env("HF_HOME", dir.path())
        .env_remove("HF_HUB_CACHE")
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("the binary runs")
}

#[cfg(not(feature = "online"))]
#[test]
fn a_build_without_it_says_so() {
    let output = llmlint("https://hub.invalid", "", "org/model-1b", &["--online"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cargo feature `online`"), "{said}");
    println!("SKIPPED: run with --features online for the rest");
}

#[cfg(feature = "online")]
mod with_the_feature {
    use super::llmlint;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    const CONFIG: &str = r#"{"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,
        "num_attention_heads":4,"vocab_size":1000,"max_position_embeddings":4096}"#;

    /// A server, and every request it got: the path with the token sent along.
    struct Server {
        address: String,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        /// `answer` gets the path and gives a status line, headers and the body.
        fn start(answer: impl Fn(&str) -> (String, String) + Send + 'static) -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = format!("http://{}", listener.local_addr().expect("an address"));
            let seen: Arc<Mutex<Vec<String>>> = Arc::default();
            let log = Arc::clone(&seen);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                    let path =
                        lines.next().and_then(|l| Some(l.split(' ').nth(1)?.to_owned())).unwrap_or_default();
                    let token = lines
                        .take_while(|line| !line.is_empty())
                        .find_map(|l| {
                            l.to_ascii_lowercase().strip_prefix("authorization: ").map(str::to_owned)
                        })
                        .unwrap_or_else(|| "none".into());
                    log.lock().expect("no panic").push(format!("{path} {token}"));
                    let (head, body) = answer(&path);
                    let length = body.len();
                    let _ = write!(
                        &stream,
                        "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                    );
                }
            });
            Server { address, seen }
        }

        fn seen(&self) -> Vec<String> {
            self.seen.lock().expect("no panic").clone()
        }
    }

    fn ask(server: &Server, model: &str) -> (Option<u64>, String) {
        let output = llmlint(&server.address, "hf_secret", model, &["--online"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let file = &report["files"][0];
        (file["parameters"]["total"].as_u64(), file["unknown"].to_string())
    }

    #[test]
    fn a_model_found_nowhere_else_is_fetched_and_nothing_is_asked_without_the_flag() {
        let server = Server::start(|path| match path {
            "/org/small-1b/resolve/main/config.json" => {
                ("307 Temporary Redirect\r\nlocation: /api/resolve-cache/small?x=1".into(), String::new())
            }
            "/api/resolve-cache/small?x=1" => ("200 OK".into(), CONFIG.into()),
            _ => ("404 Not Found".into(), String::new()),
        });
        let (parameters, unknown) = ask(&server, "org/small-1b");
        assert!(parameters.is_some_and(|n| n > 100_000), "{unknown}");
        assert_eq!(
            server.seen(),
            [
                "/org/small-1b/resolve/main/config.json bearer hf_secret",
                "/api/resolve-cache/small?x=1 bearer hf_secret",
            ]
        );
        // The catalogue goes before the hub, and without the flag nobody is asked.
        assert!(ask(&server, "openai-community/gpt2").0.is_some());
        let _ = llmlint(&server.address, "hf_secret", "org/small-1b", &[]);
        assert_eq!(server.seen().len(), 2);
    }

    #[test]
    fn the_token_goes_to_no_other_host() {
        let other = Server::start(|_| ("200 OK".into(), CONFIG.into()));
        let there = format!("307 Temporary Redirect\r\nlocation: {}/org/m-1b", other.address);
        let server = Server::start(move |_| (there.clone(), String::new()));
        let (parameters, unknown) = ask(&server, "org/m-1b");
        assert_eq!(parameters, None);
        assert!(unknown.contains("sends elsewhere"), "{unknown}");
        assert_eq!(other.seen(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_config_is_an_unknown_model_with_the_reason() {
        let server = Server::start(|path| match path.split('/').nth(2).unwrap_or_default() {
            "gated-1b" => ("401 Unauthorized".into(), String::new()),
            "long-1b" => ("200 OK".into(), " ".repeat(3 << 20)),
            "text-1b" => ("200 OK".into(), "not JSON".into()),
            "list-1b" => ("200 OK".into(), "[1]".into()),
            "loop-1b" => ("302 Found\r\nlocation: /org/loop-1b".into(), String::new()),
            "broken-1b" => ("500 Oh".into(), String::new()),
            _ => ("404 Not Found".into(), String::new()),
        });
        for (model, reason) in [
            ("org/gated-1b", "HF_TOKEN has no access"),
            ("org/long-1b", "too long"),
            ("org/text-1b", "no JSON object"),
            ("org/list-1b", "no JSON object"),
            ("org/loop-1b", "without end"),
            ("org/broken-1b", "status 500"),
            ("org/absent-1b", "no such model"),
        ] {
            let (parameters, unknown) = ask(&server, model);
            assert_eq!(parameters, None, "{model}");
            assert!(unknown.contains(reason), "{model}: {unknown}");
        }
        let before = server.seen().len();
        for id in ["../etc/passwd", "org/..", "org/a/b", "\"org/a?b=c\"", "org/a%2fb", "\"org/a b\""] {
            let (parameters, _) = ask(&server, id);
            assert_eq!(parameters, None, "{id}");
        }
        assert_eq!(server.seen().len(), before, "{:?}", server.seen());
    }

    #[test]
    fn an_endpoint_that_is_no_address_is_a_usage_error() {
        let output = llmlint("ftp://hub", "", "org/m-1b", &["--online"]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("HF_ENDPOINT"), "{said}");
    }
}
