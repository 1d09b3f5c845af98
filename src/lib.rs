//! `llmlint` reads the training configs that people already have and says, before a GPU is
//! rented, what is wrong with them and whether the run fits.
//!
//! ```text
//! paths ──▶ discover ──▶ source ──▶ document ──▶ framework ──▶ run ──▶ memory
//!           (which       (bytes,    (spanned     (recognise,   (one     (ledger,
//!            files)       lines)     tree)        schema,       neutral  estimate,
//!                                                 lower)        run)     verdict)
//!                                        │
//!                                      rules (each reads any stage, writes findings)
//!                                        │
//!                                      report (pretty, json, sarif, …)
//! ```
//!
//! Data goes left to right and never back: a stage knows only the stages to its left.
//! [`check`] is the one place where the stages are put together.

pub mod baseline;
pub mod catalog;
pub mod change;
pub mod check;
pub mod cli;
pub mod discover;
pub mod document;
pub mod finding;
pub mod fit;
pub mod fix;
pub mod framework;
pub mod memory;
pub mod report;
pub mod rules;
pub mod run;
pub mod sanitize;
pub mod settings;
pub mod source;
pub mod suppress;
pub mod units;
