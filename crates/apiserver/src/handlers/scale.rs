//! The `scale` subresource: an object's count of replicas as an `autoscaling/v1 Scale`, written by every verb, with its
//! ownership told of on both sides (upstream `ScaleREST` and `ScaleHandler`).

use super::Written;
use super::decode::{decode_as, decode_patched, same_name};
use super::write::{keep_server_metadata, validate_changed};
use crate::admission::{Operation, Options, Request};
use crate::served::Served;
use crate::server::Server;
use crate::user::User;
use canopus_api::managed::{FieldManager, OneVersion, Reset, parent_managed_fields, scale_managed_fields};
use canopus_api::schema::Schema;
use canopus_api::{Errors, Field, Gvk, Object, Patch, Result, Status, Target, Value, WriteOptions, patch};
use canopus_resources::Context;
use canopus_resources::apps::workload::validate_scale;
use std::sync::Arc;

const RETRIES: usize = 5;
const API_VERSION: &str = "autoscaling/v1";

fn gvk() -> Gvk {
    Gvk::new("autoscaling", "v1", "Scale")
}

fn table() -> Result<&'static canopus_schema::Type> {
    let found = canopus_schema::kind("autoscaling", "v1", "Scale");
    Ok(found.ok_or_else(|| Status::internal("no schema for Scale"))?.get())
}

fn schema() -> Result<Schema<'static>> {
    table().map(Schema::from)
}

/// How a Scale is written.
pub(super) enum Change {
    Put(Value),
    Patch(Patch),
}

impl Server {
    /// GET of a subresource that is an object of another kind.
    pub async fn get_subresource(&self, target: &Target) -> Result<Arc<Object>> {
        let served = self.served(&target.gvr)?;
        if target.subresource != "scale" || served.info().subresource("scale").is_none() {
            return Err(Status::no_such_resource());
        }
        let object = self.get(target, None).await?;
        Ok(Arc::new(Object::from_value(served.resource.scale(&object.value()), &[], object.revision)))
    }

    pub(super) async fn write_scale(
        &self,
        user: &User,
        target: &Target,
        change: Change,
        options: &WriteOptions,
    ) -> Result<Written> {
        let served = self.served(&target.gvr)?.clone();
        if served.info().subresource("scale").is_none() {
            return Err(Status::no_such_resource());
        }
        for attempt in 0.. {
            let old = self.current(&served, &target.namespace, &target.name).await?;
            let old = old.ok_or_else(|| Status::not_found(&target.gvr, &target.name))?;
            let before = scale_of(&served, &old)?;
            let (scale, warnings) = self.changed(target, &before, &change, options)?;
            let revision = scale["metadata"]["resourceVersion"].str();
            if !matches!(revision, "" | "0") && revision != old.revision.to_string() {
                return Err(Status::modified(&target.gvr, &target.name));
            }
            let patched = matches!(change, Change::Patch(_));
            let retry = patched || revision.is_empty();
            match self.apply_scale(user, &served, target, (&old, &before), scale, options).await {
                Err(raced) if raced.is_conflict() && retry && attempt < RETRIES => {}
                Err(error) => return Err(error),
                Ok(object) => {
                    let scaled = Object::from_value(served.resource.scale(&object.value()), &[], object.revision);
                    return Ok(Written { object: Arc::new(scaled), created: false, warnings });
                }
            }
        }
        unreachable!("the loop only ends by returning")
    }

    /// The Scale that is wanted, with the owners of its fields.
    fn changed(
        &self,
        target: &Target,
        before: &Value,
        change: &Change,
        options: &WriteOptions,
    ) -> Result<(Value, Vec<String>)> {
        let fields = FieldManager {
            ty: schema()?,
            api_version: API_VERSION,
            manager: &options.field_manager,
            subresource: "scale",
            reset: Reset::NOTHING,
            versions: &OneVersion,
            now: self.surroundings.now(),
        };
        let patched = |mut body: Value, problems: Vec<String>| {
            let warnings = decode_patched(&gvk(), schema()?, before, &mut body, problems, options)?;
            Ok::<_, Status>((body, warnings))
        };
        let (mut scale, warnings) = match change {
            Change::Put(body) => {
                let mut body = body.clone();
                let warnings = decode_as(&gvk(), schema()?, &mut body, options)?;
                (body, warnings)
            }
            Change::Patch(Patch::Json(ops)) => {
                patched(patch::json_patch(before, ops)?, patch::json::unknown_fields(ops))?
            }
            Change::Patch(Patch::Merge(change)) => patched(patch::merge_patch(before, change)?, Vec::new())?,
            Change::Patch(Patch::Strategic(change)) => {
                patched(patch::strategic_merge(before, change, table()?)?, Vec::new())?
            }
            Change::Patch(Patch::Apply(config)) => {
                return patched(fields.apply(&gvk(), Some(before), config, options.force)?, Vec::new());
            }
        };
        same_name(&target.name, &scale)?;
        fields.update(Some(before), &mut scale);
        Ok((scale, warnings))
    }

