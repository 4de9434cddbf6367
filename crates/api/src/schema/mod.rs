//! The schema engine: what is done with an object by its type's tables, for built-in and custom resources alike.

mod check;
mod decode;
mod defaults;
mod place;
mod prune;
#[cfg(test)]
pub(crate) mod testing;
mod zero;

pub use canopus_schema::{Field, FieldType, ListKind, PatchStrategy, Shape, Type, TypeId};
pub use check::{Problem, cannot_be_handled, check, strict_error};
pub use decode::decode;
pub use defaults::apply_defaults;
pub use place::{Atom, Place, Scalar, default_of, find_field};
pub use prune::prune;
pub use zero::{complete, is_embedded, zero};
