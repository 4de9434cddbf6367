//! Whether a webhook or policy is about a request: rules, selectors, equivalent resources (upstream `rules.Matcher`,
//! `matching.Matcher`). Both use this one.

use super::fresh::Fresh;
use super::{Operation, Request};
use crate::server::Server;
use canopus_api::{Gvk, Gvr, LabelSelector, Status, Value};

/// A resource in whose version an object can be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub gvr: Gvr,
    pub kind: Gvk,
}

impl Version {
    /// The request's own.
    pub fn of(request: &Request) -> Version {
        Version { gvr: request.resource.gvr(), kind: request.kind() }
    }

    /// Others in which the same objects are served.
    pub fn equivalents(server: &Server, request: &Request) -> Vec<Version> {
        let own = request.resource.gvr();
        let Ok(served) = server.served(&own) else { return Vec::new() };
        if !served.info().stored {
            return Vec::new();
        }
        let table = server.catalog.table();
        let others = table.all().filter(|s| s.prefix == served.prefix && s.info().gvr() != own);
        let mut others: Vec<Version> = others
            .filter_map(|other| {
                let kind = match request.subresource {
                    "" => other.info().gvk(),
                    part => {
                        let (group, version, kind) = other.info().subresource(part)?.kind;
                        Gvk::new(group, version, kind)
                    }
                };
                Some(Version { gvr: other.info().gvr(), kind })
            })
            .collect();
        others.sort_by(|a, b| (&a.gvr.group, &a.gvr.version).cmp(&(&b.gvr.group, &b.gvr.version)));
        others
    }
}

impl Version {
    /// An object of the request as this version has it.
    pub async fn shown(&self, server: &Server, object: &Value, from: &Request<'_>) -> Result<Value, Status> {
        let mut object = object.clone();
        if !object.is_null() {
            convert(server, &mut object, (&from.resource.gvr(), &self.gvr)).await?;
        }
        Ok(object)
    }

    /// An object that somebody changed in this version, back in the request's own, without what the schema does not know
    /// and with defaults.
    pub async fn taken_back(&self, server: &Server, mut object: Value, to: &Request<'_>) -> Result<Value, Status> {
        let own = to.resource.gvr();
        convert(server, &mut object, (&self.gvr, &own)).await?;
        server.reshape(&own, to.subresource, &mut object)?;
        Ok(object)
    }
}

async fn convert(server: &Server, object: &mut Value, (from, to): (&Gvr, &Gvr)) -> Result<(), Status> {
    if from == to {
        return Ok(());
    }
    let (from, to) = (server.served(from)?, server.served(to)?);
    // Subresources may be of kinds of their own, which look the same in all versions.
    if !from.asks_webhook() {
        from.convert_now(&to, object);
    } else if Gvk::of(object) == from.info().gvk() {
        from.convert(&to.info().gvk().api_version(), object).await?;
    }
    Ok(())
}

/// What `rules` (of webhooks) or `matchConstraints` and `matchResources` (of policies and their bindings) say.
#[derive(Clone, Debug)]
pub struct Matcher {
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    equivalent: bool,
    /// No rules at all match everything, not nothing.
    empty_is_all: bool,
}

impl Matcher {
    pub fn of_webhook(hook: &Value) -> Matcher {
        Matcher {
            namespaces: selector(&hook["namespaceSelector"]),
            objects: selector(&hook["objectSelector"]),
            rules: hook["rules"].items().iter().map(Rule::of).collect(),
            excluded: Vec::new(),
            equivalent: hook["matchPolicy"].str() == "Equivalent",
            empty_is_all: false,
        }
    }

    pub fn of_policy(constraints: &Value) -> Matcher {
        Matcher {
            rules: constraints["resourceRules"].items().iter().map(Rule::of).collect(),
            excluded: constraints["excludeResourceRules"].items().iter().map(Rule::of).collect(),
            empty_is_all: true,
            ..Matcher::of_webhook(constraints)
        }
    }

