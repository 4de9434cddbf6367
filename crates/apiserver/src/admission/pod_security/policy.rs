//! Which policy holds in a namespace: its labels, and what the operator says for namespaces without them.

use canopus_api::{Errors, Field, Value};
use std::fmt;

pub const PREFIX: &str = "pod-security.kubernetes.io/";
pub const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
pub const ENFORCE_VERSION: &str = "pod-security.kubernetes.io/enforce-version";
pub const AUDIT: &str = "pod-security.kubernetes.io/audit";
pub const AUDIT_VERSION: &str = "pod-security.kubernetes.io/audit-version";
pub const WARN: &str = "pod-security.kubernetes.io/warn";
pub const WARN_VERSION: &str = "pod-security.kubernetes.io/warn-version";

/// How strict: each level refuses all that the one before refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub fn parse(text: &str) -> Option<Level> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })
    }
}

/// The Kubernetes version whose rules hold: `latest` or the minor of `v1.x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Latest,
    Minor(u32),
}

impl Version {
    pub fn parse(text: &str) -> Option<Version> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        plain.then(|| minor.parse().ok()).flatten().map(Version::Minor)
    }

    pub fn minor(self) -> u32 {
        match self {
            Version::Latest => u32::MAX,
            Version::Minor(minor) => minor,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Latest => f.write_str("latest"),
            Version::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub level: Level,
    pub version: Version,
}

impl Rules {
    /// Whether the two refuse the same.
    fn equivalent(self, other: Rules) -> bool {
        self == other || self.level == Level::Privileged && other.level == Level::Privileged
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What pods are refused for, what is noted in the audit log, and what their creator is warned about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Rules,
    pub audit: Rules,
    pub warn: Rules,
}

impl Policy {
    /// What a namespace with these labels wants, where they don't say what `self`, the default, does. Also what is wrong
    /// with them: then pods are held to the strictest rules, and nobody is warned.
    pub fn of<'a>(mut self, label: impl Fn(&str) -> Option<&'a str>) -> (Policy, Errors) {
        let mut errors = Errors::new();
        let level = |key: &str, otherwise: Level, errors: &mut Errors| {
            let text = label(key)?;
            Some(Level::parse(text).map_or_else(
                || {
                    bad(key, text, "must be one of privileged, baseline, restricted", errors);
                    (otherwise, false)
                },
                |level| (level, true),
            ))
        };
        let version = |key: &str, errors: &mut Errors| {
            let text = label(key)?;
            Some(Version::parse(text).unwrap_or_else(|| {
                bad(key, text, "must be \"latest\" or \"v1.x\"", errors);
                Version::Latest
            }))
        };
        let enforce = level(ENFORCE, Level::Restricted, &mut errors);
        self.enforce.level = enforce.map_or(self.enforce.level, |(level, _)| level);
        self.enforce.version = version(ENFORCE_VERSION, &mut errors).unwrap_or(self.enforce.version);
        self.audit.level = level(AUDIT, Level::Privileged, &mut errors).map_or(self.audit.level, |(level, _)| level);
        self.audit.version = version(AUDIT_VERSION, &mut errors).unwrap_or(self.audit.version);
        let warn = level(WARN, Level::Privileged, &mut errors);
        let warn_version = version(WARN_VERSION, &mut errors);
        self.warn.level = warn.map_or(self.warn.level, |(level, _)| level);
        self.warn.version = warn_version.unwrap_or(self.warn.version);
        let enforced = enforce.is_some_and(|(_, good)| good);
        if warn.is_none() && enforced && self.enforce.level > self.warn.level {
            self.warn.level = self.enforce.level;
            if warn_version.is_none() {
                self.warn.version = self.enforce.version;
            }
        }
        (self, errors)
    }

    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|rules| rules.level == Level::Privileged)
    }

    pub fn equivalent(&self, other: &Policy) -> bool {
        self.enforce.equivalent(other.enforce) && self.audit.equivalent(other.audit) && self.warn.equivalent(other.warn)
    }
}

fn bad(key: &str, text: &str, why: &str, errors: &mut Errors) {
    let (root, value) = (Value::Null, Value::from(text));
    let root = Field::root(&root);
    let meta = root.at("metadata");
    let labels = meta.at("labels");
    errors.invalid(&labels.key(key).with(&value), why);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[(&str, &str)]) -> (String, Vec<String>) {
        let find = |key: &str| labels.iter().find(|(k, _)| format!("{PREFIX}{k}") == key).map(|(_, v)| *v);
        let (policy, errors) = Policy::default().of(find);
        let text = format!("{} {} {}", policy.enforce, policy.audit, policy.warn);
        (text, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn labels() {
        let p = "privileged:latest";
        let cases: &[(&[(&str, &str)], String)] = &[
            (&[], format!("{p} {p} {p}")),
            (&[("enforce", "baseline")], format!("baseline:latest {p} baseline:latest")),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.20")],
                format!("restricted:v1.20 {p} restricted:v1.20"),
            ),
            (
                &[("enforce", "restricted"), ("warn", "baseline"), ("warn-version", "v1.5"), ("audit", "restricted")],
                "restricted:latest restricted:latest baseline:v1.5".into(),
            ),
        ];
        for (labels, expected) in cases {
            assert_eq!(of(labels), (expected.clone(), vec![]), "{labels:?}");
        }
    }

    #[test]
    fn bad_labels_hold_pods_to_the_strictest() {
        let (policy, errors) = of(&[("enforce", "strict"), ("audit", "no"), ("warn-version", "v1.01")]);
        assert_eq!(policy, "restricted:latest privileged:latest privileged:latest");
        assert_eq!(
            errors,
            [
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"no\": must be one of privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \"v1.x\"",
            ]
        );
    }
}
