//! A model's `config.json` from the Hugging Face hub: only where `--online` asks for it.
//!
//! The id comes from the checked file, which may be a stranger's pull request. So it is validated
//! before it becomes part of an address, nothing but one small JSON file is fetched, and the token
//! goes to the configured endpoint alone: redirects to another origin are refused.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

/// A `config.json` object, or why there is none, in a few words.
type Answer = Result<Map<String, Value>, String>;

/// Ids that one run asks for at most.
const MOST_QUESTIONS: usize = 64;

/// A hub, and what it answered so far.
#[derive(Debug)]
pub struct Hub {
    endpoint: Endpoint,
    #[cfg_attr(not(feature = "online"), allow(dead_code, reason = "read where requests are made"))]
    token: Option<String>,
    answers: Mutex<HashMap<String, Answer>>,
}

/// Scheme, host and path prefix of a hub; no user, no query.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    secure: bool,
    /// Host, with the port where one is named.
    authority: String,
    /// Empty, or `/prefix` without a slash at its end.
    prefix: String,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Endpoint, String> {
        let bad = || "it must be `https://host` or `http://host`, with a port and a path at most".to_owned();
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(bad)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        let segment = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~' | '/');
        if authority.is_empty() || !authority.chars().all(host) || !path.chars().all(segment) {
            return Err(bad());
        }
        let path = path.trim_end_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Endpoint { secure, authority: authority.to_ascii_lowercase(), prefix })
    }

    #[cfg_attr(not(feature = "online"), allow(dead_code, reason = "requests are made with it"))]
    fn origin(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.authority)
    }

    /// Only this machine hears what is sent there.
    fn is_loopback(&self) -> bool {
        let host = match self.authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.authority.split(':').next().unwrap_or_default(),
        };
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl Hub {
    /// The hub at `endpoint`, `https://huggingface.co` where that is `None`. The token is sent over
    /// https or to this machine only.
    ///
    /// # Errors
    /// A sentence, when the endpoint is no address, or when this build has no network code.
    pub fn new(endpoint: Option<&str>, token: Option<String>) -> Result<Hub, String> {
        if !cfg!(feature = "online") {
            return Err(
                "this build cannot go online: it was compiled without the cargo feature `online`".into()
            );
        }
        let endpoint = Endpoint::parse(endpoint.unwrap_or("https://huggingface.co"))
            .map_err(|why| format!("HF_ENDPOINT is no hub's address: {why}"))?;
        let visible = |token: &String| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        let private = endpoint.secure || endpoint.is_loopback();
        Ok(Hub { endpoint, token: token.filter(|t| visible(t) && private), answers: Mutex::default() })
    }

    /// The `config.json` of `id`'s main revision. Each id is asked for once.
    ///
    /// # Errors
    /// A sentence: the id is none, or the hub did not answer, or not with a config.
    pub fn config(&self, id: &str) -> Answer {
        let Some((owner, name)) = id.split_once('/').filter(|(o, n)| is_part(o) && is_part(n)) else {
            return Err("it is no id that the hub has".into());
        };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = answers.get(id) {
            return answer.clone();
        }
        if answers.len() >= MOST_QUESTIONS {
            return Err(format!("the hub was asked for {MOST_QUESTIONS} models already"));
        }
        // One question at a time, under the lock: files that name the same model share the answer.
        let answer = self.fetch(&format!("{}/{owner}/{name}/resolve/main/config.json", self.endpoint.prefix));
        answers.insert(id.to_owned(), answer.clone());
        answer
    }

    #[cfg(not(feature = "online"))]
    #[expect(clippy::unused_self, reason = "the same call as with the feature")]
    fn fetch(&self, _path: &str) -> Answer {
        Err("this build cannot go online".into())
    }

    #[cfg(feature = "online")]
    fn fetch(&self, path: &str) -> Answer {
        use std::time::Duration;

        const REDIRECTS: usize = 4;
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder()
                .timeout_global(Some(Duration::from_secs(10)))
                .timeout_connect(Some(Duration::from_secs(5)))
                // Followed here, so that the token cannot follow to another host.
                .max_redirects(0)
                .http_status_as_error(false)
                .user_agent(concat!("llmlint/", env!("CARGO_PKG_VERSION")))
                .build(),
        );
        let origin = self.endpoint.origin();
        let mut path = path.to_owned();
        for _ in 0..=REDIRECTS {
            let mut request = agent.get(format!("{origin}{path}")).header("Accept", "application/json");
            if let Some(token) = &self.token {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let mut response = request.call().map_err(|error| match error {
                ureq::Error::Timeout(_) => "the hub did not answer within 10 seconds".to_owned(),
                _ => "the hub could not be reached".to_owned(),
            })?;
            match response.status().as_u16() {
                200 => {
                    let limit = crate::document::limits::FILE_BYTES as u64;
                    let text = response.body_mut().with_config().limit(limit).read_to_string();
                    let text = text.map_err(|_| "the hub's answer is too long or no text".to_owned())?;
                    return serde_json::from_str(&text)
                        .map_err(|_| "the hub's answer is no JSON object".to_owned());
                }
                301 | 302 | 303 | 307 | 308 => {
                    let location = response.headers().get("location").and_then(|value| value.to_str().ok());
                    path = same_origin(location.unwrap_or_default(), &origin)
                        .ok_or("the hub sends elsewhere, and that is not followed")?;
                }
                401 | 403 if self.token.is_some() => {
                    return Err("HF_TOKEN has no access to it on the hub".into());
                }
                401 | 403 => {
                    return Err("the hub has no such model, or wants HF_TOKEN for it".into());
                }
                404 => return Err("the hub has no such model, or no config.json in it".into()),
                status => return Err(format!("the hub answered with status {status}")),
            }
        }
        Err("the hub redirects without end".into())
    }
}