    /// In which version the request is to be shown; None when it is none of the matcher's business.
    pub async fn matches(
        &self,
        request: &Request<'_>,
        namespaces: &Fresh,
        equivalents: impl Fn() -> Vec<Version>,
    ) -> Result<Option<Version>, Status> {
        // Rules first, since they cost nothing; what a selector has against a request counts only behind them.
        let version = match self.rules(request, equivalents) {
            Some(version) => version,
            None => return Ok(None),
        };
        let objects = self.objects.as_ref().map_err(Status::internal)?;
        if !(objects.is_everything() || labelled(objects, &request.object) || labelled(objects, request.old)) {
            return Ok(None);
        }
        let selector = self.namespaces.as_ref().map_err(Status::internal)?;
        if selector.is_everything() {
            return Ok(Some(version));
        }
        let matches = in_namespace(selector, request, namespaces).await?;
        Ok(matches.then_some(version))
    }

    fn rules(&self, request: &Request, equivalents: impl Fn() -> Vec<Version>) -> Option<Version> {
        let own = Version::of(request);
        if self.rules.is_empty() {
            return self.empty_is_all.then_some(own);
        }
        let any = |rules: &[Rule], gvr: &Gvr| rules.iter().any(|rule| rule.matches(request, gvr));
        let others = if self.equivalent { equivalents() } else { Vec::new() };
        if any(&self.excluded, &own.gvr) || others.iter().any(|other| any(&self.excluded, &other.gvr)) {
            return None;
        }
        if any(&self.rules, &own.gvr) {
            return Some(own);
        }
        // Earlier rules count more than earlier resources.
        self.rules.iter().find_map(|rule| others.iter().find(|other| rule.matches(request, &other.gvr)).cloned())
    }
}

fn selector(value: &Value) -> Result<LabelSelector, String> {
    if value.is_null() { Ok(LabelSelector::everything()) } else { LabelSelector::from_value(value) }
}

fn labelled(selector: &LabelSelector, object: &Value) -> bool {
    // Options of a connection have no metadata, and match no selector.
    object.get("metadata").is_some_and(|meta| selector.matches_value(&meta["labels"]))
}

async fn in_namespace(selector: &LabelSelector, request: &Request<'_>, namespaces: &Fresh) -> Result<bool, Status> {
    let itself = request.resource.group.is_empty() && request.resource.plural == "namespaces";
    if itself && request.subresource.is_empty() && request.operation != Operation::Delete {
        // Nobody but the request knows the labels that it is about to have.
        return Ok(selector.matches_value(&request.object["metadata"]["labels"]));
    }
    let namespace = if itself { request.name } else { request.namespace };
    if namespace.is_empty() {
        return Ok(true);
    }
    let found = namespaces.get("", namespace).await?;
    let found = found.ok_or_else(|| Status::not_found(&Gvr::new("", "v1", "namespaces"), namespace))?;
    Ok(selector.matches(&found.facts))
}

/// A `RuleWithOperations`, perhaps with names.
#[derive(Clone, Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// With the part, "" for the resource itself.
    resources: Vec<(String, String)>,
    scope: String,
    names: Vec<String>,
}

impl Rule {
    fn of(rule: &Value) -> Rule {
        let strings = |field: &str| rule[field].items().iter().map(|s| s.str().to_string()).collect::<Vec<_>>();
        let split = |text: &String| {
            let (resource, part) = text.split_once('/').unwrap_or((text, ""));
            (resource.to_string(), part.to_string())
        };
        Rule {
            operations: strings("operations"),
            groups: strings("apiGroups"),
            versions: strings("apiVersions"),
            resources: strings("resources").iter().map(split).collect(),
            scope: rule["scope"].str().into(),
            names: strings("resourceNames"),
        }
    }

    fn matches(&self, request: &Request, gvr: &Gvr) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let fits = |pattern: &str, actual: &str| pattern == "*" || pattern == actual;
        let cluster = request.namespace.is_empty() || gvr.group.is_empty() && gvr.resource == "namespaces";
        let scope = match self.scope.as_str() {
            "Cluster" => cluster,
            "Namespaced" => !cluster,
            _ => true,
        };
        scope
            && has(&self.operations, request.operation.name())
            && has(&self.groups, &gvr.group)
            && has(&self.versions, &gvr.version)
            && self.resources.iter().any(|(r, part)| fits(r, &gvr.resource) && fits(part, request.subresource))
            && (self.names.is_empty() || self.names.iter().any(|name| name == request.name))
    }
}

/// Requests about webhooks and policies themselves are never for webhooks and policies: one could lock everybody out.
pub fn exempt(request: &Request) -> bool {
    const KINDS: [&str; 6] = [
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "validatingwebhookconfigurations",
    ];
    request.resource.group == "admissionregistration.k8s.io" && KINDS.contains(&request.resource.plural)
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
