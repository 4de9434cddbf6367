//! What is written down about which requests (upstream `audit/policy`): the first rule that fits decides.

use crate::authz::Attributes;
use crate::user::User;
use canopus_api::{Value, yaml};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

    pub fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

    pub fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// How one request is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

#[derive(Debug, PartialEq)]
struct Rule {
    verdict: Verdict,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    namespaces: Vec<String>,
    resources: Vec<Resources>,
    paths: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub struct Policy {
    rules: Vec<Rule>,
    otherwise: Verdict,
}

fn strings(value: &Value) -> Vec<String> {
    value.items().iter().map(|s| s.str().to_string()).collect()
}

fn stages(value: &Value) -> Result<Vec<Stage>, String> {
    let stage = |s: &Value| {
        let found = Stage::ALL.into_iter().find(|stage| stage.name() == s.str());
        found.ok_or_else(|| format!("omitStages: Unsupported value: {:?}", s.str()))
    };
    value.items().iter().map(stage).collect()
}

impl Policy {
    /// Of an `audit.k8s.io/v1` Policy in YAML or JSON.
    pub fn parse(text: &str) -> Result<Policy, String> {
        let file = yaml::parse(text).map_err(|e| e.to_string())?.value;
        if (file["apiVersion"].str(), file["kind"].str()) != ("audit.k8s.io/v1", "Policy") {
            return Err("it is not a Policy of audit.k8s.io/v1".into());
        }
        let omit_stages = stages(&file["omitStages"])?;
        let omit_managed_fields = file["omitManagedFields"].bool();
        let rules = file["rules"].items();
        if rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".into());
        }
        let rule =
            |(at, rule)| Rule::parse(rule, &omit_stages, omit_managed_fields).map_err(|e| format!("rules[{at}].{e}"));
        let rules: Result<_, String> = rules.iter().enumerate().map(rule).collect();
        Ok(Policy { rules: rules?, otherwise: Verdict { level: Level::None, omit_stages, omit_managed_fields } })
    }

    pub fn verdict(&self, attributes: &Attributes) -> &Verdict {
        self.rules.iter().find(|rule| rule.fits(attributes)).map_or(&self.otherwise, |rule| &rule.verdict)
    }
}

impl Rule {
    fn parse(rule: &Value, omit_stages: &[Stage], omit_managed_fields: bool) -> Result<Rule, String> {
        let level = Level::ALL.into_iter().find(|level| level.name() == rule["level"].str());
        let level = level.ok_or_else(|| format!("level: Unsupported value: {:?}", rule["level"].str()))?;
        let mut omitted = omit_stages.to_vec();
        omitted.extend(stages(&rule["omitStages"])?);
        let managed = &rule["omitManagedFields"];
        let resources = |r: &Value| Resources {
            group: r["group"].str().into(),
            resources: strings(&r["resources"]),
            names: strings(&r["resourceNames"]),
        };
        let rule = Rule {
            verdict: Verdict {
                level,
                omit_stages: omitted,
                omit_managed_fields: if managed.is_null() { omit_managed_fields } else { managed.bool() },
            },
            users: strings(&rule["users"]),
            groups: strings(&rule["userGroups"]),
            verbs: strings(&rule["verbs"]),
            namespaces: strings(&rule["namespaces"]),
            resources: rule["resources"].items().iter().map(resources).collect(),
            paths: strings(&rule["nonResourceURLs"]),
        };
        let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        if of_resources && !rule.paths.is_empty() {
            return Err("nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs".into());
        }
        Ok(rule)
    }

    fn fits(&self, a: &Attributes) -> bool {
        let has = |list: &[String], text: &str| list.iter().any(|item| item == text);
        let of_group = |user: &User| user.groups.iter().any(|group| has(&self.groups, group));
        if !self.users.is_empty() && !has(&self.users, &a.user.name)
            || !self.groups.is_empty() && !of_group(a.user)
            || !self.verbs.is_empty() && !has(&self.verbs, a.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return a.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, a.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.fits(a)));
        }
        self.paths.is_empty() || !a.is_resource && self.paths.iter().any(|spec| path_fits(a.path, spec))
    }
}

