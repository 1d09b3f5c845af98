//! From Axolotl's keys to a run.

use crate::framework::Lowering;
use crate::run::TrainingRun;

pub(super) fn lower(_cx: &mut Lowering<'_>) -> Option<TrainingRun> {
    None
}
