//! Objects that a webhook has converted, as long as they are current: upstream's watch cache of a version that is not
//! stored holds them, too. Who wants an object that is just being converted waits for it.

use canopus_api::{Object, Result, Status};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// So many are kept at least, current or not.
const KEPT: usize = 1024;

/// Revision, and where the stored bytes are: a deletion's object has the bytes of the one before.
type Key = (u64, usize);

fn key(stored: &Object) -> Key {
    (stored.revision, stored.body().as_ptr() as usize)
}

enum Slot {
    /// The stored object, which keeps its bytes where they are, and the converted one.
    Done(Arc<Object>, Arc<Object>),
    /// Somebody is at it, and says what went wrong, if anything.
    Pending(watch::Receiver<Option<Status>>),
}

#[derive(Default)]
pub struct Known(Mutex<HashMap<Key, Slot>>);

/// What there is to do for a list of objects.
struct Round {
    mine: Vec<usize>,
    others: Vec<watch::Receiver<Option<Status>>>,
}

/// Takes back what was begun, however it ends.
struct Begun<'a> {
    known: &'a Known,
    keys: Vec<Key>,
    result: watch::Sender<Option<Status>>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut slots = self.known.0.lock();
        for key in &self.keys {
            if matches!(slots.get(key), Some(Slot::Pending(_))) {
                slots.remove(key);
            }
        }
    }
}

impl Known {
    /// The converted objects. `convert` is asked once for all that nobody has converted yet; `is_current` and `current` (how
    /// many there are) say what is worth keeping.
    pub async fn get<F>(
        &self,
        stored: &[Arc<Object>],
        (is_current, current): (impl Fn(&Object) -> bool, usize),
        convert: impl Fn(Vec<Arc<Object>>) -> F,
    ) -> Result<Vec<Arc<Object>>>
    where
        F: Future<Output = Result<Vec<Object>>>,
    {
        let mut found: Vec<Option<Arc<Object>>> = vec![None; stored.len()];
        loop {
            let (result, begun) = watch::channel(None);
            let round = self.look(stored, &mut found, &begun);
            drop(begun);
            if !round.mine.is_empty() {
                let keys = round.mine.iter().map(|at| key(&stored[*at])).collect();
                let begun = Begun { known: self, keys, result };
                match convert(round.mine.iter().map(|at| stored[*at].clone()).collect()).await {
                    Err(status) => {
                        begun.result.send_replace(Some(status.clone()));
                        return Err(status);
                    }
                    Ok(converted) => {
                        self.trim(current, &is_current);
                        let mut slots = self.0.lock();
                        for (at, object) in round.mine.iter().zip(converted) {
                            let object = Arc::new(object);
                            slots.insert(key(&stored[*at]), Slot::Done(stored[*at].clone(), object.clone()));
                            found[*at] = Some(object);
                        }
                    }
                }
            }
            for mut other in round.others {
                // It ends when they are done, or have given up.
                let failed = other.wait_for(Option::is_some).await.ok().and_then(|status| status.clone());
                if let Some(status) = failed {
                    return Err(status);
                }
            }
            if found.iter().all(Option::is_some) {
                return Ok(found.into_iter().flatten().collect());
            }
        }
    }

    fn look(
        &self,
        stored: &[Arc<Object>],
        found: &mut [Option<Arc<Object>>],
        begun: &watch::Receiver<Option<Status>>,
    ) -> Round {
        let mut round = Round { mine: Vec::new(), others: Vec::new() };
        let mut slots = self.0.lock();
        for (at, object) in stored.iter().enumerate().filter(|(at, _)| found[*at].is_none()).collect::<Vec<_>>() {
            match slots.get(&key(object)) {
                Some(Slot::Done(_, converted)) => found[at] = Some(converted.clone()),
                // An object that is there twice is waited for in the next round.
                Some(Slot::Pending(other)) if other.same_channel(begun) => {}
                Some(Slot::Pending(other)) => round.others.push(other.clone()),
                None => {
                    slots.insert(key(object), Slot::Pending(begun.clone()));
                    round.mine.push(at);
                }
            }
        }
        round
    }

    /// Lets go what is not current any more, when there is much of it.
    fn trim(&self, current: usize, is_current: impl Fn(&Object) -> bool) {
        let mut slots = self.0.lock();
        if slots.len() > KEPT.max(2 * current) {
            slots.retain(|_, slot| match slot {
                Slot::Done(stored, _) => is_current(stored),
                Slot::Pending(_) => true,
            });
        }
    }
}
