//! What a write hands to the watch cache through the store.

use canopus_api::{Facts, Value};
use parking_lot::Mutex;
use std::sync::Arc;

/// The facts of what was written, and its tree, which components in this process are about to ask for: thanks to it
/// nobody parses what the writer just encoded.
pub struct Fresh {
    pub facts: Arc<Facts>,
    tree: Mutex<Option<Value>>,
}

impl Fresh {
    pub fn new(facts: Arc<Facts>, tree: Value) -> Arc<Fresh> {
        Arc::new(Fresh { facts, tree: Mutex::new(Some(tree)) })
    }

    /// The tree, for the first who asks, as it is at `revision`.
    pub fn take(&self, revision: u64) -> Option<Arc<Value>> {
        let mut tree = self.tree.lock().take()?;
        tree.obj_mut("metadata").insert("resourceVersion", revision.to_string());
        Some(Arc::new(tree))
    }
}
