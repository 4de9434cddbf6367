//! `--runtime-config`: which group versions and resources are served. As upstream, stable versions are, others are not.

use canopus_resources::Info;
use std::collections::BTreeMap;

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("unknown api groups {0}")]
    Unknown(String),
    #[error("runtime-config invalid key {0}")]
    Key(String),
    #[error("invalid value {value} for {key}: must be true or false")]
    Value { key: String, value: String },
}

/// What the operator says otherwise than the defaults. The more a key says, the more it counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeConfig {
    all: Option<bool>,
    /// By stability: `ga`, `beta`, `alpha`.
    stages: BTreeMap<&'static str, bool>,
    /// By `group/version`, `/v1` for the core group's.
    versions: BTreeMap<String, bool>,
    /// By `group/version/resource`.
    resources: BTreeMap<String, bool>,
}

impl RuntimeConfig {
    /// Reads `group/version=true`, `group/version/resource=false`, `api/all`, `api/ga`, `api/beta`, `api/alpha`. A key
    /// without a value means true.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<RuntimeConfig, Error> {
        let mut config = RuntimeConfig::default();
        for pair in pairs.into_iter().map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let on = match value {
                "" | "true" => true,
                "false" => false,
                _ => return Err(Error::Value { key: key.into(), value: value.into() }),
            };
            match (key, key.split('/').collect::<Vec<_>>().as_slice()) {
                ("api/all", _) => config.all = Some(on),
                ("api/ga", _) => drop(config.stages.insert("ga", on)),
                ("api/beta", _) => drop(config.stages.insert("beta", on)),
                ("api/alpha", _) => drop(config.stages.insert("alpha", on)),
                ("v1" | "api/v1", _) => drop(config.versions.insert("/v1".into(), on)),
                (_, ["api", "v1", _]) => drop(config.resources.insert(key.replacen("api", "", 1), on)),
                (_, [_, _]) => drop(config.versions.insert(known(key)?, on)),
                (_, [group, version, _]) => {
                    known(&format!("{group}/{version}"))?;
                    config.resources.insert(key.into(), on);
                }
                _ => return Err(Error::Key(key.into())),
            }
        }
        Ok(config)
    }

    /// Whether this resource is served.
    pub fn serves(&self, info: &Info) -> bool {
        let version = format!("{}/{}", info.group, info.version);
        let stage = stage(info.version);
        let said = self.resources.get(&format!("{version}/{}", info.plural)).or_else(|| self.versions.get(&version));
        said.or_else(|| self.stages.get(stage)).copied().or(self.all).unwrap_or(stage == "ga")
    }
}

/// How finished a version is: what its name says.
pub fn stage(version: &str) -> &'static str {
    if version.contains("alpha") {
        "alpha"
    } else if version.contains("beta") {
        "beta"
    } else {
        "ga"
    }
}

/// Groups that upstream's own API server has; a key that names another group is a mistake. Groups of custom resources and
/// extension servers, whose names have dots but don't end in `.k8s.io`, are none of its business.
fn known(version: &str) -> Result<String, Error> {
    let group = version.split('/').next().unwrap_or("");
    let ours = !group.contains('.') || group.ends_with(".k8s.io");
    let exists = canopus_resources::ALL.iter().any(|r| r.info().group == group);
    if ours && !exists {
        return Err(Error::Unknown(version.into()));
    }
    Ok(version.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_counts() {
        let info = |group, version, plural| {
            *[canopus_resources::find(group, version, plural).unwrap().info()].first().unwrap()
        };
        let (beta, other) =
            (info("networking.k8s.io", "v1beta1", "ipaddresses"), info("networking.k8s.io", "v1beta1", "servicecidrs"));
        let (jobs, pods) = (info("batch", "v1", "jobs"), info("", "v1", "pods"));
        let cases: &[(&str, [bool; 4])] = &[
            ("", [false, false, true, true]),
            ("api/beta=true", [true, true, true, true]),
            ("api/all=false,api/ga", [false, false, true, true]),
            ("api/all=true,networking.k8s.io/v1beta1=false", [false, false, true, true]),
            ("networking.k8s.io/v1beta1", [true, true, true, true]),
            ("networking.k8s.io/v1beta1=true,networking.k8s.io/v1beta1/servicecidrs=false", [true, false, true, true]),
            ("batch/v1=false", [false, false, false, true]),
            ("v1=false", [false, false, true, false]),
        ];
        for (text, expected) in cases {
            let config = RuntimeConfig::parse(text.split(',')).unwrap();
            assert_eq!([beta, other, jobs, pods].map(|info| config.serves(info)), *expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        let cases = [
            ("nope/v1=true", "unknown api groups nope/v1"),
            ("a/b/c/d=true", "runtime-config invalid key a/b/c/d"),
            ("api/beta=maybe", "invalid value maybe for api/beta: must be true or false"),
        ];
        for (text, expected) in cases {
            assert_eq!(RuntimeConfig::parse([text]).unwrap_err().to_string(), expected);
        }
    }
}
