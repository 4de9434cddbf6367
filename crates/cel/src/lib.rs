//! The Common Expression Language, as Kubernetes 1.36 uses it in admission policies, match conditions, validation rules of
//! custom resources and authentication (KEP-3488, KEP-2876): parser, type checker, cost estimates, evaluation within a
//! budget, and Kubernetes' own functions. Messages are cel-go's, since clients match them.
//!
//! ```
//! use canopus_api::value;
//! use canopus_cel::{Env, Type, Val, PER_CALL_LIMIT};
//!
//! let env = Env::new().variable("object", Type::Dyn);
//! let program = env.compile("object.spec.replicas <= 5").unwrap();
//! assert_eq!(program.result(), &Type::Bool);
//!
//! let object = value!({ "spec": { "replicas": 3 } });
//! let done = program.eval(&[("object", Val::json(&object))], PER_CALL_LIMIT);
//! assert_eq!(done.value.unwrap().as_bool(), Some(true));
//! assert_eq!(done.cost, 4);
//!
//! let issues = env.compile("objekt.spec").unwrap_err();
//! assert_eq!(
//!     issues[0].to_string(),
//!     "ERROR: <input>:1:1: undeclared reference to 'objekt' (in container '')\n | objekt.spec\n | ^"
//! );
//! ```
//!
//! For types that are known, declare variables with [`schema::declare`] (or a [`TypeProvider`] of your own), hand
//! [`DeclTypes`] to [`Env::types`], and bind [`Val::declared`].

mod ast;
mod checker;
mod cost;
mod decl;
mod env;
mod escape;
mod eval;
mod issue;
mod keyed;
mod lexer;
mod library;
mod macros;
mod made;
mod parser;
mod plan;
mod program;
mod regexp;
pub mod schema;
mod signatures;
mod time;
mod types;
mod val;

pub use cost::CostEstimate;
pub use decl::{DeclKind, DeclType, DeclTypes, ListType, ObjectDecl, TypeProvider};
pub use env::Env;
pub use escape::{escape, unescape};
pub use eval::{Bindings, EvalError};
pub use issue::{Issue, issues_text};
pub use library::authorization::{Asked, Check, Decision, ResourceCheck};
pub use program::{Evaluation, MATCH_CONDITIONS_BUDGET, PER_CALL_LIMIT, Program, RUNTIME_BUDGET};
pub use time::Timestamp;
pub use types::Type;
pub use val::{List, Map, Struct, Text, Val};

#[cfg(test)]
mod tests;
