//! llmlint's own format: the documented meaning of [`TrainingRun`].

use super::{Framework, Kind, Lowering, UnknownKeys};
use crate::document::{Dialect, Syntax, Value};
use crate::run::TrainingRun;

/// The native format.
pub struct Native;

impl Framework for Native {
    fn name(&self) -> &'static str {
        "llmlint"
    }

    fn release(&self) -> &'static str {
        "llmlint 1"
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml, Syntax::Toml, Syntax::Json]
    }

    fn dialect(&self, syntax: Syntax) -> Dialect {
        match syntax {
            Syntax::Yaml => Dialect::Core12,
            Syntax::Toml => Dialect::Toml,
            Syntax::Json => Dialect::Json,
        }
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        (root.get("llmlint")?.as_int().is_some() && root.get("model").is_some()).then_some(Kind::Run)
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Refused
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let _ = cx;
        None
    }
}