    /// Gives the object the size of an admitted Scale.
    async fn apply_scale(
        &self,
        user: &User,
        served: &Arc<Served>,
        target: &Target,
        (old, scale_before): (&Arc<Object>, &Value),
        scale: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>> {
        let mut request = Request {
            operation: Operation::Update,
            resource: served.info(),
            subresource: "scale",
            namespace: &target.namespace,
            name: &target.name,
            object: scale,
            old: scale_before,
            user,
            dry_run: options.dry_run,
            options: Options::Write(options),
            reinvocation: Default::default(),
        };
        let gates = self.gates.get()?;
        gates.admission.admit(&mut request).await?;
        let mut errors = Errors::new();
        validate_scale(&Field::root(&request.object), &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&gvk(), &target.name, errors));
        }
        gates.admission.validate(&request).await?;
        let (before, scale) = (old.value(), &request.object);
        let uid = scale["metadata"]["uid"].str();
        if !uid.is_empty() && uid != old.facts.uid {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", old.facts.uid);
            return Err(Status::conflict(&target.gvr, &target.name, &why));
        }
        let mut new = (*before).clone();
        served.resource.apply_scale(&mut new, scale);
        let owners = with_paths(served, &before, |paths| {
            let (parent, own) = (&before["metadata"]["managedFields"], &scale["metadata"]["managedFields"]);
            parent_managed_fields(parent, own, &served.info().gvk().api_version(), paths)
        });
        new.set_path(&["metadata", "managedFields"], owners.map_err(Status::internal)?);
        keep_server_metadata(&mut new, &before);
        let now = self.surroundings.now();
        let cx = Context { now, subresource: "", user: &user.name, requester: user.requester() };
        served.resource.prepare_update(&mut new, &before, &cx);
        if served.info().generation && served.resource.raises_generation(&new, &before) {
            new.obj_mut("metadata").insert("generation", old.facts.generation + 1);
        }
        validate_changed(served, &new, &before, &cx)?;
        self.put_changed(served, old, new, options.dry_run).await
    }
}

/// The object's Scale with the owners of its count.
fn scale_of(served: &Served, object: &Object) -> Result<Value> {
    let tree = object.value();
    let mut scale = served.resource.scale(&tree);
    let owners = with_paths(served, &tree, |paths| scale_managed_fields(&tree["metadata"]["managedFields"], paths));
    let owners = owners.map_err(Status::internal)?;
    if !owners.is_empty() {
        scale.set_path(&["metadata", "managedFields"], owners);
    }
    Ok(scale)
}

/// Where the count is, in every version of the object that somebody has written.
fn with_paths<T>(served: &Served, object: &Value, work: impl FnOnce(&[(&str, &[&str])]) -> T) -> T {
    let steps = served.resource.scale_path();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let own = served.info().gvk().api_version();
    let group = |version: &str| version.split_once('/').map_or(String::new(), |(group, _)| group.to_string());
    let mut versions = vec![own.as_str()];
    for entry in object["metadata"]["managedFields"].items() {
        let version = entry["apiVersion"].str();
        if group(version) == group(&own) && !versions.contains(&version) {
            versions.push(version);
        }
    }
    let paths: Vec<(&str, &[&str])> = versions.into_iter().map(|version| (version, steps.as_slice())).collect();
    work(&paths)
}

#[cfg(test)]
mod tests {
    use crate::local::LocalApi;
    use crate::testing::server;
    use crate::user::{MASTERS, User};
    use canopus_api::{Api, Gvr, Patch, Target, Value, WriteOptions, value};
    use std::sync::Arc;

    fn target() -> Target {
        Target::new(&Gvr::new("apps", "v1", "statefulsets"), "default", "s")
    }

    fn by(manager: &str) -> WriteOptions {
        WriteOptions { field_manager: manager.into(), ..WriteOptions::default() }
    }

    async fn cluster() -> Arc<dyn Api> {
        let api = LocalApi::shared(server().await, User::new("tester", &[MASTERS]), "tests");
        let set = value!({"metadata": {"name": "s"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        api.create(&target(), set, &by("maker")).await.unwrap();
        api
    }

    /// Who owns the count.
    async fn owners(api: &Arc<dyn Api>) -> Vec<String> {
        let set = api.get(&target()).await.unwrap().value();
        let owns = |entry: &&Value| !entry["fieldsV1"]["f:spec"]["f:replicas"].is_null();
        let entries = set["metadata"]["managedFields"].items().iter().filter(owns);
        entries.map(|e| format!("{} {} {}", e["manager"].str(), e["operation"].str(), e["subresource"].str())).collect()
    }

    #[tokio::test]
    async fn whoever_scales_owns_the_count() {
        let api = cluster().await;
        let scale = target().subresource("scale");
        let mut body = (*api.get(&scale).await.unwrap().value()).clone();
        assert_eq!(body["spec"]["replicas"].int(), 1);
        body.set_path(&["spec", "replicas"], 3);
        let written = api.update(&scale, body.clone(), &by("scaler")).await.unwrap();
        assert_eq!((written.value()["kind"].str(), written.value()["spec"]["replicas"].int()), ("Scale", 3));
        assert_eq!(owners(&api).await, ["scaler Update scale"]);
        assert_eq!(api.get(&target()).await.unwrap().facts.generation, 2);
        let stale = api.update(&scale, body, &by("scaler")).await.unwrap_err();
        assert!(stale.is_conflict(), "{stale}");

        let config = value!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "s", "namespace": "default"}, "spec": {"replicas": 5}});
        let refused = api.patch(&scale, Patch::Apply(config.clone()), &by("applier")).await.unwrap_err();
        assert_eq!(refused.code, 409, "{refused}");
        let force = WriteOptions { force: true, ..by("applier") };
        api.patch(&scale, Patch::Apply(config), &force).await.unwrap();
        assert_eq!(owners(&api).await, ["applier Apply scale"]);

        let merge = Patch::Merge(value!({"spec": {"replicas": (-1)}}));
        let bad = api.patch(&scale, merge, &by("m")).await.unwrap_err();
        assert_eq!(bad.code, 422, "{bad}");
    }
}
