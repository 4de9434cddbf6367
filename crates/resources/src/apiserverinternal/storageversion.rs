//! StorageVersion: in which versions the API servers of a cluster write a resource (KEP-2339).

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use crate::strategy;
use canopus_api::{Errors, Field, Time, Value, names};
use std::collections::BTreeMap;

pub struct StorageVersion;

const GROUP: &str = "internal.apiserver.k8s.io";

static INFO: Info = Info {
    singular: "storageversion",
    namespaced: false,
    name: resource_name,
    unconditional_update: false,
    subresources: &[Subresource::status(GROUP, "v1alpha1", "StorageVersion")],
    ..Info::stored(GROUP, "v1alpha1", "StorageVersion", "storageversions")
};

/// `<group>.<resource>`
fn resource_name(text: &str) -> Vec<String> {
    let Some((group, resource)) = text.rsplit_once('.') else {
        return vec!["name must be in the form of <group>.<resource>".into()];
    };
    let group = names::dns1123_subdomain(group).into_iter().map(|why| format!("the group segment {why}"));
    let resource = names::dns1035_label(resource).into_iter().map(|why| format!("the resource segment {why}"));
    group.chain(resource).collect()
}

impl Resource for StorageVersion {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            strategy::only_status(new, old, strategy::STATUS_METADATA);
        } else {
            strategy::keep(new, old, "status");
        }
    }

    fn validate_update(&self, new: &Field, _old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            status(&new.at("status"), errors);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "CommonEncodingVersion",
                    "string",
                    "The version in which all API servers write, if they agree",
                ),
                Column::new("StorageVersions", "string", "The versions that each API server reported"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let status = &object["status"];
        let common = Some(status["commonEncodingVersion"].str()).filter(|v| !v.is_empty()).unwrap_or("<unset>");
        vec![name(object), common.into(), shown(status["storageVersions"].items()).into(), age(object, now)]
    }
}

fn shown(versions: &[Value]) -> String {
    const SHOWN: usize = 3;
    let one = |v: &Value| format!("{}={}", v["apiServerID"].str(), v["encodingVersion"].str());
    let text = versions.iter().take(SHOWN).map(one).collect::<Vec<_>>().join(",");
    match versions.len() {
        0 => "<none>".into(),
        count if count > SHOWN => format!("{text} + {} more...", count - SHOWN),
        _ => text,
    }
}

fn status(status: &Field, errors: &mut Errors) {
    let servers = status.at("storageVersions");
    let mut seen = checks::Seen::new();
    for server in servers.items() {
        let id = server.at("apiServerID");
        if !seen.insert(id.str().into()) {
            errors.duplicate(&id);
        }
        reported(&server, errors);
    }
    let common = status.at("commonEncodingVersion");
    let mut encodings = servers.value.items().iter().map(|s| s["encodingVersion"].str());
    let first = encodings.next();
    let actual = first.filter(|first| encodings.all(|other| other == *first));
    match (actual, common.is_set()) {
        (None, true) => {
            let why = "should be nil if servers do not agree on the same encoding version, or if there is no server reporting the supported versions yet";
            errors.invalid(&common, why);
        }
        (Some(actual), false) => {
            errors.invalid(&common.with(&Value::Null), format!("the common encoding version is {actual}"));
        }
        (Some(actual), true) if actual != common.str() => {
            errors.invalid(&common, format!("the actual common encoding version is {actual}"));
        }
        _ => {}
    }
    conditions(status, errors);
}

/// What one server says.
fn reported(server: &Field, errors: &mut Errors) {
    let (id, encoding) = (server.at("apiServerID"), server.at("encodingVersion"));
    for why in names::dns1123_subdomain(id.str()) {
        errors.invalid(&id, why);
    }
    api_version(&encoding, errors);
    let decodable = server.at("decodableVersions");
    decodable.items().for_each(|version| api_version(&version, errors));
    if !decodable.value.items().contains(encoding.value) {
        errors.invalid(&decodable, format!("decodableVersions must include encodingVersion {}", encoding.str()));
    }
    let known: Vec<&str> = decodable.value.items().iter().map(Value::str).collect();
    for served in server.at("servedVersions").items() {
        api_version(&served, errors);
        if !known.contains(&served.str()) {
            let why = format!(
                "individual served version : {} must be included in decodableVersions : [{}]",
                served.str(),
                known.join(" ")
            );
            errors.invalid(&served, why);
        }
    }
}

fn api_version(field: &Field, errors: &mut Errors) {
    const FORM: &str = "an apiVersion is a DNS-1035 label, which must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyVersion')";
    let mut why: Vec<String> = Vec::new();
    let version = match field.str().split('/').collect::<Vec<_>>().as_slice() {
        [version] => *version,
        [group, version] => {
            why = match group.is_empty() {
                true => vec!["group part: must be non-empty".into()],
                false => names::dns1123_subdomain(group).into_iter().map(|w| format!("group part: {w}")).collect(),
            };
            version
        }
        _ => return errors.invalid(field, FORM),
    };
    match version.is_empty() {
        true => why.push("version part: must be non-empty".into()),
        false => why.extend(names::dns1035_label(version).into_iter().map(|w| format!("version part: {w}"))),
    }
    if !why.is_empty() {
        errors.invalid(field, why.join(","));
    }
}

/// As upstream, their errors speak of `status[0]`, not of `status.conditions[0]`.
fn conditions(status: &Field, errors: &mut Errors) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, condition) in status.value["conditions"].items().iter().enumerate() {
        let place = status.index(i);
        let place = place.with(condition);
        let kind = place.at("type");
        if let Some(before) = seen.insert(condition["type"].str(), i) {
            errors.invalid(
                &kind,
                format!("the type of the condition is not unique, it also appears in conditions[{before}]"),
            );
        }
        checks::check(&kind, names::qualified_name, errors);
        checks::check(&place.at("status"), names::qualified_name, errors);
        checks::required(&place.at("reason"), errors);
        checks::required(&place.at("message"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, update};
    use canopus_api::value;

    #[test]
    fn statuses() {
        let version = |status: Value| value!({"metadata": {"name": "apps.deployments"}, "status": status});
        let server = |id: &str, encoding: &str| value!({"apiServerID": id, "encodingVersion": encoding, "decodableVersions": ["apps/v1", "v2"], "servedVersions": ["v2"]});
        let told = |status: Value| update(&StorageVersion, "status", version(value!({})), version(status));
        assert_eq!(told(value!({"commonEncodingVersion": "v2", "storageVersions": [(server("a", "v2"))]})), [""; 0]);
        assert_eq!(
            told(value!({"storageVersions": [(server("a", "v2")), (server("a", "v3"))]})),
            [
                "status.storageVersions[1].apiServerID: Duplicate value: \"a\"",
                "status.storageVersions[1].decodableVersions: Invalid value: [\"apps/v1\",\"v2\"]: decodableVersions must include encodingVersion v3",
            ]
        );
        let unsaid = told(value!({"storageVersions": [(server("a", "v2"))]}));
        assert_eq!(unsaid, ["status.commonEncodingVersion: Invalid value: null: the common encoding version is v2"]);
        assert_eq!(told(value!({"conditions": [{"type": "A", "status": "True", "reason": "r"}]})).len(), 1);
        let shown = cells(&StorageVersion, &version(value!({"storageVersions": [(server("a", "v2"))]})));
        assert_eq!(shown[1..3], ["<unset>", "a=v2"]);
        assert_eq!(resource_name("pods").len(), 1);
    }
}
