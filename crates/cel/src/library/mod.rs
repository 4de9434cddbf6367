//! The functions, by name. Each looks at the types of its arguments: the checker leaves `dyn` open until now.

pub(crate) mod authorization;
pub(crate) mod format;
pub(crate) mod kubernetes;
pub(crate) mod lists;
pub(crate) mod net;
pub(crate) mod semver;
pub(crate) mod standard;
pub(crate) mod strings;
pub(crate) mod text_format;
pub(crate) mod url;

use crate::eval::{Context, EvalError, Function, Outcome};
use crate::val::Val;

/// The function called `name`; one that does not exist has no overload for anything.
pub(crate) fn find(name: &str) -> Function {
    standard::find(name)
        .or_else(|| strings::find(name))
        .or_else(|| lists::find(name))
        .or_else(|| kubernetes::find(name))
        .or_else(|| format::find(name))
        .or_else(|| authorization::find(name))
        .unwrap_or(none)
}

fn none<'a>(_: &Context<'a, '_>, _: &[Val<'a>]) -> Outcome<'a> {
    Err(EvalError::no_such_overload())
}
