//! Events encoded once for all who watch: the encoded form stays with the object for a while, since the watchers of an
//! event are all sent it at about the same time.

use super::accept::{Encoding, Shape};
use bytes::Bytes;
use canopus_api::Object;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// How much is kept, in all.
const KEPT: usize = 256 << 10;

/// The objects that have forms, in the order they got them, and the forms' sizes.
static RECENT: Mutex<Recent> = Mutex::new(Recent { queue: VecDeque::new(), bytes: 0 });

struct Recent {
    queue: VecDeque<(Weak<Object>, usize)>,
    bytes: usize,
}

/// The frame of an event of this kind with this object, made unless somebody has made it already.
pub fn shared(
    object: &Arc<Object>,
    encoding: Encoding,
    shape: Shape,
    kind: &str,
    make: impl FnOnce() -> Bytes,
) -> Bytes {
    let form = number(encoding, shape, kind);
    if let Some(known) = object.form(form) {
        return known;
    }
    let made = make();
    object.remember_form(form, made.clone());
    let mut forgotten = Vec::new();
    let mut recent = RECENT.lock();
    recent.bytes += made.len();
    recent.queue.push_back((Arc::downgrade(object), made.len()));
    while recent.bytes > KEPT && recent.queue.len() > 1 {
        let Some((old, size)) = recent.queue.pop_front() else { break };
        recent.bytes -= size;
        forgotten.extend(old.upgrade());
    }
    drop(recent);
    forgotten.iter().for_each(|object| object.forget_forms());
    made
}

fn number(encoding: Encoding, shape: Shape, kind: &str) -> u8 {
    let kind = match kind {
        "ADDED" => 0,
        "MODIFIED" => 1,
        _ => 2,
    };
    kind | u8::from(shape == Shape::Plain) << 2 | (encoding as u8) << 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn each_form_is_made_once_and_not_kept_for_ever() {
        let object = |name: &str| Arc::new(Object::from_value(value!({"metadata": {"name": name}}), &[], 1));
        let bytes = |n: usize| Bytes::from(vec![0; n]);
        let first = object("a");
        let get = |shape, kind, size| shared(&first, Encoding::Json, shape, kind, || bytes(size)).len();
        assert_eq!(get(Shape::Plain, "ADDED", 10), 10);
        assert_eq!(get(Shape::Plain, "ADDED", 11), 10);
        assert_eq!(get(Shape::Plain, "MODIFIED", 12), 12);
        assert_eq!(get(Shape::Metadata, "ADDED", 13), 13);
        shared(&object("b"), Encoding::Json, Shape::Plain, "ADDED", || bytes(KEPT));
        assert_eq!(get(Shape::Plain, "ADDED", 14), 14);
    }
}
