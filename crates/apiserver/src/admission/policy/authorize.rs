//! Who writes a policy with parameters must be allowed to read them: its expressions can say what is in them
//! (upstream `pkg/registry/admissionregistration/*/authz.go`).

use super::params;
use crate::admission::{Operation, Plugin, Request};
use crate::authz::{Attributes, Decision};
use crate::server::Server;
use crate::user::{MASTERS, User};
use async_trait::async_trait;
use canopus_api::{Errors, Field, Status, Value, View};
use std::sync::{Arc, Weak};

const GROUP: &str = "admissionregistration.k8s.io";

pub struct PolicyParams(Weak<Server>);

impl PolicyParams {
    pub fn new(server: &Arc<Server>) -> PolicyParams {
        PolicyParams(Arc::downgrade(server))
    }
}

/// What is asked for when it is not known what the parameters are.
const ANY: &str = "*";

/// The resource of a policy's parameters, and what could not be found out.
struct Params {
    group: String,
    version: String,
    resource: String,
    unknown: Option<String>,
}

impl Params {
    /// Of `spec.paramKind` of a policy.
    fn of(server: &Server, kind: &Value) -> Params {
        let mut params = Params { group: ANY.into(), version: ANY.into(), resource: ANY.into(), unknown: None };
        let shown = || format!("&ParamKind{{APIVersion:{},Kind:{},}}", kind["apiVersion"].str(), kind["kind"].str());
        match kind["apiVersion"].str().split('/').collect::<Vec<_>>().as_slice() {
            [version] => (params.group, params.version) = (String::new(), version.to_string()),
            [group, version] => (params.group, params.version) = (group.to_string(), version.to_string()),
            _ => {
                params.unknown = Some(format!("unable to parse paramKind {}", shown()));
                return params;
            }
        }
        match params::resource(server, kind["apiVersion"].str(), kind["kind"].str()) {
            Some(served) => params.resource = served.info().plural.into(),
            None => params.unknown = Some(format!("unable to resolve paramKind {}", shown())),
        }
        params
    }

    async fn may(&self, server: &Server, user: &User, verb: &str, namespace: &str, name: &str) -> Result<bool, Status> {
        let attributes = Attributes {
            is_resource: true,
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            namespace,
            name,
            ..Attributes::path(user, verb, "")
        };
        Ok(matches!(server.decide(&attributes).await?, Decision::Allow(_)))
    }
}

/// A user as upstream's messages print one.
fn shown(user: &User) -> String {
    let mut extra: Vec<String> =
        user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    extra.sort();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}

async fn policy(server: &Server, request: &Request<'_>) -> Result<Option<String>, Status> {
    let kind = &request.object["spec"]["paramKind"];
    if kind.is_null() || *kind == request.old["spec"]["paramKind"] {
        return Ok(None);
    }
    if Params::of(server, kind).may(server, request.user, "get", ANY, ANY).await? {
        return Ok(None);
    }
    Ok(Some(format!(
        "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
        shown(request.user),
        kind["kind"].str(),
        kind["apiVersion"].str()
    )))
}

async fn binding(server: &Server, request: &Request<'_>) -> Result<Option<String>, Status> {
    let (spec, old) = (&request.object["spec"], &request.old["spec"]);
    let reference = &spec["paramRef"];
    if reference.is_null() || (*reference == old["paramRef"] && spec["policyName"] == old["policyName"]) {
        return Ok(None);
    }
    let name = spec["policyName"].str();
    let policies = request.resource.plural.replace("policybindings", "policies");
    let found = View::get(&*server.cache(GROUP, "v1", &policies)?, "", name);
    let kind = found.as_ref().map(|policy| policy.value()["spec"]["paramKind"].clone());
    let params = match kind {
        Some(kind) if !kind.is_null() => Params::of(server, &kind),
        known => Params {
            group: ANY.into(),
            version: ANY.into(),
            resource: ANY.into(),
            unknown: known.is_none().then(|| format!("unable to get policy {name}")),
        },
    };
    let object = reference["name"].str();
    let verb = if object.is_empty() { "list" } else { "get" };
    if params.may(server, request.user, verb, reference["namespace"].str(), object).await? {
        return Ok(None);
    }
    let user = shown(request.user);
    Ok(Some(match params.unknown {
        Some(unknown) => format!(
            "{unknown} to determine minimum required permissions and user {user} does not have {verb:?} permission for all groups, versions and resources"
        ),
        None => format!("user {user} does not have {verb:?} permission on the object referenced by paramRef"),
    }))
}

#[async_trait]
impl Plugin for PolicyParams {
    fn name(&self) -> &'static str {
        "PolicyParams"
    }

    fn handles(&self, request: &Request) -> bool {
        request.resource.group == GROUP
            && request.subresource.is_empty()
            && request.resource.plural.contains("admissionpolic")
            && matches!(request.operation, Operation::Create | Operation::Update)
            && !request.user.in_group(MASTERS)
    }

    async fn validate(&self, request: &Request<'_>) -> Result<(), Status> {
        let server = self.0.upgrade().ok_or_else(|| Status::unavailable("the server is stopping"))?;
        let (field, why) = match request.resource.plural.ends_with("bindings") {
            true => ("paramRef", binding(&server, request).await?),
            false => ("paramKind", policy(&server, request).await?),
        };
        let Some(why) = why else { return Ok(()) };
        let mut errors = Errors::default();
        errors.forbidden(&Field::root(&request.object).at("spec").at(field), why);
        Err(Status::invalid(&request.resource.gvk(), request.object["metadata"]["name"].str(), errors))
    }
}
