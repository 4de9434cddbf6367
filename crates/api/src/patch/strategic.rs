//! Strategic merge patch: a merge patch whose lists are merged by key where the type says so, steered by directives
//! (`$patch`, `$deleteFromPrimitiveList`, `$setElementOrder`, `$retainKeys`).
//! <https://git.k8s.io/community/contributors/devel/sig-api-machinery/strategic-merge-patch.md>

use super::ordering::{Order, normalize, partition};
use super::rejected;
use crate::gofmt;
use crate::schema::{Field, FieldType, PatchStrategy, Shape, Type, find_field};
use crate::status::{Result, Status};
use crate::value::{Map, Value};
use compact_str::CompactString;
use std::collections::{HashMap, HashSet};

const DIRECTIVE: &str = "$patch";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";
const RETAIN_KEYS: &str = "$retainKeys";

/// Why a patch does not apply, in upstream's words.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Error {
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("invalid patch format of primitive list")]
    BadDeletionList,
    #[error("invalid patch format of retainKeys")]
    BadRetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    BadOrderList,
    #[error("{0}")]
    Other(String),
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        match error {
            Error::ListOfLists => rejected(),
            // What upstream does not foresee is answered as the server's own error, without a reason.
            Error::Other(message) => Status::new(500, "", message),
            bad => Status::bad_request(bad.to_string()),
        }
    }
}

type Outcome<T> = std::result::Result<T, Error>;

fn other<T>(message: String) -> Outcome<T> {
    Err(Error::Other(message))
}

/// Merges `patch` into a copy of `original`, an object of type `ty`.
///
/// 400 for malformed patches and directives, 422 for lists of lists, 500 (as upstream) for the rest.
pub fn strategic_merge(original: &Value, patch: &Value, ty: &'static Type) -> Result<Value> {
    let patch = match patch {
        Value::Object(map) => map.clone(),
        Value::Null => Map::new(),
        wrong => {
            let kind = super::json::go_kind(wrong);
            return Err(Status::bad_request(format!(
                "json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
            )));
        }
    };
    let original = original.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(merge_map(original, patch, Schema::Type(ty))?))
}

/// What is known of a place's fields.
#[derive(Clone, Copy)]
pub(super) enum Schema {
    Type(&'static Type),
    /// Not a struct: what Go's reflection calls it.
    Kind(&'static str),
}

struct Found {
    below: Schema,
    strategy: PatchStrategy,
}

impl Schema {
    fn of(ty: &FieldType) -> Schema {
        match ty {
            FieldType::Ref(id) => match id.get().shape {
                Shape::Any | Shape::Json => Schema::Kind("interface"),
                _ => Schema::Type(id.get()),
            },
            FieldType::String => Schema::Kind("string"),
            FieldType::Int32 => Schema::Kind("int32"),
            FieldType::Int64 => Schema::Kind("int64"),
            FieldType::Double => Schema::Kind("float64"),
            FieldType::Bool => Schema::Kind("bool"),
            FieldType::Bytes | FieldType::Array(_) => Schema::Kind("slice"),
            FieldType::Map(_) => Schema::Kind("map"),
            FieldType::Any => Schema::Kind("interface"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Schema::Type(_) => "struct",
            Schema::Kind(kind) => kind,
        }
    }

    fn field(self, name: &str) -> Outcome<&'static Field> {
        match self {
            Schema::Kind(kind) => {
                other(format!("merging an object in json but data type is not struct, instead is: {kind}"))
            }
            Schema::Type(ty) => find_field(ty, name).ok_or_else(|| {
                let short = ty.name.rsplit('.').next().unwrap_or(ty.name);
                Error::Other(format!("unable to find api field in struct {short} for the json field {name:?}"))
            }),
        }
    }

    fn of_map(self, name: &str) -> Outcome<Found> {
        let field = self.field(name)?;
        Ok(Found { below: Schema::of(&field.ty), strategy: field.patch })
    }

    fn of_list(self, name: &str) -> Outcome<Found> {
        let field = self.field(name)?;
        match field.ty {
            FieldType::Array(FieldType::Array(_)) => other("unexpected slice of slice".into()),
            FieldType::Array(item) => Ok(Found { below: Schema::of(item), strategy: field.patch }),
            ty => other(format!("expected slice or array type, but got: {}", Schema::of(&ty).name())),
        }
    }
}

fn wrong_type(expected: &str, found: &Value) -> Error {
    Error::Other(format!("expected a {expected}, but received a {}", gofmt::type_name(found)))
}

fn as_list(value: Value) -> Outcome<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        found => Err(wrong_type("[]interface {}", &found)),
    }
}

