//! Checks the expressions of ValidatingAdmissionPolicies against the schemas of what they are about, and says in their
//! status what is wrong (upstream `pkg/controller/validatingadmissionpolicystatus`).

use crate::context::*;
use async_trait::async_trait;
use canopus_api::{Api, Gvr, Patch, Status, Target, Value, View, WriteOptions, value};
use canopus_client::runner::Key;
use canopus_client::{Informer, Outcome, Queue, Reconcile};
use canopus_resources::admissionregistration::typecheck::{self, Served};
use std::sync::Arc;

const GROUP: &str = "admissionregistration.k8s.io";
const PLURAL: &str = "validatingadmissionpolicies";

struct Policies {
    api: Arc<dyn Api>,
    policies: Arc<Informer>,
    definitions: Arc<Informer>,
    context: Arc<Context>,
}

pub(crate) async fn run(context: Arc<Context>) {
    let policies = context.informer(GROUP, "v1", PLURAL);
    let definitions = context.informer("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let queue = Arc::new(Queue::default());
    queue_changes(&policies, &queue);
    let api = context.api("validatingadmissionpolicy-status-controller");
    context.work(queue, 5, Arc::new(Policies { api, policies, definitions, context: context.clone() })).await;
}

#[async_trait]
impl Reconcile for Policies {
    fn name(&self) -> &'static str {
        "validatingadmissionpolicy-status-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Status> {
        let Some(policy) = self.policies.by_key(key).map(|p| p.value()) else { return Ok(Outcome::Done) };
        let generation = &policy["metadata"]["generation"];
        if generation.int() <= policy["status"]["observedGeneration"].int() {
            return Ok(Outcome::Done);
        }
        let definitions: Vec<Arc<Value>> = self.definitions.list("").iter().map(|d| d.value()).collect();
        let built_in = canopus_resources::ALL.iter().map(|r| r.info()).filter(|info| {
            let stable = !info.version.contains("beta") && !info.version.contains("alpha");
            info.stored && (stable || self.context.config.resources.iter().any(|r| r.gvr == info.gvr()))
        });
        let built_in = built_in.map(|info| Served {
            group: info.group,
            version: info.version,
            plural: info.plural,
            singular: info.singular,
            kind: info.kind,
            schema: None,
        });
        let served: Vec<Served> = built_in.chain(definitions.iter().flat_map(|d| custom(d))).collect();
        let warnings = typecheck::warnings(&policy, &served);
        let target = Target::new(&Gvr::new(GROUP, "v1", PLURAL), "", policy["metadata"]["name"].str());
        let patch = Patch::Apply(status(&policy, warnings));
        let options =
            WriteOptions { field_manager: "validatingadmissionpolicy-status".into(), force: true, ..writes() };
        if let Some(written) = gone(self.api.patch(&target.subresource("status"), patch, &options).await)? {
            self.policies.reached(written.revision).await;
        }
        Ok(Outcome::Done)
    }
}

/// What is to be applied.
fn status(policy: &Value, warnings: Vec<Value>) -> Value {
    let mut checking = Value::object();
    if !warnings.is_empty() {
        checking.set("expressionWarnings", warnings);
    }
    value!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": &policy["metadata"]["name"]},
        "status": {"observedGeneration": &policy["metadata"]["generation"], "typeChecking": checking},
    })
}

/// The versions that a CustomResourceDefinition has served.
fn custom(definition: &Value) -> impl Iterator<Item = Served<'_>> {
    let (spec, names) = (&definition["spec"], &definition["status"]["acceptedNames"]);
    let established = crate::custom::resource(definition).is_some();
    let versions = spec["versions"].items().iter().filter(move |v| established && v["served"].bool());
    versions.map(move |version| Served {
        group: spec["group"].str(),
        version: version["name"].str(),
        plural: names["plural"].str(),
        singular: names["singular"].str(),
        kind: names["kind"].str(),
        schema: Some(&version["schema"]["openAPIV3Schema"]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        let policy = value!({"metadata": {"name": "p", "generation": 3, "uid": "u"}, "spec": {}});
        let applied = |checking: Value| {
            value!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": "p"}, "status": {"observedGeneration": 3, "typeChecking": checking}})
        };
        assert_eq!(status(&policy, Vec::new()), applied(value!({})));
        let warning = value!({"fieldRef": "spec.validations[0].expression", "warning": "w"});
        assert_eq!(status(&policy, vec![warning.clone()]), applied(value!({"expressionWarnings": [warning]})));
    }

    #[test]
    fn custom_resources_have_a_schema_for_each_version() {
        let definition = value!({
            "spec": {"group": "a.b", "names": {"plural": "foos"}, "versions": [
                {"name": "v1", "served": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v2", "served": false}]},
            "status": {"acceptedNames": {"plural": "foos", "singular": "foo", "kind": "Foo"},
                "conditions": [{"type": "Established", "status": "True"}]},
        });
        let found: Vec<_> = custom(&definition).map(|s| (s.version, s.singular, s.schema.cloned())).collect();
        assert_eq!(found, [("v1", "foo", Some(value!({"type": "object"})))]);
    }
}