/// The path of a redirect within `origin`; `None` where it leads elsewhere.
#[cfg(any(feature = "online", test))]
fn same_origin(location: &str, origin: &str) -> Option<String> {
    let path = match location.strip_prefix(origin) {
        Some(rest) => rest,
        None => location,
    };
    let plain = path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= 2048
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#');
    plain.then(|| path.to_owned())
}

/// An owner or a name as the hub has them.
pub(super) fn is_part(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 96
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
        && !part.contains("..")
        && !part.contains("--")
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_scheme_host_and_path() {
        let parse =
            |text: &str| Endpoint::parse(text).map(|e| (e.origin(), e.prefix.clone(), e.is_loopback()));
        assert_eq!(parse("https://hf.example/"), Ok(("https://hf.example".into(), String::new(), false)));
        assert_eq!(parse("http://127.0.0.1:80/a/"), Ok(("http://127.0.0.1:80".into(), "/a".into(), true)));
        assert_eq!(parse("http://[::1]:80").map(|e| e.2), Ok(true));
        assert_eq!(parse("http://127.evil.example").map(|e| e.2), Ok(false));
        for bad in
            ["", "hf.example", "ftp://hf.example", "https://user@hf.example", "https://h/?q", "https://"]
        {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_redirect_stays_where_it_is() {
        let origin = "https://hf.example";
        assert_eq!(same_origin("/b/c", origin).as_deref(), Some("/b/c"));
        assert_eq!(same_origin("https://hf.example/b", origin).as_deref(), Some("/b"));
        for elsewhere in [
            "https://evil.example/b",
            "https://hf.example.evil/b",
            "https://hf.example@evil/b",
            "//evil.example/b",
            "http://hf.example/b",
            "/b c",
            "",
        ] {
            assert_eq!(same_origin(elsewhere, origin), None, "{elsewhere}");
        }
    }

    #[test]
    fn ids_are_two_plain_parts() {
        assert!(is_part("Qwen2.5-7B") && is_part("a_b"));
        for bad in ["", ".", "..", "a..b", "-a", "a/b", "a b", "ä", "a%2f", "a--b", "a?b"] {
            assert!(!is_part(bad), "{bad}");
        }
    }
}
