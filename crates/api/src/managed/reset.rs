//! Which fields a write may own at all.

use super::set::Set;

type Paths<'a> = &'a [&'a [&'a str]];

/// What a strategy puts back to what it was, nobody owns who writes it (upstream `fieldpath.Filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset<'a> {
    /// The fields at these paths are never owned, with all below them: `["status"]`.
    But(Paths<'a>),
    /// Only the fields at these paths are, with all below them; `*` is any field or item.
    Only(Paths<'a>),
}

impl Reset<'_> {
    /// Everything may be owned.
    pub const NOTHING: Reset<'static> = Reset::But(&[]);

    /// Leaves in `set` what may be owned.
    pub fn filter(self, set: &mut Set) {
        match self {
            Reset::But(paths) => paths.iter().for_each(|path| set.remove_field(path)),
            Reset::Only(paths) => set.keep_fields(paths),
        }
    }
}