fn path_fits(path: &str, spec: &str) -> bool {
    spec == "*" || spec == path || spec.ends_with('*') && path.starts_with(spec.trim_end_matches('*'))
}

impl Resources {
    fn fits(&self, a: &Attributes) -> bool {
        if self.group != "*" && self.group != a.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let whole = a.resource_and_subresource();
        (self.names.is_empty() || self.names.iter().any(|name| name == a.name))
            && self.resources.iter().any(|spec| {
                spec == "*"
                    || *spec == whole
                    || !a.subresource.is_empty() && spec.strip_prefix("*/") == Some(a.subresource)
                    || spec.strip_suffix("/*") == Some(a.resource)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::{Gvr, Target};

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: ["watch"]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: Metadata
  resources: [{group: "", resources: ["secrets", "*/token"]}]
- level: Request
  resources: [{group: "", resources: ["pods/*"]}]
  omitStages: [ResponseStarted]
- level: RequestResponse
  userGroups: [admins]
  namespaces: [prod]
  omitManagedFields: false
- level: Metadata
  resources: [{group: "*", resources: ["configmaps"], resourceNames: [one]}]
"#;

    #[test]
    fn the_first_rule_that_fits() {
        let policy = Policy::parse(POLICY).unwrap();
        let user = |name: &str, group: &str| User::new(name, &[group]);
        let ask = |user: &User, verb: &str, what: (&str, &str, &str), name: &str| {
            let target = Target::new(&Gvr::new(what.0, "v1", what.1), "prod", name).subresource(what.2);
            policy.verdict(&Attributes::target(user, verb, &target)).clone()
        };
        let (proxy, jane, admin) = (user("system:kube-proxy", "x"), user("jane", "x"), user("root", "admins"));
        let cases = [
            (&proxy, "watch", ("", "services", ""), "", Level::None),
            (&jane, "get", ("", "secrets", ""), "s", Level::Metadata),
            (&jane, "create", ("", "serviceaccounts", "token"), "s", Level::Metadata),
            (&jane, "create", ("", "pods", "exec"), "s", Level::Request),
            (&jane, "create", ("", "pods", ""), "s", Level::Request),
            (&admin, "update", ("apps", "deployments", ""), "d", Level::RequestResponse),
            (&jane, "get", ("", "configmaps", ""), "one", Level::Metadata),
            (&jane, "get", ("", "configmaps", ""), "two", Level::None),
        ];
        for (user, verb, what, name, level) in cases {
            assert_eq!(ask(user, verb, what, name).level, level, "{} {verb} {what:?} {name}", user.name);
        }
        assert_eq!(
            ask(&jane, "create", ("", "pods", ""), "s").omit_stages,
            [Stage::RequestReceived, Stage::ResponseStarted]
        );
        assert!(ask(&jane, "get", ("", "secrets", ""), "s").omit_managed_fields);
        assert!(!ask(&admin, "update", ("apps", "deployments", ""), "d").omit_managed_fields);
        for (path, level) in [("/healthz/ping", Level::None), ("/version", Level::None), ("/metrics", Level::None)] {
            assert_eq!(policy.verdict(&Attributes::path(&jane, "get", path)).level, level);
        }
    }

    #[test]
    fn what_is_no_policy() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        for bad in [
            "kind: Policy".to_string(),
            head.to_string(),
            format!("{head}rules: [{{level: All}}]"),
            format!("{head}rules: [{{level: None, omitStages: [X]}}]"),
            format!("{head}rules: [{{level: None, nonResourceURLs: [\"/x\"], namespaces: [a]}}]"),
        ] {
            assert!(Policy::parse(&bad).is_err(), "{bad}");
        }
    }
}
