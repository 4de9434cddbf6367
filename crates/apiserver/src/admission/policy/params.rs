//! The objects that parameterize a policy.

use super::{Binding, Policy};
use crate::admission::Request;
use crate::served::Served;
use crate::server::Server;
use canopus_api::{LabelSelector, ListOptions, Object, Value};
use std::sync::Arc;

/// The resource of a kind, if there is one.
pub(super) fn resource(server: &Server, api_version: &str, kind: &str) -> Option<Arc<Served>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let table = server.catalog.table();
    let mut all = table.all();
    all.find(|s| {
        let info = s.info();
        info.stored && (info.group, info.version, info.kind) == (group, version, kind)
    })
    .cloned()
}

/// What is wrong with a policy's parameters before any binding is looked at.
pub(super) fn misconfigured<R>(server: &Server, policy: &Policy<R>) -> Option<String> {
    let (api_version, kind) = policy.param_kind.as_ref()?;
    if resource(server, api_version, kind).is_some() {
        return None;
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Some(format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'"))
}

/// The parameters of a binding, one evaluation each: Null for none. An empty list means that there is nothing to do.
pub(super) async fn collect<R>(
    server: &Server,
    policy: &Policy<R>,
    binding: &Binding,
    request: &Request<'_>,
) -> Result<Vec<Value>, String> {
    let wanted = &binding.param_ref;
    let Some((api_version, kind)) = policy.param_kind.as_ref().filter(|_| !wanted.is_null()) else {
        return Ok(vec![Value::Null]);
    };
    let served = resource(server, api_version, kind)
        .ok_or_else(|| format!("paramKind kind `&ParamKind{{APIVersion:{api_version},Kind:{kind},}}` not known"))?;
    let cache = served.cache().map_err(|e| e.message)?;
    let given = wanted["namespace"].str();
    let namespace = match (served.info().namespaced, given, request.namespace) {
        (true, "", "") => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, "", own) => own,
        (true, given, _) => given,
        (false, "", _) => "",
        (false, ..) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
    };
    let found: Vec<Arc<Object>> = match wanted["name"].str() {
        "" => {
            let selector = LabelSelector::from_value(&wanted["selector"])?;
            let (mut all, _) = cache.snapshot(namespace, &ListOptions::default());
            all.retain(|object| selector.matches(&object.facts));
            all
        }
        name => canopus_api::View::get(&**cache, namespace, name).into_iter().collect(),
    };
    if found.is_empty() && wanted["parameterNotFoundAction"].str() == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    let found = served.present_all(found).await.map_err(|e| e.message)?;
    let typed = |object: Arc<Object>| {
        let mut tree = (*object.value()).clone();
        tree.set("apiVersion", api_version.as_str());
        tree.set("kind", kind.as_str());
        tree
    };
    Ok(found.into_iter().map(typed).collect())
}
