//! The objects a pod names, which its node may therefore read (upstream `podutil.VisitPodSecretNames` and its like).

use canopus_api::Value;
use compact_str::CompactString;
use std::collections::BTreeSet;

/// Names in the pod's own namespace.
#[derive(Debug, Default, PartialEq)]
pub struct References {
    pub service_account: CompactString,
    pub secrets: BTreeSet<CompactString>,
    pub config_maps: BTreeSet<CompactString>,
    pub claims: BTreeSet<CompactString>,
    pub resource_claims: BTreeSet<CompactString>,
}

/// Volume types that name a secret, and where.
const VOLUME_SECRETS: [(&str, &[&str]); 10] = [
    ("secret", &["secretName"]),
    ("azureFile", &["secretName"]),
    ("cephfs", &["secretRef", "name"]),
    ("cinder", &["secretRef", "name"]),
    ("flexVolume", &["secretRef", "name"]),
    ("rbd", &["secretRef", "name"]),
    ("scaleIO", &["secretRef", "name"]),
    ("iscsi", &["secretRef", "name"]),
    ("storageos", &["secretRef", "name"]),
    ("csi", &["nodePublishSecretRef", "name"]),
];

/// Every container of a pod's spec: init, ordinary and ephemeral ones.
pub fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|kind| spec[kind].items())
}

impl References {
    pub fn of(pod: &Value) -> References {
        let spec = &pod["spec"];
        let mut found =
            References { service_account: spec["serviceAccountName"].str().into(), ..References::default() };
        for secret in spec["imagePullSecrets"].items() {
            add(&mut found.secrets, &secret["name"]);
        }
        for container in containers(spec) {
            for from in container["envFrom"].items() {
                add(&mut found.secrets, &from["secretRef"]["name"]);
                add(&mut found.config_maps, &from["configMapRef"]["name"]);
            }
            for variable in container["env"].items() {
                add(&mut found.secrets, &variable["valueFrom"]["secretKeyRef"]["name"]);
                add(&mut found.config_maps, &variable["valueFrom"]["configMapKeyRef"]["name"]);
            }
        }
        for volume in spec["volumes"].items() {
            found.volume(volume, pod["metadata"]["name"].str());
        }
        for claim in spec["resourceClaims"].items() {
            add(&mut found.resource_claims, &claim["resourceClaimName"]);
        }
        for claim in pod["status"]["resourceClaimStatuses"].items() {
            add(&mut found.resource_claims, &claim["resourceClaimName"]);
        }
        add(&mut found.resource_claims, &pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"]);
        found
    }

    fn volume(&mut self, volume: &Value, pod: &str) {
        for (kind, path) in VOLUME_SECRETS {
            add(&mut self.secrets, volume[kind].path(path));
        }
        add(&mut self.config_maps, &volume["configMap"]["name"]);
        for source in volume["projected"]["sources"].items() {
            add(&mut self.secrets, &source["secret"]["name"]);
            add(&mut self.config_maps, &source["configMap"]["name"]);
        }
        add(&mut self.claims, &volume["persistentVolumeClaim"]["claimName"]);
        if !volume["ephemeral"].is_null() {
            self.claims.insert(compact_str::format_compact!("{pod}-{}", volume["name"].str()));
        }
    }
}

/// Namespaces and names of the secrets that a node needs for a volume (upstream `pvutil.VisitPVSecretNames`, as far as they
/// are visible to kubelets).
pub fn volume_secrets<'a>(volume: &'a Value) -> impl Iterator<Item = (&'a str, &'a str)> {
    const CSI: [&str; 3] = ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"];
    // Those that may leave the namespace to the claim, and those that may not.
    const KINDS: [(&str, bool); 7] = [
        ("cephfs", true),
        ("cinder", false),
        ("flexVolume", true),
        ("rbd", true),
        ("scaleIO", true),
        ("iscsi", true),
        ("storageos", false),
    ];
    let spec = &volume["spec"];
    let claims = spec["claimRef"]["namespace"].str();
    let or_claims = move |namespace: &'a str| if namespace.is_empty() { claims } else { namespace };
    let azure = &spec["azureFile"];
    let azure = (or_claims(azure["secretNamespace"].str()), azure["secretName"].str());
    let kinds = KINDS.into_iter().map(move |(kind, or_claim)| {
        let reference = &spec[kind]["secretRef"];
        let namespace = reference["namespace"].str();
        (if or_claim { or_claims(namespace) } else { namespace }, reference["name"].str())
    });
    let csi = CSI.into_iter().map(move |field| {
        let reference = &spec["csi"][field];
        (reference["namespace"].str(), reference["name"].str())
    });
    std::iter::once(azure).chain(kinds).chain(csi).filter(|(_, name)| !name.is_empty())
}

fn add(names: &mut BTreeSet<CompactString>, name: &Value) {
    if !name.str().is_empty() {
        names.insert(name.str().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn secrets_of_volumes() {
        let of = |source: Value| {
            let mut spec = source;
            spec.set("claimRef", value!({"namespace": "claims", "name": "c"}));
            let volume = value!({"spec": spec});
            volume_secrets(&volume).map(|(namespace, name)| format!("{namespace}/{name}")).collect::<Vec<_>>().join(" ")
        };
        let secret = |name: &str| value!({"namespace": "ns", "name": name});
        let csi = value!({"csi": {
            "nodePublishSecretRef": secret("a"), "nodeStageSecretRef": secret("b"), "nodeExpandSecretRef": secret("c"),
            "controllerPublishSecretRef": secret("d"), "controllerExpandSecretRef": secret("e"),
        }});
        for (source, expected) in [
            (csi, "ns/a ns/b ns/c"),
            (value!({"rbd": {"secretRef": {"name": "s"}}}), "claims/s"),
            (value!({"rbd": {"secretRef": secret("s")}}), "ns/s"),
            (value!({"azureFile": {"secretName": "s"}}), "claims/s"),
            (value!({"azureFile": {"secretName": "s", "secretNamespace": "ns"}}), "ns/s"),
            (value!({"hostPath": {"path": "/x"}}), ""),
        ] {
            assert_eq!(of(source), expected);
        }
    }

    #[test]
    fn everything_named() {
        let pod = value!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "s1"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s2"}}}, {"valueFrom": {"configMapKeyRef": {"name": "c1"}}}]}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "s3"}}, {"configMapRef": {"name": "c2"}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s4"}},
                {"name": "b", "csi": {"nodePublishSecretRef": {"name": "s5"}}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "c3"}}, {"secret": {"name": "s6"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "v1"}},
                {"name": "e", "ephemeral": {}},
                {"name": "f", "emptyDir": {}},
            ],
        }});
        let found = References::of(&pod);
        let list = |names: &BTreeSet<CompactString>| names.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(found.service_account, "sa");
        assert_eq!(list(&found.secrets), "s1 s2 s3 s4 s5 s6");
        assert_eq!(list(&found.config_maps), "c1 c2 c3");
        assert_eq!(list(&found.claims), "p-e v1");
    }
}
