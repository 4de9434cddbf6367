//! One object in the several versions of its kind, for those who own fields of it in another version than the request's.

use crate::catalog::Table;
use crate::served::Served;
use crate::server::Server;
use canopus_api::managed::Versions;
use canopus_api::schema::Schema;
use canopus_api::{Gvr, Result, Status, Value};
use parking_lot::Mutex;
use std::sync::Arc;

/// How often ownership is worked out again with what webhooks have converted meanwhile: each time needs what the time
/// before led to, and there are few steps.
const ROUNDS: usize = 16;

/// Converts from one version of a resource to the others, by way of the stored one.
pub(super) struct Across<'a> {
    server: &'a Server,
    /// Holds what custom resources look like.
    table: Arc<Table>,
    from: &'a Served,
    /// What webhooks have converted, and are to convert.
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    known: Vec<Converted>,
    wanted: Vec<(Value, String)>,
}

struct Converted {
    object: Value,
    api_version: String,
    result: Value,
}

impl<'a> Across<'a> {
    pub(super) fn from(server: &'a Server, from: &'a Served) -> Across<'a> {
        Across { server, table: server.catalog.table(), from, asked: Mutex::default() }
    }

    /// What `work` comes to when webhooks have converted all that it asks for. It cannot wait for them itself: it is done
    /// until it lacks nothing any more.
    pub(super) async fn settle<T>(&self, work: impl Fn(&Across) -> T) -> Result<T> {
        for _ in 0..ROUNDS {
            let done = work(self);
            let wanted = std::mem::take(&mut self.asked.lock().wanted);
            if wanted.is_empty() {
                return Ok(done);
            }
            for (object, api_version) in wanted {
                let mut result = object.clone();
                self.from.convert(&api_version, &mut result).await?;
                self.asked.lock().known.push(Converted { object, api_version, result });
            }
        }
        Err(Status::internal("ownership of fields could not be worked out across versions"))
    }

    fn version(&self, api_version: &str) -> Option<&Served> {
        let info = self.from.info();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if group != info.group {
            return None;
        }
        if version == info.version {
            return Some(self.from);
        }
        let gvr = Gvr::new(group, version, info.plural);
        self.server.built_in(&gvr).or_else(|| self.table.served(&gvr).ok()).map(|served| &**served)
    }

    /// What a webhook made of an object; None before it was asked.
    fn asked(&self, object: &Value, api_version: &str) -> Option<Value> {
        let mut asked = self.asked.lock();
        let known = asked.known.iter().find(|known| known.api_version == api_version && known.object == *object);
        if let Some(known) = known {
            return Some(known.result.clone());
        }
        if !asked.wanted.iter().any(|(other, to)| other == object && to == api_version) {
            asked.wanted.push((object.clone(), api_version.into()));
        }
        None
    }
}

impl Versions for Across<'_> {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, Schema<'_>)> {
        // What is pruned is in the version of the last apply.
        let now = object["apiVersion"].str();
        let to = self.version(api_version)?;
        if now == api_version {
            return Some((object.clone(), to.schema()));
        }
        if self.from.asks_webhook() {
            return self.asked(object, api_version).map(|converted| (converted, to.schema()));
        }
        let from = self.version(now).unwrap_or(self.from);
        let mut converted = object.clone();
        from.convert_now(to, &mut converted);
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
        assert_eq!(left.int(), 50, "what v1 is converted to always has metrics: as upstream, they are not pruned");
    }
}
