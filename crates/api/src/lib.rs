//! The Kubernetes object model and the contracts every part of Canopus speaks: no I/O, no clock, no randomness.
//!
//! [`Value`] is an object while it is handled, [`Object`] the shared, encoded one at rest and on the wire between
//! components, [`Status`] the only error a client sees, [`Api`] the only door to the cluster's state.

pub mod api;
pub mod cbor;
pub mod cron;
pub mod de;
pub mod field;
pub mod gates;
mod gofmt;
pub mod json;
pub mod jsonpath;
pub mod labels;
pub mod managed;
pub mod names;
pub mod object;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selectors;
pub mod status;
pub mod time;
pub mod value;
pub mod yaml;

pub use api::{Api, DeleteOptions, Gvk, Gvr, List, ListOptions, Patch, Target, View, Watch, WatchEvent, WriteOptions};
pub use field::{Errors, Field};
pub use object::{Facts, Object};
pub use quantity::Quantity;
pub use selectors::{FieldSelector, LabelSelector};
pub use status::{Result, Status};
pub use time::Time;
pub use value::{Map, Value};