/// The part behind the slash of `$directive/field`.
fn directed_field<'a>(key: &'a str, prefix: &str, error: Error) -> Outcome<&'a str> {
    key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).ok_or(error)
}

fn merge_map(mut original: Map, mut patch: Map, schema: Schema) -> Outcome<Map> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        merge_entry(&mut original, &key, value, schema)?;
    }
    Ok(original)
}

fn unknown_directive(directive: &Value, patch: &Map) -> Error {
    let shown = match directive {
        Value::Str(s) => s.to_string(),
        other => format!("%!s({}={})", gofmt::type_name(other), gofmt::plain(other)),
    };
    Error::Other(format!("unknown patch type: {shown} in map: {}", gofmt::plain(&Value::Object(patch.clone()))))
}

/// `$retainKeys`: clears the fields it does not name; what the patch sets must be named.
fn retain_keys(original: &mut Map, patch: &mut Map) -> Outcome<()> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = retained else { return Err(Error::BadRetainKeys) };
    let names: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let exempt = |k: &str, v: &Value| v.is_null() || k.starts_with(DELETE_FROM) || k.starts_with(SET_ORDER);
    if patch.iter().any(|(k, v)| !exempt(k, v) && !names.contains(k.as_str())) {
        return Err(Error::BadRetainKeys);
    }
    original.retain(|k, _| names.contains(k));
    Ok(())
}

/// `$setElementOrder/x`: merges list `x` and puts its items into that order.
fn merge_ordered_lists(original: &mut Map, patch: &mut Map, schema: Schema) -> Outcome<()> {
    let directives: Vec<CompactString> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let order = as_list(patch.remove(&directive).unwrap_or_default())?;
        let key = directed_field(&directive, SET_ORDER, Error::BadOrderList)?;
        let live = original.get(key).cloned().map(as_list).transpose()?;
        let patched = patch.get(key).cloned().map(as_list).transpose()?;
        let found = schema.of_list(key)?;
        let merge_key = found.strategy.merge_key.unwrap_or("");
        check_order(patched.as_deref().unwrap_or(&[]), &order, merge_key)?;
        let merged = match (&live, &patched) {
            (None, None) => continue,
            (Some(live), None) => live.clone(),
            (None, Some(patched)) => patched.iter().filter_map(|v| without_directives(v.clone())).collect(),
            (Some(live), Some(patched)) => merge_list(live.clone(), patched.clone(), &found, false)?,
        };
        let (live, patched) = (live.unwrap_or_default(), patched.unwrap_or_default());
        let (ordered, rest) = partition(merged, &order, merge_key)?;
        element_type(&[&live, &patched])?;
        let both = normalize(ordered, rest, &order, &order_in_place(live, &patched, merge_key), merge_key)?;
        original.insert(key, Value::Array(both));
        patch.remove(key);
    }
    Ok(())
}

