//! What one file may use: the command line over the file's own words over `llmlint.toml`.

use super::Context;
use crate::document::Value;
use crate::finding::Finding;
use crate::framework::Framework;
use crate::rules;
use crate::run::{Origin, Setting};
use crate::settings::{Budget, BudgetTable, FILE_NAME, Settings};
use crate::source::{Location, Span};
use crate::units::Bytes;

/// The budget of one file, and the GPU count that goes with it.
pub(super) struct DeclaredBudget {
    pub(super) resolved: Option<Budget>,
    pub(super) gpus: Option<Setting<u64>>,
}

/// Command line over inline comment and the file's own table over `llmlint.toml`.
pub(super) fn declared_budget(
    framework: Option<&'static dyn Framework>,
    root: Option<Value<'_>>,
    comment: Option<(BudgetTable, Span)>,
    settings: &Settings,
    context: &Context,
    findings: &mut Vec<Finding>,
) -> DeclaredBudget {
    let own = framework.zip(root).and_then(|(framework, root)| framework.budget(root));
    let mut layers: Vec<(BudgetTable, String, Option<Span>)> = Vec::new();
    layers.push((context.command_line.clone(), "the command line".into(), None));
    if let Some((table, span)) = comment {
        layers.push((table, "a comment in the file".into(), Some(span)));
    }
    if let Some((table, span)) = own {
        layers.push((table, "the file".into(), Some(span)));
    }
    layers.push((settings.budget.clone(), FILE_NAME.into(), None));

    let gpus = layers.iter().find_map(|(table, place, _)| {
        table.gpus.map(|gpus| Setting { value: gpus, origin: Origin::Declared(place.clone()) })
    });
    let mut merged = BudgetTable::default();
    let mut resolved = None;
    for (table, place, span) in layers {
        merged = merged.or(&table);
        if resolved.is_none() {
            match merged.resolve(&place) {
                Ok(budget) => resolved = budget,
                // The command line and llmlint.toml were looked up when they were read.
                Err(error) => {
                    if let Some(span) = span {
                        findings.push(rules::budget_error(&error, Location::primary(span)));
                    }
                    merged = BudgetTable { gpus: merged.gpus, ..BudgetTable::default() };
                }
            }
        }
    }
    if let Some(budget) = &mut resolved {
        budget.gpus = gpus.as_ref().map(|g| g.value);
        if budget.host_memory.is_none() {
            budget.host_memory = merged.host_memory.as_deref().and_then(|text| Bytes::parse(text).ok());
        }
    }
    DeclaredBudget { resolved, gpus }
}
