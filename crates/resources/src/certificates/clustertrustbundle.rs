//! ClusterTrustBundle: certificates of authorities that pods may trust, by signer or by name (KEP-3257).

use super::pkcs;
use crate::checks;
use crate::resource::{Column, Context, Info, Resource, name};
use canopus_api::{Errors, Field, Time, Value, names};

pub struct ClusterTrustBundle;

static INFO: Info = Info {
    singular: "clustertrustbundle",
    namespaced: false,
    // What it may be called depends on the signer.
    name: |_| Vec::new(),
    unconditional_update: false,
    gate: "ClusterTrustBundle",
    selectable_fields: &["spec.signerName"],
    ..Info::stored("certificates.k8s.io", "v1beta1", "ClusterTrustBundle", "clustertrustbundles")
};

const MAX_SIZE: usize = 1024 * 1024;

impl Resource for ClusterTrustBundle {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        rest(object, errors);
        bundle(&object.at("spec").at("trustBundle"), errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, _cx: &Context, errors: &mut Errors) {
        rest(new, errors);
        let spec = new.at("spec");
        if spec.at("trustBundle").value != &old["spec"]["trustBundle"] {
            bundle(&spec.at("trustBundle"), errors);
        }
        checks::immutable(&spec.at("signerName"), &old["spec"]["signerName"], errors);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::new("SignerName", "string", "signerName indicates the associated signer, if any.")] }
    }

    fn row(&self, object: &Value, _now: Time) -> Vec<Value> {
        let signer = Some(object["spec"]["signerName"].str()).filter(|s| !s.is_empty()).unwrap_or("<none>");
        vec![name(object), signer.into()]
    }
}

fn rest(object: &Field, errors: &mut Errors) {
    let (spec, meta) = (object.at("spec"), object.at("metadata"));
    let (signer, name) = (spec.at("signerName"), meta.at("name"));
    why_misnamed(name.str(), signer.str()).into_iter().for_each(|why| errors.invalid(&name, why));
    if !signer.str().is_empty() {
        checks::signer_name(&signer, errors);
    }
}

fn why_misnamed(name: &str, signer: &str) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".into()];
        }
        return names::dns1123_subdomain(name);
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => names::dns1123_subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
    }
}

fn bundle(field: &Field, errors: &mut Errors) {
    if field.str().len() > MAX_SIZE {
        return errors.too_long(field, MAX_SIZE);
    }
    for why in pkcs::check_authorities(field.str().as_bytes()) {
        errors.invalid(&field.with(&"<value omitted>".into()), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::create;
    use canopus_api::value;

    #[test]
    fn bundles() {
        let told = |name: &str, signer: &str, bundle: &str| {
            let spec = value!({"signerName": signer, "trustBundle": bundle});
            create(&ClusterTrustBundle, value!({"metadata": {"name": name}, "spec": spec}))
        };
        let none = "spec.trustBundle: Invalid value: \"<value omitted>\": at least one trust anchor must be provided";
        assert_eq!(told("a", "", ""), [none]);
        assert_eq!(told("a.b:c:d", "a.b/c", ""), [none]);
        let prefix = "ClusterTrustBundle for signerName a.b/c must be named with prefix a.b:c:";
        assert_eq!(told("d", "a.b/c", "")[0], format!("metadata.name: Invalid value: \"d\": {prefix}"));
        assert!(told("a:b", "", "")[0].contains("must not have \":\" in its name"));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(told("a", "", key)[0].ends_with("entry 0 has bad block type: PRIVATE KEY"), "{:?}", told("a", "", key));
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(told("a", "", odd)[0].ends_with("entry 0 does not parse as X.509"));
    }
}
