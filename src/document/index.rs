//! What is looked up often and computed once a document: parents, the keys of wide mappings,
//! and what interpolations resolve to. Without it a small file of interpolations costs hours.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::{Document, Entry, NodeId, NodeKind, Scalar};

/// Mappings up to this size are searched entry by entry.
const NARROW: usize = 32;

/// The lazily built parts of a [`Document`]. Cloning forgets them.
#[derive(Debug, Default)]
pub(super) struct Index {
    parents: OnceLock<Vec<Option<NodeId>>>,
    keys: OnceLock<HashMap<NodeId, HashMap<Box<str>, Entry>>>,
    resolved: Mutex<HashMap<NodeId, Scalar>>,
}

impl Clone for Index {
    fn clone(&self) -> Index {
        Index::default()
    }
}

impl Document {
    /// The collection that a value stands in; for an anchored node, where it is written.
    pub(super) fn parent(&self, child: NodeId) -> Option<NodeId> {
        let parents = self.index.parents.get_or_init(|| {
            let mut parents = vec![None; self.nodes.len()];
            for (id, node) in self.nodes.iter().enumerate() {
                let parent = Some(NodeId(id as u32));
                let mut set = |child: NodeId| {
                    if let Some(slot) = parents.get_mut(child.0 as usize) {
                        *slot = parent;
                    }
                };
                match &node.kind {
                    NodeKind::Sequence(items) => items.iter().copied().for_each(&mut set),
                    NodeKind::Mapping(entries) => entries.iter().for_each(|e| set(e.value)),
                    _ => {}
                }
            }
            parents
        });
        *parents.get(child.0 as usize)?
    }

    /// The last entry that writes `key` in the mapping at `id`. `None`: the mapping is narrow
    /// and to be searched.
    pub(super) fn indexed(&self, id: NodeId, key: &str) -> Option<Option<Entry>> {
        match &self.node(id).kind {
            NodeKind::Mapping(entries) if entries.len() > NARROW => {}
            _ => return None,
        }
        let keys = self.index.keys.get_or_init(|| {
            let wide = self.nodes.iter().enumerate().filter_map(|(id, node)| match &node.kind {
                NodeKind::Mapping(entries) if entries.len() > NARROW => Some((NodeId(id as u32), entries)),
                _ => None,
            });
            let texts =
                |entries: &[Entry]| entries.iter().filter_map(|e| Some((self.text_of(e.key)?, *e))).collect();
            wide.map(|(id, entries)| (id, texts(entries))).collect()
        });
        Some(keys.get(&id)?.get(key).copied())
    }

    fn text_of(&self, mut key: NodeId) -> Option<Box<str>> {
        for _ in 0..super::limits::DEPTH {
            match &self.node(key).kind {
                NodeKind::Alias(target) => key = *target,
                NodeKind::Scalar { text, .. } => return Some(text.clone()),
                _ => return None,
            }
        }
        None
    }

    /// What the interpolations at `id` resolve to, computed once.
    pub(super) fn resolved(&self, id: NodeId, resolve: impl FnOnce() -> Scalar) -> Scalar {
        let known =
            |index: &Index| index.resolved.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        known(&self.index).unwrap_or_else(|| {
            let scalar = resolve();
            self.index.resolved.lock().unwrap_or_else(PoisonError::into_inner).insert(id, scalar.clone());
            scalar
        })
    }
}
