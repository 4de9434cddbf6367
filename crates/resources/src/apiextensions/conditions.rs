//! `status.conditions` of a CustomResourceDefinition, and the names it gets: pure decisions of its controllers.

use canopus_api::{Time, Value, value};
use std::collections::BTreeSet;

/// Keeps a definition that is deleted until its instances are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

pub fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    definition["status"]["conditions"].items().iter().find(|c| c["type"].str() == kind)
}

pub fn is_true(definition: &Value, kind: &str) -> bool {
    condition(definition, kind).is_some_and(|c| c["status"].str() == "True")
}

/// Sets a condition; its transition time changes with its status only.
pub fn set(definition: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: Time) {
    let since = match condition(definition, kind) {
        Some(old) if old["status"].str() == status => old["lastTransitionTime"].clone(),
        _ => now.into(),
    };
    let condition = value!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    });
    let conditions = definition.obj_mut("status").entry("conditions", || Value::Array(Vec::new())).ensure_array();
    match conditions.iter_mut().find(|c| c["type"].str() == kind) {
        Some(there) => *there = condition,
        None => conditions.push(condition),
    }
}

pub fn remove(definition: &mut Value, kind: &str) {
    if let Some(conditions) = definition.get_mut("status").and_then(|s| s.get_mut("conditions")) {
        conditions.ensure_array().retain(|c| c["type"].str() != kind);
    }
}

/// What the definitions of a group have claimed: names of resources, and kinds.
#[derive(Default)]
pub struct Claims {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Claims {
    /// Of all definitions of `group`.
    pub fn of<'a>(definitions: impl Iterator<Item = &'a Value>, group: &str) -> Claims {
        let mut claims = Claims::default();
        for definition in definitions.filter(|d| d["spec"]["group"].str() == group) {
            let names = &definition["status"]["acceptedNames"];
            let short = names["shortNames"].items().iter().map(Value::str);
            claims
                .resources
                .extend([names["plural"].str(), names["singular"].str()].into_iter().chain(short).map(String::from));
            claims.kinds.extend([names["kind"].str(), names["listKind"].str()].map(String::from));
        }
        claims
    }
}

/// Decides about the names a definition wants, as `status` says afterwards. Nothing changes when all is as it should be.
pub fn accept_names(definition: &mut Value, claims: &Claims, now: Time) {
    let (wanted, had) = (definition["spec"]["names"].clone(), definition["status"]["acceptedNames"].clone());
    if same_names(&wanted, &had) && condition(definition, "NamesAccepted").is_some() {
        return;
    }
    let mut names = had.clone();
    let mut refused: Option<(&str, String)> = None;
    let taken = |name: &str, own: &str, used: &BTreeSet<String>| {
        (name != own && used.contains(name)).then(|| format!("{name:?} is already in use"))
    };
    let parts = [
        ("plural", "PluralConflict", &claims.resources),
        ("singular", "SingularConflict", &claims.resources),
        ("shortNames", "ShortNamesConflict", &claims.resources),
        ("kind", "KindConflict", &claims.kinds),
        ("listKind", "ListKindConflict", &claims.kinds),
    ];
    for (field, reason, used) in parts {
        let why: Vec<String> = match field {
            "shortNames" => {
                let new = wanted[field].items().iter().filter(|name| !had[field].items().contains(name));
                new.filter_map(|name| taken(name.str(), "", used)).collect()
            }
            _ => taken(wanted[field].str(), had[field].str(), used).into_iter().collect(),
        };
        match why.as_slice() {
            [] => copy(&mut names, &wanted, field),
            [one] => refused = Some((reason, one.clone())),
            many => refused = Some((reason, format!("[{}]", many.join(", ")))),
        }
    }
    copy(&mut names, &wanted, "categories");
    definition.set_path(&["status", "acceptedNames"], names);
    match &refused {
        None => set(definition, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
        Some((reason, message)) => set(definition, "NamesAccepted", "False", reason, message, now),
    }
    if is_true(definition, "Established") {
        return;
    }
    match refused {
        None => set(definition, "Established", "False", "Installing", "the initial names have been accepted", now),
        Some(_) if condition(definition, "Established").is_none() => {
            set(definition, "Established", "False", "NotAccepted", "not all names are accepted", now);
        }
        Some(_) => {}
    }
}

fn copy(names: &mut Value, wanted: &Value, field: &str) {
    match wanted.get(field) {
        Some(value) => names.set(field, value.clone()),
        None => drop(names.remove(field)),
    }
}

fn same_names(a: &Value, b: &Value) -> bool {
    ["plural", "singular", "kind", "listKind"].iter().all(|f| a[*f].str() == b[*f].str())
        && ["shortNames", "categories"].iter().all(|f| a[*f].items() == b[*f].items())
}

/// Whether the group is one of the Kubernetes community's, whose APIs need approval.
pub fn protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|domain| group == *domain || group.ends_with(&format!(".{domain}")))
}

pub const APPROVED: &str = "api-approved.kubernetes.io";

/// What the approval annotation says: (condition status, reason, message).
pub fn approval(definition: &Value) -> (&'static str, &'static str, String) {
    match definition["metadata"]["annotations"][APPROVED].str() {
        "" => (
            "False",
            "MissingAnnotation",
            format!(
                "protected groups must have approval annotation \"{APPROVED}\", see https://github.com/kubernetes/enhancements/pull/1111"
            ),
        ),
        text if text.starts_with("unapproved") => ("False", "UnapprovedAPI", format!("not approved: {text:?}")),
        text if text.contains("://") => ("True", "ApprovedAnnotation", format!("approved in {text}")),
        text => (
            "False",
            "InvalidAnnotation",
            format!(
                "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111: {text:?}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        value!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com", "names": {
            "plural": plural, "singular": kind.to_ascii_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": ["x"]}}})
    }

    #[test]
    fn names_are_first_come_first_served() {
        let mut first = definition("foos", "Foo");
        accept_names(&mut first, &Claims::default(), Time(0));
        assert!(is_true(&first, "NamesAccepted"));
        assert_eq!(condition(&first, "Established").unwrap()["reason"].str(), "Installing");
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        let before = first.clone();
        accept_names(&mut first, &Claims::of([&before].into_iter(), "example.com"), Time(1));
        assert_eq!(first, before);
        let mut second = definition("bars", "Foo");
        accept_names(&mut second, &Claims::of([&first].into_iter(), "example.com"), Time(0));
        let refused = condition(&second, "NamesAccepted").unwrap();
        assert_eq!((refused["status"].str(), refused["reason"].str()), ("False", "ListKindConflict"));
        assert_eq!(refused["message"].str(), "\"FooList\" is already in use");
        assert_eq!(second["status"]["acceptedNames"], value!({"plural": "bars"}));
        assert_eq!(condition(&second, "Established").unwrap()["reason"].str(), "NotAccepted");
    }
}
