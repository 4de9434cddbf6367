//! Acting as somebody else: `Impersonate-User` and friends (upstream `filters.WithImpersonation`).

use crate::authz::Attributes;
use crate::server::Server;
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};
use canopus_api::{Result, Status};
use compact_str::CompactString;
use http::HeaderMap;
use std::sync::Arc;

/// The user to act as, when the headers ask for one and `user` may.
pub fn resolve(server: &Server, user: &Arc<User>, headers: &HeaderMap) -> Result<Arc<User>> {
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(String::from).collect()
    };
    let name = texts("impersonate-user").into_iter().next().unwrap_or_default();
    let (mut groups, uid) = (texts("impersonate-group"), texts("impersonate-uid").into_iter().next());
    let extra = headers.keys().filter_map(|k| k.as_str().strip_prefix("impersonate-extra-"));
    let extra: Vec<(String, Vec<String>)> = extra
        .map(|key| (super::query::decode(key, false).to_lowercase(), texts(&format!("impersonate-extra-{key}"))))
        .collect();
    if name.is_empty() {
        if groups.is_empty() && extra.is_empty() && uid.is_none() {
            return Ok(user.clone());
        }
        return Err(Status::bad_request("requested impersonation without specifying a user name"));
    }
    let allowed = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        server.authorize(&Attributes {
            is_resource: true,
            group,
            resource,
            subresource,
            namespace,
            name,
            ..Attributes::path(user, "impersonate", "")
        })
    };
    match service_account(&name) {
        Some((namespace, account)) => {
            allowed("", "serviceaccounts", "", namespace, account)?;
            if groups.is_empty() {
                groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
            }
        }
        None => allowed("", "users", "", "", &name)?,
    }
    for group in &groups {
        allowed("", "groups", "", "", group)?;
    }
    if let Some(uid) = &uid {
        allowed("authentication.k8s.io", "uids", "", "", uid)?;
    }
    for (key, values) in &extra {
        for value in values {
            allowed("authentication.k8s.io", "userextras", key, "", value)?;
        }
    }
    let mark = if name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|g| g == mark) {
        groups.push(mark.into());
    }
    let compact = |list: Vec<String>| list.into_iter().map(CompactString::from).collect();
    Ok(Arc::new(User {
        name: name.into(),
        uid: uid.unwrap_or_default().into(),
        groups: compact(groups),
        extra: extra.into_iter().map(|(key, values)| (key.into(), compact(values))).collect(),
    }))
}

/// Namespace and name of `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':').filter(|(ns, name)| !ns.is_empty() && !name.is_empty())
}
