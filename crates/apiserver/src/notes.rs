//! What is to be said about a request besides its answer: warnings for the client (RFC 7234, 299) and annotations for
//! the audit log. Deep inside a request `warn` and `annotate` are enough; outside of one they do nothing.

use crate::audit::Record;
use crate::flowcontrol::Classified;
use crate::traces::{Attributes, Part, Trace};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};

tokio::task_local! {
    static NOTES: Arc<Notes>;
}

/// Warnings beyond this many are dropped.
const WARNINGS: usize = 100;

/// The notes of one request.
#[derive(Default)]
pub struct Notes {
    warnings: Mutex<Vec<String>>,
    annotations: Mutex<Vec<(String, String)>>,
    record: OnceLock<Arc<Record>>,
    class: OnceLock<Classified>,
    trace: OnceLock<Arc<Trace>>,
    panic: OnceLock<String>,
}

impl Notes {
    /// Takes the warnings, each once.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock())
    }

    /// Takes the annotations, in the order they were made; keys are unique.
    pub fn take_annotations(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.annotations.lock())
    }

    /// What the audit log will say about this request, if it says anything.
    pub fn record(&self) -> Option<&Arc<Record>> {
        self.record.get()
    }

    /// What flow control found the request to be.
    pub fn class(&self) -> Option<&Classified> {
        self.class.get()
    }

    /// The request's trace, if it is traced.
    pub fn trace(&self) -> Option<&Arc<Trace>> {
        self.trace.get()
    }

    /// Its handler has broken down; answers with what words, when asked later.
    pub fn panicked(&self, words: String) {
        // The first is the one that counts.
        let _ = self.panic.set(words);
    }

    pub fn panic(&self) -> Option<&str> {
        self.panic.get().map(String::as_str)
    }

    fn warn(&self, text: &str) {
        let mut warnings = self.warnings.lock();
        if warnings.len() < WARNINGS && !warnings.iter().any(|w| w == text) {
            warnings.push(text.into());
        }
    }

    fn annotate(&self, key: &str, value: &str) {
        let mut annotations = self.annotations.lock();
        // As upstream, the first value of a key stays.
        if !annotations.iter().any(|(k, _)| k == key) {
            annotations.push((key.into(), value.into()));
        }
    }
}

/// Runs a request's work, taking its notes.
pub async fn noting<T>(notes: Arc<Notes>, work: impl Future<Output = T>) -> T {
    NOTES.scope(notes, work).await
}

/// Takes note of what flow control found the request to be.
pub fn classified(class: Classified) {
    // Found once; outside of a request there is nobody to tell.
    let _ = NOTES.try_with(|notes| notes.class.set(class));
}

/// This request is traced.
pub fn traced(trace: Arc<Trace>) {
    let _ = NOTES.try_with(|notes| notes.trace.set(trace));
}

/// The request's trace, if it is traced.
pub fn trace() -> Option<Arc<Trace>> {
    NOTES.try_with(|notes| notes.trace.get().cloned()).ok().flatten()
}

/// Something that the request's trace, if it has one, shows for as long as what is answered lives.
pub fn part(name: &str, attributes: impl FnOnce() -> Attributes) -> Option<Part> {
    trace()?.part(name, attributes())
}

/// Tells the client something that is no error.
pub fn warn(text: &str) {
    let _ = NOTES.try_with(|notes| notes.warn(text));
}

/// Tells the audit log something about this request.
pub fn annotate(key: &str, value: &str) {
    let _ = NOTES.try_with(|notes| notes.annotate(key, value));
}

/// Begins to record this request.
pub fn begin_record(record: Arc<Record>) {
    let _ = NOTES.try_with(|notes| notes.record.set(record));
}

/// Shows something to the record of this request, if it has one.
pub fn record(show: impl FnOnce(&Record)) {
    let _ = NOTES.try_with(|notes| notes.record.get().map(|record| show(record)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_is_said_once() {
        warn("nobody hears this");
        let notes = Arc::new(Notes::default());
        let work = async {
            ["a", "b", "a"].into_iter().for_each(warn);
            annotate("k", "1");
            annotate("k", "2");
        };
        noting(notes.clone(), work).await;
        assert_eq!(notes.take_warnings(), ["a", "b"]);
        assert_eq!(notes.take_annotations(), [("k".to_string(), "1".to_string())]);
        assert!(notes.take_warnings().is_empty());
    }
}
