//! Which handler a resource or subresource goes to, and the subresources that are not just a view of their object.

use super::Written;
use super::write::Ownership;
use crate::server::{Served, Server, TokenClaims};
use crate::user::User;
use canopus_api::{Errors, Field, Object, Patch, Result, Status, Target, Value, WriteOptions, patch, value};
use canopus_resources::apps::workload::{apply_scale, to_scale, validate_scale};
use canopus_resources::authentication::tokenrequest;
use canopus_resources::core::pod::bind;
use std::sync::Arc;
use std::time::Duration;

impl Server {
    /// POST.
    pub async fn post(&self, user: &User, target: &Target, body: Value, options: &WriteOptions) -> Result<Written> {
        let served = self.served(&target.gvr)?.clone();
        match (served.info.plural, target.subresource.as_str()) {
            (_, "") if !served.info.stored => self.review(user, &served, target, body, options),
            (_, "") => self.create(user, target, body, options).await,
            ("pods", "binding") => self.bind(&served, target, body, options).await,
            ("serviceaccounts", "token") => self.token(&served, target, body, options).await,
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
        if target.subresource != "scale" || served.info.subresource("scale").is_none() {
            return Err(Status::no_such_resource());
        }
        let object = self.get(target, None).await?;
        Ok(Arc::new(Object::from_value(to_scale(&object.value()), &[], object.revision)))
    }

    async fn put_scale(&self, user: &User, target: &Target, body: Value, options: &WriteOptions) -> Result<Written> {
        let served = self.served(&target.gvr)?.clone();
        if served.info.subresource("scale").is_none() {
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
            apply_scale(&mut new, &body);
            // Scaling is an update of the object itself; only its field manager is of the subresource.
            let main = Target { subresource: "".into(), ..target.clone() };
            match self.replace(user, &served, &main, &old, new, options, Ownership::Update).await {
                Err(raced) if raced.is_conflict() && wanted.is_empty() && attempt < 4 => {}
                Err(error) => return Err(error),
                Ok(done) => {
                    let scaled = Object::from_value(to_scale(&done.object.value()), &[], done.object.revision);
                    return Ok(Written { object: Arc::new(scaled), ..done });
                }
            }
        }
        Err(Status::modified(&target.gvr, &target.name))
    }

    /// `pods/binding`: the scheduler's decision. Like upstream it changes what an update may not, and owns no fields.
    async fn bind(
        &self,
        served: &Arc<Served>,
        target: &Target,
        binding: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        let name = binding["metadata"]["name"].str();
        if !name.is_empty() && name != target.name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let mut errors = Errors::new();
        bind::validate(&Field::root(&binding), &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&canopus_api::Gvk::new("", "v1", "Binding"), &target.name, errors));
        }
        for _ in 0..5 {
            let old = self.current(served, &target.namespace, &target.name).await?;
            let old = old.ok_or_else(|| Status::not_found(&target.gvr, &target.name))?;
            let mut pod = (*old.value()).clone();
            let uid = binding["metadata"]["uid"].str();
            if !uid.is_empty() && uid != old.facts.uid {
                let why =
                    format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", old.facts.uid);
                return Err(Status::conflict(&target.gvr, &target.name, &why));
            }
            bind::bind(&mut pod, &binding, self.surroundings.now())?;
            match self.put_changed(served, &old, pod, options.dry_run).await {
                Err(raced) if raced.is_conflict() => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let status = value!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
                    let object = Arc::new(Object::from_value(status, &[], 0));
                    return Ok(Written { object, created: true, warnings: Vec::new() });
                }
            }
        }
        Err(Status::modified(&target.gvr, &target.name))
    }

    /// `serviceaccounts/token`: a bound token (KEP-1205).
    async fn token(
        &self,
        served: &Served,
        target: &Target,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        let account = self.current(served, &target.namespace, &target.name).await?;
        let account = account.ok_or_else(|| Status::not_found(&target.gvr, &target.name))?;
        tokenrequest::default(&mut body);
        let mut errors = Errors::new();
        tokenrequest::validate(&Field::root(&body), &mut errors);
        if !errors.is_empty() {
            let gvk = canopus_api::Gvk::new("authentication.k8s.io", "v1", "TokenRequest");
            return Err(Status::invalid(&gvk, "", errors));
        }
        let spec = &body["spec"];
        let seconds = spec["expirationSeconds"].int();
        let mut claims = TokenClaims {
            namespace: target.namespace.to_string(),
            service_account: target.name.to_string(),
            service_account_uid: account.facts.uid.to_string(),
            audiences: spec["audiences"].items().iter().map(|a| a.str().to_string()).collect(),
            lifetime: Duration::from_secs(seconds.unsigned_abs()),
            ..TokenClaims::default()
        };
        if let Some(bound) = spec.get("boundObjectRef") {
            self.bind_token(&mut claims, bound).await?;
        }
        let token = if options.dry_run { None } else { Some(self.gates.get()?.tokens.issue(claims)?) };
        if let Some((text, expires)) = token {
            body.set("status", value!({"token": text, "expirationTimestamp": expires}));
        }
        body.set("apiVersion", "authentication.k8s.io/v1");
        body.set("kind", "TokenRequest");
        let meta = body.obj_mut("metadata");
        meta.insert("name", &target.name);
        meta.insert("namespace", &target.namespace);
        meta.insert("creationTimestamp", self.surroundings.now());
        let object = Arc::new(Object::from_value(body, &[], 0));
        Ok(Written { object, created: true, warnings: Vec::new() })
    }

    /// The Pod, Secret or Node a token is bound to must exist and, if a uid is given, be that one.
    async fn bind_token(&self, claims: &mut TokenClaims, bound: &Value) -> Result<()> {
        let (kind, name, uid) = (bound["kind"].str(), bound["name"].str(), bound["uid"].str());
        let (plural, namespace) = match kind {
            "Pod" => ("pods", claims.namespace.as_str()),
            "Secret" => ("secrets", claims.namespace.as_str()),
            "Node" => ("nodes", ""),
            _ => {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to object of kind {kind:?}",
                    claims.service_account
                )));
            }
        };
        let gvr = canopus_api::Gvr::new("", "v1", plural);
        let served = self.served(&gvr)?;
        let object = self.current(served, namespace, name).await?.ok_or_else(|| Status::not_found(&gvr, name))?;
        if !uid.is_empty() && uid != object.facts.uid {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(&gvr, name, &why));
        }
        if kind == "Pod" {
            let pod = object.value();
            if pod["spec"]["serviceAccountName"].str() != claims.service_account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    claims.service_account
                )));
            }
            let node = pod["spec"]["nodeName"].str();
            if !node.is_empty() {
                let known = self.current(self.served(&canopus_api::Gvr::new("", "v1", "nodes"))?, "", node).await?;
                let uid = known.map(|n| n.facts.uid.to_string()).unwrap_or_default();
                claims.node = Some((node.to_string(), uid));
            }
        }
        claims.bound = Some((kind.to_string(), name.to_string(), object.facts.uid.to_string()));
        Ok(())
    }
}
