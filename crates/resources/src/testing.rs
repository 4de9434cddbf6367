//! What the table tests of all kinds share.

use crate::resource::{Context, Resource};
use canopus_api::{Errors, Field, Time, Value};

pub fn context(subresource: &str) -> Context<'_> {
    Context { now: Time(0), subresource, user: "tester" }
}

/// What is wrong with creating `object`, after defaulting and preparing it.
pub fn create(resource: &dyn Resource, mut object: Value) -> Vec<String> {
    resource.default(&mut object);
    resource.prepare_create(&mut object, &context(""));
    let mut errors = Errors::new();
    resource.validate(&Field::root(&object), &mut errors);
    crate::checks::texts(&errors)
}

/// What is wrong with updating `old` to `new`, after defaulting both and preparing.
pub fn update(resource: &dyn Resource, subresource: &str, mut old: Value, mut new: Value) -> Vec<String> {
    resource.default(&mut old);
    resource.default(&mut new);
    let cx = context(subresource);
    resource.prepare_update(&mut new, &old, &cx);
    let mut errors = Errors::new();
    resource.validate_update(&Field::root(&new), &old, &cx, &mut errors);
    crate::checks::texts(&errors)
}

/// The cells of a row, as text, at the first of January 2026.
pub fn cells(resource: &dyn Resource, object: &Value) -> Vec<String> {
    let now = Time::parse("2026-01-01T00:00:00Z").unwrap_or_default();
    let text = |cell: Value| cell.as_str().map_or_else(|| canopus_api::json::to_string(&cell), str::to_string);
    resource.row(object, now).into_iter().map(text).collect()
}
