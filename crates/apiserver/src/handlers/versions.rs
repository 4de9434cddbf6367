//! One object in the several versions of its kind, for those who own fields of it in another version than the request's.

use crate::catalog::Table;
use crate::served::Served;
use crate::server::Server;
use canopus_api::managed::Versions;
use canopus_api::schema::Schema;
use canopus_api::{Gvr, Value};
use std::sync::Arc;

/// Converts from one version of a resource to the others, by way of the stored one.
pub(super) struct Across<'a> {
    server: &'a Server,
    /// Holds what custom resources look like.
    table: Arc<Table>,
    from: &'a Served,
}

impl<'a> Across<'a> {
    pub(super) fn from(server: &'a Server, from: &'a Served) -> Across<'a> {
        Across { server, table: server.catalog.table(), from }
    }
}

impl Versions for Across<'_> {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, Schema<'_>)> {
        let info = self.from.info();
        if info.gvk().api_version() == api_version {
            return Some((object.clone(), self.from.schema()));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvr = Gvr::new(group, version, info.plural);
        if group != info.group {
            return None;
        }
        let to = self.server.built_in(&gvr).or_else(|| self.table.served(&gvr).ok())?;
        let mut converted = object.clone();
        self.from.resource.convert_to_storage(&mut converted);
        to.resource.convert_from_storage(&mut converted);
        converted.set("apiVersion", api_version);
        Some((converted, to.schema()))
    }
}

#[cfg(test)]
mod tests {
    use crate::LocalApi;
    use crate::user::{MASTERS, User};
    use canopus_api::{Gvr, Patch, Target, Value, WriteOptions, value};

    #[tokio::test]
    async fn managers_of_another_version_keep_what_they_own() {
        let server = crate::testing::server().await;
        let api = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
        let at =
            |version: &str| Target::new(&Gvr::new("autoscaling", version, "horizontalpodautoscalers"), "default", "h");
        let by = |manager: &str| WriteOptions { field_manager: manager.into(), ..WriteOptions::default() };
        let target = value!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        let metric = value!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
        let applied = value!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": target, "maxReplicas": 5, "metrics": [metric]}});
        api.patch(&at("v2"), Patch::Apply(applied.clone()), &by("applier")).await.unwrap();

        let owned = |object: &Value| -> Vec<String> {
            let entries = object["metadata"]["managedFields"].items();
            let mut all: Vec<String> = entries
                .iter()
                .map(|e| {
                    let fields: Vec<&str> = e["fieldsV1"]["f:spec"].entries().map(|(f, _)| f.as_str()).collect();
                    format!("{} {} {}", e["manager"].str(), e["apiVersion"].str(), fields.join(" "))
                })
                .collect();
            all.sort();
            all
        };
        let change = Patch::Merge(value!({"spec": {"maxReplicas": 9}}));
        let changed = api.patch(&at("v1"), change, &by("writer")).await.unwrap().value();
        assert_eq!(
            owned(&changed),
            ["applier autoscaling/v2 f:metrics f:scaleTargetRef", "writer autoscaling/v1 f:maxReplicas"]
        );
        let refused = api.patch(&at("v2"), Patch::Apply(applied.clone()), &by("applier")).await.unwrap_err();
        assert!(refused.message.contains("conflict with \"writer\" using autoscaling/v1"), "{refused}");
        let mut other = applied;
        other.set_path(&["spec", "maxReplicas"], 9);
        other.obj_mut("spec").remove("metrics");
        let shared = api.patch(&at("v2"), Patch::Apply(other), &by("applier")).await.unwrap().value();
        assert_eq!(
            owned(&shared),
            ["applier autoscaling/v2 f:maxReplicas f:scaleTargetRef", "writer autoscaling/v1 f:maxReplicas"]
        );
        let left = &shared["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"];
        assert_eq!(left.int(), 80, "what nobody wants any more is defaulted again");
    }
}
