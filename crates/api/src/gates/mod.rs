//! Feature gates: v1.36's table and `--feature-gates`.

mod table;

use std::collections::BTreeMap;
use table::{DEPENDENCIES, GATES};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Alpha,
    Beta,
    Ga,
    Deprecated,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("missing bool value for {0}")]
    MissingValue(String),
    #[error("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    InvalidValue { name: String, value: String },
    #[error("unrecognized feature gate: {0}")]
    Unrecognized(String),
    #[error("cannot set feature gate {name} to {wanted}, feature is locked to {locked}")]
    Locked { name: String, wanted: bool, locked: bool },
    #[error("{name} is enabled, but depends on features that are disabled: [{disabled}]")]
    Dependency { name: String, disabled: String },
}

/// One gate of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    pub name: &'static str,
    pub default: bool,
    pub stage: Stage,
    pub locked: bool,
}

/// The gates of v1.36, sorted by name.
pub fn all() -> impl Iterator<Item = Gate> {
    GATES.iter().map(|&(name, default, stage, locked)| Gate { name, default, stage, locked })
}

fn find(name: &str) -> Option<Gate> {
    let at = GATES.binary_search_by(|gate| gate.0.cmp(name)).ok()?;
    let (name, default, stage, locked) = GATES[at];
    Some(Gate { name, default, stage, locked })
}

/// Which features are on. The default is v1.36's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gates {
    set: BTreeMap<&'static str, bool>,
}

impl Gates {
    /// Reads `A=true,B=false`; `AllAlpha` and `AllBeta` set every gate of a stage that is not set by name.
    pub fn parse(text: &str) -> Result<Gates, Error> {
        let mut wanted: BTreeMap<String, bool> = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = match pair.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(Error::MissingValue(pair.trim().into())),
            };
            let invalid = || Error::InvalidValue { name: name.into(), value: value.into() };
            wanted.insert(name.into(), parse_bool(value).ok_or_else(invalid)?);
        }
        Gates::from_map(&wanted)
    }

    fn from_map(wanted: &BTreeMap<String, bool>) -> Result<Gates, Error> {
        let mut gates = Gates::default();
        for (special, stage) in [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)] {
            if let Some(&on) = wanted.get(special) {
                let every = all().filter(|gate| gate.stage == stage && !gate.locked);
                gates.set.extend(every.map(|gate| (gate.name, on)));
            }
        }
        for (name, &on) in wanted.iter().filter(|(name, _)| !matches!(name.as_str(), "AllAlpha" | "AllBeta")) {
            let gate = find(name).ok_or_else(|| Error::Unrecognized(name.clone()))?;
            if gate.locked && gate.default != on {
                return Err(Error::Locked { name: name.clone(), wanted: on, locked: gate.default });
            }
            gates.set.insert(gate.name, on);
        }
        gates.check_dependencies()?;
        Ok(gates)
    }

    fn check_dependencies(&self) -> Result<(), Error> {
        for (name, needs) in DEPENDENCIES.iter().filter(|(name, _)| self.enabled(name)) {
            let disabled: Vec<&str> = needs.iter().copied().filter(|need| !self.enabled(need)).collect();
            if !disabled.is_empty() {
                return Err(Error::Dependency { name: name.to_string(), disabled: disabled.join(" ") });
            }
        }
        Ok(())
    }

    /// Whether the feature is on; a name that v1.36 does not have is off.
    pub fn enabled(&self, name: &str) -> bool {
        self.set.get(name).copied().unwrap_or_else(|| find(name).is_some_and(|gate| gate.default))
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_consistent() {
        assert!(GATES.windows(2).all(|w| w[0].0 < w[1].0));
        for (name, needs) in DEPENDENCIES {
            assert!(find(name).is_some(), "{name}");
            assert!(needs.iter().all(|need| find(need).is_some()), "{needs:?}");
        }
        assert_eq!(Gates::default().check_dependencies(), Ok(()));
    }

    #[test]
    fn defaults_and_settings() {
        let gates = Gates::parse("").unwrap();
        assert!(gates.enabled("SystemdWatchdog") && !gates.enabled("GangScheduling") && !gates.enabled("Nope"));
        let gates = Gates::parse(" GenericWorkload = true,GangScheduling=1,").unwrap();
        assert!(gates.enabled("GangScheduling"));
        let gates = Gates::parse("AllBeta=false,ReloadKubeletClientCAFile=true").unwrap();
        assert!(gates.enabled("ReloadKubeletClientCAFile") && !gates.enabled("APIResponseCompression"));
    }

    #[test]
    fn errors_are_upstreams() {
        let cases = [
            ("A", "missing bool value for A"),
            ("A=x", r#"invalid value of A=x, err: strconv.ParseBool: parsing "x": invalid syntax"#),
            ("Nope=true", "unrecognized feature gate: Nope"),
            ("SystemdWatchdog=false", "cannot set feature gate SystemdWatchdog to false, feature is locked to true"),
            (
                "GangScheduling=true",
                "GangScheduling is enabled, but depends on features that are disabled: [GenericWorkload]",
            ),
        ];
        for (text, want) in cases {
            assert_eq!(Gates::parse(text).unwrap_err().to_string(), want);
        }
    }
}