/// The order that upstream takes for the live list's after merging: it deletes and appends in place, so that additions
/// stand where the freed room at the end was, as far as that goes.
fn order_in_place(live: Vec<Value>, patched: &[Value], merge_key: &str) -> Vec<Value> {
    let directive = |v: &Value, name: &str| v[DIRECTIVE].as_str() == Some(name);
    if merge_key.is_empty() || patched.iter().any(|v| directive(v, "replace")) {
        return live;
    }
    let keys = |items: &[Value]| items.iter().map(|v| Order::text(&v[merge_key])).collect::<HashSet<_>>();
    let deleted: HashSet<String> =
        patched.iter().filter(|v| directive(v, "delete")).map(|v| Order::text(&v[merge_key])).collect();
    let room = live.len();
    let mut out: Vec<Value> = live.into_iter().filter(|v| !deleted.contains(&Order::text(&v[merge_key]))).collect();
    let have = keys(&out);
    let new = patched.iter().filter(|v| v.get(DIRECTIVE).is_none() && !have.contains(&Order::text(&v[merge_key])));
    out.extend(new.take(room - out.len()).cloned().collect::<Vec<_>>());
    out
}

/// The items of the patch must be in the order list, in the same order; deletions are exempt.
fn check_order(patched: &[Value], order: &[Value], merge_key: &str) -> Outcome<()> {
    if order.is_empty() || patched.is_empty() {
        return Ok(());
    }
    let deleted = |v: &Value| v[DIRECTIVE].as_str() == Some("delete");
    if let Some(wrong) = patched.iter().find(|v| !merge_key.is_empty() && v.as_object().is_none()) {
        return Err(wrong_type("map[string]interface {}", wrong));
    }
    let mut order_items = order.iter();
    for item in patched.iter().filter(|v| merge_key.is_empty() || (!deleted(v) && v.get(DIRECTIVE).is_none())) {
        let wanted = key_value(item, merge_key)?;
        let mut found = false;
        for candidate in order_items.by_ref() {
            if key_value(candidate, merge_key)? == wanted {
                found = true;
                break;
            }
        }
        if !found {
            return other(format!(
                "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
                gofmt::plain(&Value::Array(patched.to_vec())),
                gofmt::plain(&Value::Array(order.to_vec()))
            ));
        }
    }
    Ok(())
}

/// What identifies an item: its merge key's value, or the item itself in lists of scalars.
pub(super) fn key_value<'a>(item: &'a Value, merge_key: &str) -> Outcome<&'a Value> {
    if merge_key.is_empty() {
        return Ok(item);
    }
    let Value::Object(map) = item else { return Err(wrong_type("map[string]interface {}", item)) };
    map.get(merge_key).ok_or_else(|| {
        Error::Other(format!("map: {} does not contain declared merge key: {merge_key}", gofmt::plain(item)))
    })
}

fn merge_entry(original: &mut Map, key: &str, value: Value, schema: Schema) -> Outcome<()> {
    let deletes = key.starts_with(DELETE_FROM);
    let key = if deletes { directed_field(key, DELETE_FROM, Error::BadDeletionList)? } else { key };
    if value.is_null() {
        original.remove(key);
        return Ok(());
    }
    match (original.remove(key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let found = schema.of_map(key)?;
            let merged = if found.strategy.replace { new } else { merge_map(old, new, found.below)? };
            original.insert(key, merged);
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let found = schema.of_list(key)?;
            let merged = if found.strategy.merge || deletes { merge_list(old, new, &found, deletes)? } else { new };
            original.insert(key, Value::Array(merged));
        }
        (Some(old), _) if deletes => {
            original.insert(key, old);
        }
        (None, _) if deletes => {}
        (old, new) => {
            let same_type = old.is_some_and(|old| gofmt::type_name(&old) == gofmt::type_name(&new));
            let new = if same_type { new } else { without_nulls(new) };
            if let Some(new) = without_directives(new) {
                original.insert(key, new);
            }
        }
    }
    Ok(())
}

/// Null fields of objects mean nothing in what is added whole.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect())
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        scalar => scalar,
    }
}

