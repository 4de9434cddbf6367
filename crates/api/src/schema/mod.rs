//! The schema engine: what is done with an object by its type's tables, for built-in and custom resources alike.

mod check;
mod custom;
mod decode;
mod defaults;
mod place;
mod prune;
mod structural;
#[cfg(test)]
pub(crate) mod testing;
mod zero;

pub use canopus_schema::{Field, FieldType, ListKind, PatchStrategy, Shape, Type, TypeId};
pub use check::{Problem, cannot_be_handled, check, strict_error};
pub use custom::apply_structural_defaults;
pub use decode::decode;
pub use defaults::apply_defaults;
pub use place::{Atom, ItemKind, Keys, Place, Scalar, Schema, default_of, find_field};
pub use prune::prune;
pub use structural::{Additional, Kind, List, Structural};
pub use zero::{complete, is_embedded, zero};
