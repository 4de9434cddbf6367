//! PodSecurity: pods keep to the Pod Security Standard that their namespace's labels ask for (KEP-2579).

mod baseline;
mod checks;
pub mod metrics;
mod policy;
mod restricted;

use super::fresh::Fresh;
use super::{Operation, Plugin, Request};
use crate::cache::Cache;
use crate::notes;
use async_trait::async_trait;
use canopus_api::{Object, Status, Value};
use checks::{Pod, details, evaluate, reasons};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use policy::{Level, Policy, Rules, Version};

/// What the operator decides (`pod-security.admission.config.k8s.io PodSecurityConfiguration`). Upstream's default: nothing
/// is refused where no label asks for it, nobody is exempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    pub defaults: Policy,
    pub exempt_users: BTreeSet<String>,
    pub exempt_namespaces: BTreeSet<String>,
    pub exempt_runtime_classes: BTreeSet<String>,
}

pub struct PodSecurity {
    pub config: Configuration,
    pub namespaces: Fresh,
    pub pods: Arc<Cache>,
    pub metrics: Arc<metrics::Metrics>,
}

/// How many pods are looked at when a namespace changes its policy.
const MOST_PODS: usize = 3000;

/// Parts of pods that have nothing to do with what they may.
const IGNORED: &[&str] = &["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// What holds pod templates, and where.
const TEMPLATES: &[(&str, &str, &[&str])] = &[
    ("", "podtemplates", &["template"]),
    ("", "replicationcontrollers", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
];

fn template_of(request: &Request) -> Option<&'static [&'static str]> {
    let (group, plural) = (request.resource.group, request.resource.plural);
    TEMPLATES.iter().find(|(g, p, _)| (*g, *p) == (group, plural)).map(|(_, _, path)| *path)
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, request: &Request) -> bool {
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return false;
        }
        match (request.resource.group, request.resource.plural) {
            ("", "namespaces") => request.subresource.is_empty(),
            ("", "pods") => !IGNORED.contains(&request.subresource),
            _ => request.subresource.is_empty() && template_of(request).is_some(),
        }
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        if request.resource.plural == "namespaces" {
            return self.namespace(request);
        }
        if self.config.exempt_namespaces.contains(request.namespace) {
            self.metrics.exempt(request);
            annotate("exempt", "namespace");
            return Ok(());
        }
        if self.config.exempt_users.contains(request.user.name.as_str()) {
            self.metrics.exempt(request);
            annotate("exempt", "user");
            return Ok(());
        }
        let enforce = request.resource.plural == "pods";
        let Some(namespace) = self.namespaces.get("", request.namespace).await? else {
            self.metrics.failed(request, true);
            let why = format!("failed to lookup namespace {:?}", request.namespace);
            return if enforce { Err(Status::internal(why)) } else { Ok(()) };
        };
        let (policy, errors) = self.config.defaults.of(|key| namespace.facts.label(key));
        if !errors.is_empty() {
            annotate("error", &format!("Failed to parse policy: {}", errors.aggregate()));
        } else if policy.is_privileged() {
            if enforce {
                self.metrics.evaluated(request, policy.enforce, "enforce", true);
                annotate("enforce-policy", "privileged:latest");
            }
            return Ok(());
        }
        let pod = match template_of(request) {
            None => &request.object,
            Some(path) => request.object.path(path),
        };
        if pod.is_null() || enforce && request.operation == Operation::Update && !significant(pod, request.old) {
            return Ok(());
        }
        self.pod(request, &policy, pod, enforce, errors.is_empty())
    }
}

