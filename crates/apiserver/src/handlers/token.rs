//! `serviceaccounts/token`: a token, perhaps bound to an object (KEP-1205).

use super::Written;
use super::decode::{decode_as, place_namespace};
use crate::admission::{Operation, Options, Request};
use crate::notes;
use crate::served::Served;
use crate::server::{Server, TokenClaims};
use crate::user::User;
use canopus_api::api::split_api_version;
use canopus_api::managed::{FieldManager, OneVersion, Reset};
use canopus_api::schema::complete;
use canopus_api::{Errors, Field, Gvk, Gvr, Object, Result, Status, Target, Value, WriteOptions, value};
use canopus_resources::authentication::tokenrequest;
use std::sync::Arc;
use std::time::Duration;

/// The lifetime that the ServiceAccount admission plugin asks for (upstream `WarnOnlyBoundTokenExpirationSeconds`).
const WARN_ONLY: i64 = 60 * 60 + 7;
/// How long such a token really lives, so that a client that does not read it again still works.
const EXTENDED: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Server {
    pub(super) async fn token(
        &self,
        user: &User,
        served: &Arc<Served>,
        target: &Target,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        let gvk = Gvk::new("authentication.k8s.io", "v1", "TokenRequest");
        let warnings = decode_as(&gvk, schema()?.into(), &mut body, options)?;
        tokenrequest::default(&mut body);
        place_namespace(&target.namespace, &mut body)?;
        complete(schema()?.into(), &mut body);
        FieldManager {
            ty: schema()?.into(),
            api_version: &gvk.api_version(),
            manager: &options.field_manager,
            subresource: &target.subresource,
            reset: Reset::NOTHING,
            versions: &OneVersion,
            now: self.surroundings.now(),
        }
        .update(None, &mut body);
        let mut request = Request {
            operation: Operation::Create,
            resource: served.info(),
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            object: body,
            old: &Value::Null,
            user,
            dry_run: options.dry_run,
            options: Options::Write(options),
            reinvocation: Default::default(),
        };
        let gates = self.gates.get()?;
        gates.admission.admit(&mut request).await?;
        let account = self.account(served, target, &gvk, &request.object).await?;
        fill(&mut request.object, &account, gates.tokens.audiences());
        let now = self.surroundings.now();
        request.object.obj_mut("metadata").insert("creationTimestamp", now);
        let mut errors = Errors::new();
        tokenrequest::validate(&Field::root(&request.object), &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&gvk, "", errors));
        }
        gates.admission.validate(&request).await?;
        let mut body = request.object;
        let asked = body["spec"]["expirationSeconds"].int();
        let most = self.settings.max_token_expiration.map(|most| i64::try_from(most.as_secs()).unwrap_or(i64::MAX));
        if let Some(most) = most.filter(|most| asked > *most) {
            notes::warn(&format!("requested expiration of {asked} seconds shortened to {most} seconds"));
            body.set_path(&["spec", "expirationSeconds"], most);
        }
        let claims = self.claims(&account, &body["spec"], gates.tokens.audiences()).await?;
        let token = gates.tokens.issue(claims)?;
        let expires = now.plus(Duration::from_secs(body["spec"]["expirationSeconds"].int().unsigned_abs()));
        body.set("status", value!({"token": token, "expirationTimestamp": expires}));
        Ok(Written { object: Arc::new(Object::from_value(body, &[], 0)), created: true, warnings })
    }

    /// The account that the request is for, if what the request says of it is true.
    async fn account(&self, served: &Served, target: &Target, gvk: &Gvk, request: &Value) -> Result<Arc<Object>> {
        let meta = &request["metadata"];
        let name = meta["name"].str();
        if !name.is_empty() && name != target.name {
            let mut errors = Errors::new();
            let root = Field::root(request);
            errors.invalid(&root.at("metadata").at("name"), "must match the service account name if specified");
            return Err(Status::invalid(gvk, &target.name, errors));
        }
        let account = self.current(served, &target.namespace, &target.name).await?;
        let account = account.ok_or_else(|| Status::not_found(&target.gvr, &target.name))?;
        let (sent, actual) = (meta["uid"].str(), &account.facts.uid);
        if !sent.is_empty() && sent != actual {
            let why = format!(
                "the UID in the token request ({sent}) does not match the UID of the service account ({actual})"
            );
            return Err(Status::conflict(&Gvr::new(&gvk.group, "v1", &gvk.kind), &target.name, &why));
        }
        // Who checks the token looks there, perhaps at once.
        self.wait_for(served.cache()?, account.revision).await?;
        Ok(account)
    }

    async fn claims(&self, account: &Object, spec: &Value, own_audiences: &[String]) -> Result<TokenClaims> {
        let seconds = spec["expirationSeconds"].int();
        let mut claims = TokenClaims {
            namespace: account.namespace().into(),
            service_account: account.name().into(),
            service_account_uid: account.facts.uid.to_string(),
            audiences: spec["audiences"].items().iter().map(|a| a.str().to_string()).collect(),
            lifetime: Duration::from_secs(seconds.unsigned_abs()),
            ..TokenClaims::default()
        };
        let bound = &spec["boundObjectRef"];
        if !bound.is_null() {
            self.bind_token(&mut claims, bound).await?;
        }
        let ours = claims.audiences.iter().all(|a| own_audiences.contains(a));
        let to_pod = claims.bound.as_ref().is_some_and(|(kind, ..)| kind == "Pod");
        if self.settings.extend_token_expiration && to_pod && ours && seconds == WARN_ONLY {
            claims.warn_after = Some(claims.lifetime);
            claims.lifetime = EXTENDED;
        }
        Ok(claims)
    }

    /// The Pod, Secret or Node a token is bound to must exist and, if a uid is given, be that one.
    async fn bind_token(&self, claims: &mut TokenClaims, bound: &Value) -> Result<()> {
        let (kind, name, uid) = (bound["kind"].str(), bound["name"].str(), bound["uid"].str());
        let (group, version) = split_api_version(bound["apiVersion"].str());
        let (plural, namespace) = match (group, kind) {
            ("", "Pod") => ("pods", claims.namespace.as_str()),
            ("", "Secret") => ("secrets", claims.namespace.as_str()),
            ("", "Node") => ("nodes", ""),
            _ => {
                let gvk = Gvk::new(group, version, kind);
                return Err(Status::bad_request(format!("cannot bind token to object of type {gvk}")));
            }
        };
        let gvr = Gvr::new("", "v1", plural);
        let served = self.served(&gvr)?;
        let object = self.current(&served, namespace, name).await?;
        let object = object.ok_or_else(|| Status::not_found(&gvr, name))?;
        self.wait_for(served.cache()?, object.revision).await?;
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
                let known = self.current(&*self.served(&Gvr::new("", "v1", "nodes"))?, "", node).await?;
                let uid = known.map(|n| n.facts.uid.to_string()).unwrap_or_default();
                claims.node = Some((node.to_string(), uid));
            }
        }
        if !uid.is_empty() && uid != object.facts.uid {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(&Gvr::new("", version, kind), name, &why));
        }
        claims.bound = Some((kind.to_string(), name.to_string(), object.facts.uid.to_string()));
        Ok(())
    }
}

fn schema() -> Result<&'static canopus_schema::Type> {
    let found = canopus_schema::kind("authentication.k8s.io", "v1", "TokenRequest");
    Ok(found.ok_or_else(|| Status::internal("no schema for TokenRequest"))?.get())
}

/// What the server knows and the request left out.
fn fill(request: &mut Value, account: &Object, audiences: &[String]) {
    let meta = request.obj_mut("metadata");
    meta.insert("name", account.name());
    meta.insert("namespace", account.namespace());
    meta.insert("uid", &account.facts.uid);
    let spec = request.obj_mut("spec");
    if spec.get("audiences").is_none_or(Value::is_empty) {
        spec.insert("audiences", audiences.iter().cloned().collect::<Value>());
    }
    request.remove("status");
}
