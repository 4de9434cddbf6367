//! Which fields a write never owns, because the kind's strategy puts them back to what they were (upstream
//! `GetResetFields`).

use canopus_api::managed::Reset;
use canopus_resources::InfoOf;

const STATUS: Reset = Reset::But(&[&["status"]]);
const SPEC: Reset = Reset::But(&[&["spec"]]);
const ALL_BUT_STATUS: Reset = Reset::But(&[&["metadata"], &["spec"]]);
const RESIZED: Reset = Reset::Only(&[
    &["spec", "containers", "*", "resources"],
    &["spec", "containers", "*", "resizePolicy"],
    &["spec", "initContainers", "*", "resources"],
    &["spec", "initContainers", "*", "resizePolicy"],
]);

/// What is reset by a write of `subresource`, where that is not the usual: the status by a write of the object, its
/// spec by one of the status.
const UNUSUAL: &[(&str, &str, &str, Reset)] = &[
    ("", "namespaces", "finalize", STATUS),
    (
        "",
        "pods",
        "status",
        Reset::But(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]),
    ),
    ("", "pods", "ephemeralcontainers", Reset::Only(&[&["spec", "ephemeralContainers"]])),
    ("", "pods", "resize", RESIZED),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "status", ALL_BUT_STATUS),
    ("apiextensions.k8s.io", "customresourcedefinitions", "status", ALL_BUT_STATUS),
    ("apiregistration.k8s.io", "apiservices", "status", ALL_BUT_STATUS),
    ("apps", "deployments", "status", Reset::But(&[&["spec"], &["metadata", "labels"]])),
    ("certificates.k8s.io", "certificatesigningrequests", "", Reset::But(&[&["spec"], &["status"]])),
    (
        "certificates.k8s.io",
        "certificatesigningrequests",
        "status",
        Reset::But(&[&["spec"], &["status", "conditions"]]),
    ),
    (
        "certificates.k8s.io",
        "certificatesigningrequests",
        "approval",
        Reset::But(&[&["spec"], &["status", "certificate"]]),
    ),
    ("certificates.k8s.io", "podcertificaterequests", "", Reset::NOTHING),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", "status", ALL_BUT_STATUS),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", "status", ALL_BUT_STATUS),
    ("internal.apiserver.k8s.io", "storageversions", "status", ALL_BUT_STATUS),
    ("networking.k8s.io", "servicecidrs", "", Reset::NOTHING),
    ("networking.k8s.io", "servicecidrs", "status", ALL_BUT_STATUS),
    ("resource.k8s.io", "devicetaintrules", "status", ALL_BUT_STATUS),
    ("resource.k8s.io", "resourceclaims", "status", ALL_BUT_STATUS),
    ("resource.k8s.io", "resourcepoolstatusrequests", "status", ALL_BUT_STATUS),
    ("scheduling.k8s.io", "podgroups", "status", ALL_BUT_STATUS),
    ("storage.k8s.io", "volumeattachments", "status", ALL_BUT_STATUS),
    ("storagemigration.k8s.io", "storageversionmigrations", "status", ALL_BUT_STATUS),
];

/// The fields that a write of `subresource` never owns. `custom`: of a CustomResourceDefinition.
pub fn reset_fields(info: &InfoOf, custom: bool, subresource: &str) -> Reset<'static> {
    let unusual = UNUSUAL
        .iter()
        .find(|(group, plural, sub, _)| (*sub, *plural, *group) == (subresource, info.plural, info.group) && !custom);
    match (unusual, info.has_status(), subresource) {
        (Some((.., reset)), ..) => *reset,
        (None, true, "") => STATUS,
        (None, true, "status") if custom => ALL_BUT_STATUS,
        (None, true, "status") => SPEC,
        _ => Reset::NOTHING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unusual_is_there() {
        for (group, plural, subresource, _) in UNUSUAL {
            let known = canopus_resources::ALL.iter().map(|r| r.info());
            let mut named = known.filter(|info| (info.group, info.plural) == (*group, *plural)).peekable();
            assert!(named.peek().is_some(), "{plural}");
            assert!(named.all(|i| subresource.is_empty() || i.subresource(subresource).is_some()), "{plural}");
        }
    }

    #[test]
    fn by_kind_and_subresource() {
        let info = |plural| canopus_resources::ALL.iter().map(|r| r.info()).find(|i| i.plural == plural).unwrap();
        assert_eq!(reset_fields(info("configmaps"), false, ""), Reset::NOTHING);
        assert_eq!(reset_fields(info("jobs"), false, ""), STATUS);
        assert_eq!(reset_fields(info("jobs"), false, "status"), SPEC);
        assert_eq!(reset_fields(info("pods"), false, "resize"), RESIZED);
        assert_eq!(reset_fields(info("jobs"), true, "status"), ALL_BUT_STATUS);
        assert_eq!(reset_fields(info("servicecidrs"), false, ""), Reset::NOTHING);
    }
}
