//! Which handler a resource or subresource goes to, and the subresources that are not just a view of their object.

use super::Written;
use super::write::Ownership;
use crate::server::Server;
use crate::user::User;
use canopus_api::{Errors, Field, Object, Patch, Result, Status, Target, Value, WriteOptions, patch};
use canopus_resources::apps::workload::validate_scale;
use std::sync::Arc;

impl Server {
    /// POST.
    pub async fn post(&self, user: &User, target: &Target, body: Value, options: &WriteOptions) -> Result<Written> {
        let served = self.served(&target.gvr)?.clone();
        match (served.info().plural, target.subresource.as_str()) {
            ("bindings", "") | ("pods", "binding") => self.bind(user, &served, target, body, options).await,
            (_, "") if !served.info().stored => self.review(user, &served, target, body, options),
            ("pods", "eviction") => self.evict(user, &served, target, body, options).await,
            (_, "") => self.create(user, target, body, options).await,
            ("serviceaccounts", "token") => self.token(user, &served, target, body, options).await,
            _ => Err(Status::method_not_supported(&target.gvr, "create")),
        }
    }

    /// PUT.
    pub async fn put_target(
        &self,
        user: &User,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        match target.subresource.as_str() {
            "scale" => self.put_scale(user, target, body, options).await,
            _ => self.update(user, target, body, options).await,
        }
    }

    /// PATCH.
    pub async fn patch_target(
        &self,
        user: &User,
        target: &Target,
        change: Patch,
        options: &WriteOptions,
    ) -> Result<Written> {
        if target.subresource != "scale" {
            return self.patch(user, target, change, options).await;
        }
        let before = self.get_subresource(target).await?.value();
        let after = match &change {
            Patch::Json(ops) => patch::json_patch(&before, ops)?,
            Patch::Merge(change) => patch::merge_patch(&before, change)?,
            Patch::Strategic(change) | Patch::Apply(change) => patch::merge_patch(&before, change)?,
        };
        self.put_scale(user, target, after, options).await
    }

    /// GET of a subresource that is an object of another kind.
    pub async fn get_subresource(&self, target: &Target) -> Result<Arc<Object>> {
        let served = self.served(&target.gvr)?;
        if target.subresource != "scale" || served.info().subresource("scale").is_none() {
            return Err(Status::no_such_resource());
        }
        let object = self.get(target, None).await?;
        Ok(Arc::new(Object::from_value(served.resource.scale(&object.value()), &[], object.revision)))
    }

    async fn put_scale(&self, user: &User, target: &Target, body: Value, options: &WriteOptions) -> Result<Written> {
        let served = self.served(&target.gvr)?.clone();
        if served.info().subresource("scale").is_none() {
            return Err(Status::no_such_resource());
        }
        let mut errors = Errors::new();
        validate_scale(&Field::root(&body), &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&canopus_api::Gvk::new("autoscaling", "v1", "Scale"), &target.name, errors));
        }
        let wanted = body["metadata"]["resourceVersion"].str().to_string();
        for attempt in 0..5 {
            let old = self.current(&served, &target.namespace, &target.name).await?;
            let old = old.ok_or_else(|| Status::not_found(&target.gvr, &target.name))?;
            if !wanted.is_empty() && wanted != old.revision.to_string() {
                return Err(Status::modified(&target.gvr, &target.name));
            }
            let mut new = (*old.value()).clone();
            served.resource.apply_scale(&mut new, &body);
            // Scaling is an update of the object itself; only its field manager is of the subresource.
            let main = Target { subresource: "".into(), ..target.clone() };
            match self.replace(user, &served, &main, &old, new, options, Ownership::Update).await {
                Err(raced) if raced.is_conflict() && wanted.is_empty() && attempt < 4 => {}
                Err(error) => return Err(error),
                Ok(done) => {
                    let scaled =
                        Object::from_value(served.resource.scale(&done.object.value()), &[], done.object.revision);
                    return Ok(Written { object: Arc::new(scaled), ..done });
                }
            }
        }
        Err(Status::modified(&target.gvr, &target.name))
    }
}
