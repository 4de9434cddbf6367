//! The order of merged lists: what the patch names comes in its order, the rest keeps its place around it.

use super::strategic::{Error, key_value};
use crate::json;
use crate::value::Value;
use std::collections::HashMap;

/// Positions in a list, by what identifies its items.
pub(super) struct Order(HashMap<String, usize>);

impl Order {
    fn of(items: &[Value], merge_key: &str) -> Result<Order, Error> {
        let mut out = HashMap::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            out.entry(Order::text(key_value(item, merge_key)?)).or_insert(i);
        }
        Ok(Order(out))
    }

    /// A text that two values share when they are equal.
    pub(super) fn text(value: &Value) -> String {
        json::to_string(value)
    }

    fn position(&self, item: &Value, merge_key: &str) -> Option<usize> {
        let key = if merge_key.is_empty() { item } else { item.get(merge_key)? };
        self.0.get(&Order::text(key)).copied()
    }
}

/// Splits items into those that `by` names and the others.
pub(super) fn partition(items: Vec<Value>, by: &[Value], merge_key: &str) -> Result<(Vec<Value>, Vec<Value>), Error> {
    // An item of an order list may lack the key; it then names nothing.
    let named: Vec<Value> = by.iter().filter(|v| merge_key.is_empty() || v.get(merge_key).is_some()).cloned().collect();
    let order = Order::of(&named, merge_key)?;
    for item in &items {
        key_value(item, merge_key)?;
    }
    Ok(items.into_iter().partition(|item| order.position(item, merge_key).is_some()))
}

/// Sorts `patched` by `patch_order` and `rest` by `live_order`, then merges them by `live_order` as well as it goes.
pub(super) fn normalize(
    mut patched: Vec<Value>,
    mut rest: Vec<Value>,
    patch_order: &[Value],
    live_order: &[Value],
    merge_key: &str,
) -> Result<Vec<Value>, Error> {
    let (by_patch, by_live) = (Order::of(patch_order, merge_key)?, Order::of(live_order, merge_key)?);
    patched.sort_by_key(|item| by_patch.position(item, merge_key));
    rest.sort_by_key(|item| by_live.position(item, merge_key));
    let mut out = Vec::with_capacity(patched.len() + rest.len());
    let (mut left, mut right) = (rest.into_iter().peekable(), patched.into_iter().peekable());
    while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
        let before = match (by_live.position(l, merge_key), by_live.position(r, merge_key)) {
            (Some(l), Some(r)) => l < r,
            _ => false,
        };
        out.extend(if before { left.next() } else { right.next() });
    }
    out.extend(left);
    out.extend(right);
    Ok(out)
}