/// Drops objects that carry a `$patch` directive, at any depth; None when `value` is one.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return None,
        Value::Object(map) => {
            Value::Object(map.into_iter().filter_map(|(k, v)| Some((k, without_directives(v)?))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().filter_map(without_directives).collect()),
        scalar => scalar,
    })
}

/// The one type of all items; lists in lists, nulls and mixtures are refused.
fn element_type(lists: &[&[Value]]) -> Outcome<bool> {
    let mut items = lists.iter().flat_map(|list| list.iter());
    let Some(first) = items.next() else {
        return other("no elements in any of the given slices".into());
    };
    if matches!(first, Value::Array(_)) {
        return Err(Error::ListOfLists);
    }
    let name = gofmt::type_name(first);
    if first.is_null() || items.any(|item| gofmt::type_name(item) != name) {
        let shown: Vec<String> = lists.iter().map(|l| gofmt::plain(&Value::Array(l.to_vec()))).collect();
        return other(format!("list element types are not identical: [{}]", shown.join(" ")));
    }
    Ok(matches!(first, Value::Object(_)))
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, found: &Found, deletes: bool) -> Outcome<Vec<Value>> {
    if !found.strategy.merge && !deletes {
        return Ok(patch);
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let merge_key = found.strategy.merge_key.unwrap_or("");
    let objects = element_type(&[&original, &patch])?;
    if !objects {
        if deletes {
            return Ok(original.into_iter().filter(|v| !patch.contains(v)).collect());
        }
        let merged = deduplicated(original.iter().chain(&patch).cloned().collect());
        let (patched, rest) = partition(merged, &patch, merge_key)?;
        return normalize(patched, rest, &patch, &original, merge_key);
    }
    if merge_key.is_empty() {
        return other(format!("cannot merge lists without merge key for {}", found.below.name()));
    }
    let (original, patch) = apply_item_directives(original, patch, merge_key)?;
    let merged = merge_items(original.clone(), &patch, merge_key, found.below)?;
    let (patched, rest) = partition(merged, &patch, merge_key)?;
    normalize(patched, rest, &patch, &original, merge_key)
}

fn deduplicated(items: Vec<Value>) -> Vec<Value> {
    let mut seen: HashSet<String> = HashSet::with_capacity(items.len());
    items.into_iter().filter(|item| seen.insert(Order::text(item))).collect()
}

/// `$patch: delete` and `$patch: replace` among the items of a list.
fn apply_item_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Outcome<(Vec<Value>, Vec<Value>)> {
    let mut replace = false;
    let mut plain = Vec::with_capacity(patch.len());
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let gone = key_value(&item, merge_key)?;
                original.retain(|v| v.get(merge_key) != Some(gone));
            }
            Some("replace") => replace = true,
            Some("merge") => return other("merging lists cannot yet be specified in the patch".into()),
            _ => return Err(unknown_directive(directive, item.as_object().unwrap_or(&Map::new()))),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

fn merge_items(mut original: Vec<Value>, patch: &[Value], merge_key: &str, schema: Schema) -> Outcome<Vec<Value>> {
    let mut at: HashMap<String, usize> = HashMap::with_capacity(original.len());
    for (i, item) in original.iter().enumerate() {
        if let Some(key) = item.get(merge_key) {
            at.entry(Order::text(key)).or_insert(i);
        }
    }
    for item in patch {
        let key = Order::text(key_value(item, merge_key)?);
        let new = item.as_object().cloned().unwrap_or_default();
        match at.get(&key) {
            Some(&i) => {
                let old = match std::mem::take(&mut original[i]) {
                    Value::Object(old) => old,
                    _ => Map::new(),
                };
                original[i] = Value::Object(merge_map(old, new, schema)?);
            }
            None => {
                at.insert(key, original.len());
                original.push(Value::Object(new));
            }
        }
    }
    Ok(original)
}

#[cfg(test)]
#[path = "strategic_tests.rs"]
mod tests;
