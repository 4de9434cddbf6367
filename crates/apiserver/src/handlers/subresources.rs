//! Which handler a resource or subresource goes to, and the subresources that are not just a view of their object.

use super::Written;
use super::scale::Change;
use crate::server::Server;
use crate::user::User;
use canopus_api::{Patch, Result, Status, Target, Value, WriteOptions};

impl Server {
    /// POST.
    pub async fn post(&self, user: &User, target: &Target, body: Value, options: &WriteOptions) -> Result<Written> {
        let served = self.served(&target.gvr)?.clone();
        match (served.info().plural, target.subresource.as_str()) {
            ("bindings", "") | ("pods", "binding") => self.bind(user, &served, target, body, options).await,
            (_, "") if !served.info().stored => self.review(user, &served, target, body, options).await,
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
            "scale" => self.write_scale(user, target, Change::Put(body), options).await,
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
        self.write_scale(user, target, Change::Patch(change), options).await
    }
}
