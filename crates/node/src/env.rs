//! Environment variables, and `$(NAME)` in them and in commands.

use std::collections::BTreeMap;
use std::net::IpAddr;

use canopus_api::{Quantity, Value};

use crate::pod;

/// ConfigMaps and Secrets a pod refers to, by (kind, name): `("Secret", "tls")`. Missing ones are absent.
pub type References = BTreeMap<(&'static str, String), Value>;

/// What fields of a pod resolve to beyond the object itself.
pub struct Facts<'a> {
    pub pod: &'a Value,
    pub node_name: &'a str,
    pub host_ip: IpAddr,
    pub pod_ips: &'a [IpAddr],
    /// Millicores and bytes: what a limit that isn't set amounts to.
    pub allocatable_cpu: i64,
    pub allocatable_memory: i64,
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar; what isn't known stays.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            out.push_str(&lookup(name).unwrap_or_else(|| format!("$({name})")));
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

/// A container's environment in order, without the image's.
pub fn environment(
    container: &Value,
    facts: &Facts,
    refs: &References,
    services: &[(String, String)],
) -> Result<Vec<(String, String)>, String> {
    let mut env: Vec<(String, String)> = services.to_vec();
    for source in container["envFrom"].items() {
        from_object(source, refs, &mut env)?;
    }
    for var in container["env"].items() {
        let name = var["name"].str().to_owned();
        let value = match var.get("valueFrom").filter(|v| !v.is_null()) {
            Some(source) => match from_source(source, container, facts, refs)? {
                Some(value) => value,
                None => continue,
            },
            None => {
                let known = |name: &str| env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                expand(var["value"].str(), known)
            }
        };
        env.push((name, value));
    }
    Ok(env)
}

fn from_object(source: &Value, refs: &References, env: &mut Vec<(String, String)>) -> Result<(), String> {
    for (field, kind) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
        let Some(reference) = source.get(field).filter(|v| !v.is_null()) else { continue };
        let name = reference["name"].str();
        match refs.get(&(kind, name.to_owned())) {
            Some(object) => {
                for (key, value) in object["data"].entries() {
                    let value = String::from_utf8_lossy(&payload(kind, value)).into_owned();
                    env.push((format!("{}{key}", source["prefix"].str()), value));
                }
            }
            None if reference["optional"].bool() => {}
            None => return Err(missing(kind, name)),
        }
    }
    Ok(())
}

fn missing(kind: &str, name: &str) -> String {
    format!("{} {name:?} not found", kind.to_lowercase())
}

/// The bytes of one entry of `data`.
pub fn payload(kind: &str, value: &Value) -> Vec<u8> {
    use base64::Engine;
    match kind {
        "Secret" => base64::engine::general_purpose::STANDARD.decode(value.str()).unwrap_or_default(),
        _ => value.str().as_bytes().to_vec(),
    }
}

fn from_source(source: &Value, container: &Value, facts: &Facts, refs: &References) -> Result<Option<String>, String> {
    if let Some(field) = source.get("fieldRef") {
        return field_value(field["fieldPath"].str(), facts).map(Some);
    }
    if let Some(resource) = source.get("resourceFieldRef") {
        return resource_value(resource, container, facts).map(Some);
    }
    for (field, kind) in [("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")] {
        let Some(reference) = source.get(field) else { continue };
        let (name, key) = (reference["name"].str(), reference["key"].str());
        let object = refs.get(&(kind, name.to_owned()));
        let found = object.and_then(|o| o["data"].get(key).or_else(|| o["binaryData"].get(key)));
        return match (found, object) {
            (Some(value), _) => Ok(Some(String::from_utf8_lossy(&payload(kind, value)).into_owned())),
            _ if reference["optional"].bool() => Ok(None),
            (None, None) => Err(missing(kind, name)),
            (None, Some(object)) => {
                let namespace = object["metadata"]["namespace"].str();
                Err(format!("couldn't find key {key} in {kind} {namespace}/{name}"))
            }
        };
    }
    Err("invalid environment variable source".to_owned())
}

/// The value of a downward API field path.
pub fn field_value(path: &str, facts: &Facts) -> Result<String, String> {
    let meta = &facts.pod["metadata"];
    let ips = || facts.pod_ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    if let Some((list, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        return match list {
            "metadata.labels" => Ok(meta["labels"][key].str().to_owned()),
            "metadata.annotations" => Ok(meta["annotations"][key].str().to_owned()),
            _ => Err(format!("unsupported fieldPath: {path}")),
        };
    }
    Ok(match path {
        "metadata.name" | "metadata.namespace" | "metadata.uid" => meta[&path["metadata.".len()..]].str().to_owned(),
        "metadata.labels" | "metadata.annotations" => lines(&meta[&path["metadata.".len()..]]),
        "spec.nodeName" => facts.node_name.to_owned(),
        "spec.serviceAccountName" => facts.pod["spec"]["serviceAccountName"].str().to_owned(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_string(),
        "status.podIP" => facts.pod_ips.first().map(IpAddr::to_string).unwrap_or_default(),
        "status.podIPs" => ips(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"` lines, as labels and annotations appear in files.
fn lines(map: &Value) -> String {
    let line = |(k, v): (&compact_str::CompactString, &Value)| format!("{k}={:?}", v.str());
    map.entries().map(line).collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef`: `limits.cpu` and so on, divided and rounded up.
pub fn resource_value(reference: &Value, container: &Value, facts: &Facts) -> Result<String, String> {
    let name = reference["containerName"].str();
    let container = if name.is_empty() { container } else { pod::container(facts.pod, name).unwrap_or(container) };
    let path = reference["resource"].str();
    let (kind, resource) = path.split_once('.').ok_or_else(|| format!("unsupported container resource : {path}"))?;
    let quantity = pod::resource(container, kind, resource).or_else(|| match (kind, resource) {
        ("limits", "cpu") => Some(Quantity::from_milli(facts.allocatable_cpu)),
        ("limits", "memory") => Some(Quantity::from_bytes(facts.allocatable_memory)),
        _ => None,
    });
    let quantity = quantity.unwrap_or_else(|| Quantity::from_int(0));
    let divisor = Quantity::from_value(&reference["divisor"]).filter(|d| !d.is_zero());
    let divisor = divisor.unwrap_or_else(|| Quantity::from_int(1));
    let (amount, unit) = match resource {
        "cpu" => (quantity.milli_value(), divisor.milli_value()),
        _ => (quantity.value(), divisor.value()),
    };
    let unit = unit.max(1);
    Ok(amount.saturating_add(unit - 1).div_euclid(unit).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion() {
        let lookup = |name: &str| (name == "A").then(|| "x".to_owned());
        for (text, wanted) in
            [("$(A)-$(B)", "x-$(B)"), ("$$(A)", "$(A)"), ("$A $", "$A $"), ("$(A", "$(A"), ("", ""), ("$$$(A)", "$x")]
        {
            assert_eq!(expand(text, lookup), wanted, "{text}");
        }
    }
}
