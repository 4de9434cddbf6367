//! `--admission-control-config-file`: an `apiserver.config.k8s.io/v1 AdmissionConfiguration`, of which PodSecurity's part
//! is used (`pod-security.admission.config.k8s.io/v1 PodSecurityConfiguration`).

use super::pod_security::{Configuration, Level, Rules, Version};
use canopus_api::Value;
use std::collections::BTreeSet;

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Kind { kind: String, version: String },
    #[error("{field}: Invalid value: {value:?}: {why}")]
    Invalid { field: String, value: String, why: &'static str },
    #[error("failed to read the configuration of {plugin}: {why}")]
    Read { plugin: String, why: String },
    #[error("no configuration is understood for the admission plugin {0:?}")]
    Plugin(String),
}

const GROUP: &str = "pod-security.admission.config.k8s.io/";

/// PodSecurity's configuration in an AdmissionConfiguration. `read` reads another file that it names.
pub fn pod_security(file: &Value, read: impl Fn(&str) -> Result<Value, String>) -> Result<Configuration, Error> {
    expect_kind(file, "apiserver.config.k8s.io/", "AdmissionConfiguration")?;
    let mut config = Configuration::default();
    for plugin in file["plugins"].items() {
        let name = plugin["name"].str();
        if name != "PodSecurity" {
            return Err(Error::Plugin(name.into()));
        }
        let path = plugin["path"].str();
        let inline = &plugin["configuration"];
        config = match (inline.is_null(), path) {
            (false, _) => parse(inline)?,
            (true, "") => config,
            (true, path) => parse(&read(path).map_err(|why| Error::Read { plugin: name.into(), why })?)?,
        };
    }
    Ok(config)
}

fn expect_kind(file: &Value, group: &str, kind: &str) -> Result<(), Error> {
    let (version, said) = (file["apiVersion"].str(), file["kind"].str());
    if said == kind && version.strip_prefix(group).is_some_and(|v| ["v1", "v1beta1", "v1alpha1"].contains(&v)) {
        return Ok(());
    }
    Err(Error::Kind { kind: said.into(), version: version.into() })
}

fn parse(file: &Value) -> Result<Configuration, Error> {
    expect_kind(file, GROUP, "PodSecurityConfiguration")?;
    let (defaults, exemptions) = (&file["defaults"], &file["exemptions"]);
    let mut config = Configuration::default();
    config.defaults.enforce = rules(defaults, "enforce")?;
    config.defaults.audit = rules(defaults, "audit")?;
    config.defaults.warn = rules(defaults, "warn")?;
    let set = |field: &str| -> BTreeSet<String> {
        exemptions[field].items().iter().map(|name| name.str().to_string()).collect()
    };
    config.exempt_users = set("usernames");
    config.exempt_namespaces = set("namespaces");
    config.exempt_runtime_classes = set("runtimeClasses");
    Ok(config)
}

fn rules(defaults: &Value, mode: &str) -> Result<Rules, Error> {
    let version_field = format!("{mode}-version");
    let invalid =
        |field: &str, value: &str, why| Error::Invalid { field: format!("defaults.{field}"), value: value.into(), why };
    let mut rules = Rules::default();
    if let Some(level) = defaults[mode].as_str().filter(|level| !level.is_empty()) {
        let why = "must be one of privileged, baseline, restricted";
        rules.level = Level::parse(level).ok_or_else(|| invalid(mode, level, why))?;
    }
    if let Some(version) = defaults[version_field.as_str()].as_str().filter(|version| !version.is_empty()) {
        let why = "must be \"latest\" or \"v1.x\"";
        rules.version = Version::parse(version).ok_or_else(|| invalid(&version_field, version, why))?;
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    fn with(configuration: Value) -> Value {
        value!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
            "plugins": [{"name": "PodSecurity", "configuration": configuration}]})
    }

    #[test]
    fn files() {
        let nothing = |_: &str| Err("no such file".to_string());
        let config = value!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "baseline", "enforce-version": "v1.30", "warn": "restricted"},
            "exemptions": {"namespaces": ["kube-system"], "usernames": ["root"]}});
        let read = pod_security(&with(config.clone()), nothing).unwrap();
        assert_eq!(
            (read.defaults.enforce.to_string(), read.defaults.warn.to_string()),
            ("baseline:v1.30".into(), "restricted:latest".into())
        );
        assert!(read.exempt_namespaces.contains("kube-system") && read.exempt_users.contains("root"));
        let mut elsewhere = with(Value::Null);
        elsewhere.set("plugins", value!([{"name": "PodSecurity", "path": "other.yaml"}]));
        assert_eq!(pod_security(&elsewhere, |_| Ok(config.clone())).unwrap(), read);
        assert!(pod_security(&elsewhere, nothing).unwrap_err().to_string().ends_with("no such file"));
        let mut bad = config;
        bad.set_path(&["defaults", "enforce"], "loose");
        assert_eq!(
            pod_security(&with(bad), nothing).unwrap_err().to_string(),
            "defaults.enforce: Invalid value: \"loose\": must be one of privileged, baseline, restricted"
        );
        assert!(matches!(pod_security(&with(value!({"kind": "X"})), nothing), Err(Error::Kind { .. })));
    }
}
