//! Volume sources of storage that CSI drivers have taken over. They are still served and checked.

use super::Scope;
use crate::checks::{self, in_range, optional_one_of, required};
use canopus_api::{Errors, Field, names};

fn partition(source: &Field, errors: &mut Errors) {
    let partition = source.at("partition");
    if !(0..=255).contains(&partition.int()) {
        errors.invalid(&partition, "must be between 1 and 255, inclusive");
    }
}

pub fn gce_persistent_disk(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("pdName"), errors);
    partition(source, errors);
}

pub fn aws_elastic_block_store(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("volumeID"), errors);
    partition(source, errors);
}

pub fn iscsi(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("targetPortal"), errors);
    let iqn = source.at("iqn");
    if required(&iqn, errors) {
        initiator(&iqn, errors);
    }
    let lun = source.at("lun");
    in_range(&lun.with(&lun.int().into()), 0, 255, errors);
    let chap = source.at("chapAuthDiscovery").bool() || source.at("chapAuthSession").bool();
    if chap && source.at("secretRef").is_unset() {
        errors.required(&source.at("secretRef"), "");
    }
    let name = source.at("initiatorName");
    if name.is_set() {
        initiator(&source.at("initiatorname").with(name.value), errors);
    }
}

/// The name of an iSCSI initiator or target.
pub fn initiator(field: &Field, errors: &mut Errors) {
    let name = field.str();
    let serial = |length: usize| {
        let rest = name.get(4..).unwrap_or("");
        rest.len() == length && rest.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let good = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => serial(16),
        Some("naa") => serial(32),
        _ => return errors.invalid(field, "must be valid format starting with iqn, eui, or naa"),
    };
    if !good {
        errors.invalid(field, "must be valid format");
    }
}

/// `iqn.2001-04.com.example:storage`
fn is_iqn(name: &str) -> bool {
    let parts = || {
        let (date, rest) = name.strip_prefix("iqn.")?.split_at_checked(8)?;
        let (authority, target) = rest.split_once(':')?;
        Some((date.as_bytes(), authority, target))
    };
    let Some((date, authority, target)) = parts() else { return false };
    let digits = |range: std::ops::Range<usize>| date[range].iter().all(u8::is_ascii_digit);
    digits(0..4)
        && date[4] == b'-'
        && digits(5..7)
        && date[7] == b'.'
        && !authority.is_empty()
        && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        && !target.is_empty()
        && !target.contains(|c: char| ",;*&$|".contains(c) || c.is_ascii_whitespace())
}

pub fn glusterfs(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("endpoints"), errors);
    required(&source.at("path"), errors);
}

pub fn flocker(source: &Field, _: &Scope, errors: &mut Errors) {
    let (name, uuid) = (source.at("datasetName"), source.at("datasetUUID"));
    match (name.str().is_empty(), uuid.str().is_empty()) {
        (true, true) => errors.required(source, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let why = "datasetName and datasetUUID can not be specified simultaneously";
            errors.invalid(&source.with(&"resource".into()), why);
        }
        _ => {}
    }
    if name.str().contains('/') {
        errors.invalid(&name, "must not contain '/'");
    }
}

pub fn rbd(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("monitors"), errors);
    required(&source.at("image"), errors);
}

fn secret_name(source: &Field, errors: &mut Errors) {
    let secret = source.at("secretRef");
    if secret.is_set() {
        required(&secret.at("name"), errors);
    }
}

pub fn cinder(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("volumeID"), errors);
    secret_name(source, errors);
}

pub fn cephfs(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("monitors"), errors);
}

pub fn quobyte(source: &Field, _: &Scope, errors: &mut Errors) {
    const WHY: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (source.at("registry"), source.at("tenant"));
    if registry.str().is_empty() {
        errors.required(&registry, WHY);
    } else if tenant.str().len() >= 65 {
        errors.required(&tenant, "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for _ in registry.str().split(',').filter(|pair| !is_host_port(pair)) {
            errors.invalid(&registry, WHY);
        }
    }
    required(&source.at("volume"), errors);
}

/// What Go's `net.SplitHostPort` takes.
fn is_host_port(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(rest) => {
            rest.split_once("]:").is_some_and(|(host, port)| !host.contains(['[', ']']) && !port.contains(':'))
        }
        None => text.split_once(':').is_some_and(|(_, port)| !port.contains([':', '[', ']'])),
    }
}

pub fn fibre_channel(source: &Field, _: &Scope, errors: &mut Errors) {
    let (names, ids, lun) = (source.at("targetWWNs"), source.at("wwids"), source.at("lun"));
    match (names.value.is_empty(), ids.value.is_empty()) {
        (true, true) => errors.required(&names, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => errors.invalid(&names, "targetWWNs and wwids can not be specified simultaneously"),
        _ => {}
    }
    if !names.value.is_empty() {
        if lun.is_unset() {
            errors.required(&lun, "lun is required if targetWWNs is specified");
        } else {
            in_range(&lun, 0, 255, errors);
        }
    }
}

pub fn flex_volume(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("driver"), errors);
    for (key, option) in source.at("options").entries() {
        let namespace = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            errors.invalid(&option.with(&key.into()), "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

pub fn azure_file(source: &Field, _: &Scope, errors: &mut Errors) {
    required(&source.at("secretName"), errors);
    required(&source.at("shareName"), errors);
}

pub fn azure_disk(source: &Field, _: &Scope, errors: &mut Errors) {
    let (uri, kind) = (source.at("diskURI"), source.at("kind"));
    required(&source.at("diskName"), errors);
    required(&uri, errors);
    optional_one_of(&source.at("cachingMode"), &["None", "ReadOnly", "ReadWrite"], errors);
    optional_one_of(&kind, &["Dedicated", "Managed", "Shared"], errors);
    let managed = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    let blob = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let (prefix, example) = if kind.str() == "Managed" { ("/subscriptions/", managed) } else { ("https://", blob) };
    if kind.is_set() && !uri.str().starts_with(prefix) {
        errors.not_supported(&uri.with(&uri.str().into()), &[example]);
    }
}

pub fn storage_os(source: &Field, _: &Scope, errors: &mut Errors) {
    checks::required_check(&source.at("volumeName"), names::dns1123_label, errors);
    let namespace = source.at("volumeNamespace");
    if !namespace.str().is_empty() {
        checks::check(&namespace, names::dns1123_label, errors);
    }
    secret_name(source, errors);
}

pub fn scale_io(source: &Field, _: &Scope, errors: &mut Errors) {
    for field in ["gateway", "system", "volumeName"] {
        required(&source.at(field), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initiators() {
        assert!(is_iqn("iqn.2001-04.com.example:storage.kube.sys1.xyz"));
        for bad in ["iqn.2001-04.com.example", "iqn.201-04.com:x", "iqn.2001-04.com:a b", "iqn", "iqn.2001é04.com:x"] {
            assert!(!is_iqn(bad), "{bad}");
        }
    }

    #[test]
    fn host_ports() {
        for (text, good) in [("a:1", true), ("[::1]:2", true), ("a", false), ("a:b:c", false), ("[::1]", false)] {
            assert_eq!(is_host_port(text), good, "{text}");
        }
    }
}