impl PodSecurity {
    /// Holds a pod, or what pods are made of, against the policy. Only pods themselves are refused.
    fn pod(&self, request: &Request, policy: &Policy, pod: &Value, enforce: bool, good: bool) -> Result<(), Status> {
        if self.config.exempt_runtime_classes.contains(pod["spec"]["runtimeClassName"].str()) {
            self.metrics.exempt(request);
            annotate("exempt", "runtimeClass");
            return Ok(());
        }
        if !good {
            self.metrics.failed(request, false);
        }
        let pod = Pod { metadata: &pod["metadata"], spec: &pod["spec"] };
        let against = |rules: Rules| Some(evaluate(rules, &pod)).filter(|findings| !findings.is_empty());
        let mut refused = None;
        if enforce {
            annotate("enforce-policy", &policy.enforce.to_string());
            refused = against(policy.enforce);
            self.metrics.evaluated(request, policy.enforce, "enforce", refused.is_none());
        }
        if let Some(findings) = against(policy.audit) {
            let text = format!("would violate PodSecurity \"{}\": {}", policy.audit, details(&findings));
            annotate("audit-violations", &text);
            self.metrics.evaluated(request, policy.audit, "audit", false);
        }
        if let Some(findings) = refused {
            let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&findings));
            return Err(Status::forbidden(&request.resource.gvr(), request.name, &why));
        }
        if let Some(findings) = against(policy.warn) {
            self.metrics.evaluated(request, policy.warn, "warn", false);
            notes::warn(&format!("would violate PodSecurity \"{}\": {}", policy.warn, details(&findings)));
        }
        Ok(())
    }

    /// A namespace's labels must be good when they are set; its pods that a stricter policy would refuse are warned about.
    fn namespace(&self, request: &Request) -> Result<(), Status> {
        let of = |object: &Value| {
            let labels = &object["metadata"]["labels"];
            self.config.defaults.of(|key| labels.at(key).as_str())
        };
        let (policy, errors) = of(&request.object);
        let update = request.operation == Operation::Update;
        let (before, old_errors) = if update { of(request.old) } else { Default::default() };
        if !errors.is_empty() && (!update || errors != old_errors) {
            return Err(Status::invalid(&request.resource.gvk(), request.name, errors));
        }
        let (new, old) = (policy.enforce, before.enforce);
        let milder = new.version == old.version && new.level <= old.level;
        if update && (new == old || new.level == Level::Privileged || milder) {
            return Ok(());
        }
        let name = request.object["metadata"]["name"].str();
        if self.config.exempt_namespaces.contains(name) {
            self.warn_exempt(name, &policy, &request.object["metadata"]["labels"]);
        } else if update {
            self.existing(name, new).iter().for_each(|warning| notes::warn(warning));
        }
        Ok(())
    }

    /// Labels of an exempt namespace do nothing, which its owner should know.
    fn warn_exempt(&self, name: &str, policy: &Policy, labels: &Value) {
        if policy.is_privileged() || policy.equivalent(&self.config.defaults) {
            return;
        }
        let modes = [
            ("enforce", policy.enforce, [policy::ENFORCE, policy::ENFORCE_VERSION]),
            ("audit", policy.audit, [policy::AUDIT, policy::AUDIT_VERSION]),
            ("warn", policy.warn, [policy::WARN, policy::WARN_VERSION]),
        ];
        let said = |keys: &[&str]| keys.iter().any(|key| !labels.at(key).is_null());
        let set = modes.iter().filter(|(_, rules, keys)| rules.level != Level::Privileged && said(keys));
        let list: Vec<String> = set.map(|(mode, rules, _)| format!("{mode}={rules}")).collect();
        let list = list.join(", ");
        notes::warn(&format!(
            "namespace {name:?} is exempt from Pod Security, and the policy ({list}) will be ignored"
        ));
    }

    /// What there is to say about the pods that a namespace has when new rules come.
    fn existing(&self, namespace: &str, rules: Rules) -> Vec<String> {
        let pods = self.by_controller(canopus_api::View::list(&*self.pods, namespace));
        let (total, mut found) = (pods.len(), BTreeMap::<String, Vec<String>>::new());
        for pod in pods.iter().take(MOST_PODS) {
            let value = pod.value();
            let findings = evaluate(rules, &Pod { metadata: &value["metadata"], spec: &value["spec"] });
            if !findings.is_empty() {
                found.entry(reasons(&findings)).or_default().push(pod.name().to_string());
            }
        }
        let mut warnings = Vec::new();
        if total > MOST_PODS {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {MOST_PODS} of {total} existing pods"
            ));
        }
        if !found.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{rules}\""
            ));
        }
        let mut each: Vec<String> = found.into_iter().map(|(why, pods)| named(&pods, &why)).collect();
        each.sort_unstable();
        warnings.extend(each);
        warnings
    }

    /// Pods of different controllers first: the others are probably the same.
    fn by_controller(&self, pods: Vec<Arc<Object>>) -> Vec<Arc<Object>> {
        let exempt = |pod: &Arc<Object>| {
            let classes = &self.config.exempt_runtime_classes;
            !classes.is_empty() && classes.contains(pod.value()["spec"]["runtimeClassName"].str())
        };
        let mut seen = BTreeSet::new();
        let is_new = |pod: &Arc<Object>| pod.facts.controller.clone().is_none_or(|uid| seen.insert(uid));
        let (mut first, rest): (Vec<_>, Vec<_>) = pods.into_iter().filter(|pod| !exempt(pod)).partition(is_new);
        first.extend(rest);
        first
    }
}

fn annotate(key: &str, text: &str) {
    notes::annotate(&format!("{}{key}", policy::PREFIX), text);
}

/// `first-pod (and 2 other pods): why`
fn named(pods: &[String], why: &str) -> String {
    let first = pods.iter().min().map_or("", String::as_str);
    match pods.len() {
        1 => format!("{first}: {why}"),
        2 => format!("{first} (and 1 other pod): {why}"),
        n => format!("{first} (and {} other pods): {why}", n - 1),
    }
}

/// Whether an update changes anything that the standards look at: only images and containers can change.
fn significant(new: &Value, old: &Value) -> bool {
    let (new, old) = (&new["spec"], &old["spec"]);
    for list in ["containers", "initContainers"] {
        let (new, old) = (new[list].items(), old[list].items());
        if new.len() != old.len() || new.iter().zip(old).any(|(new, old)| new["image"] != old["image"]) {
            return true;
        }
    }
    new["ephemeralContainers"].items().iter().any(|new| {
        let before = old["ephemeralContainers"].items().iter().find(|old| old["name"] == new["name"]);
        before.is_none_or(|old| old["image"] != new["image"])
    })
}

#[cfg(test)]
mod tests;
