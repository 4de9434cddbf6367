//! Acting as somebody else: `Impersonate-User` and friends (upstream `filters/impersonation`). Who has the verb `impersonate`
//! may do as that user whatever it may; constrained impersonation (KEP-5284) asks for the right to act as that kind of
//! user, `impersonate:MODE`, and to do this very thing on its behalf, `impersonate-on:MODE:VERB`.

use crate::authn::request_header::unescape;
use crate::authz::{Attributes, forbidden};
use crate::server::Server;
use crate::user::{ANONYMOUS, AUTHENTICATED, MASTERS, NODES, UNAUTHENTICATED, User};
use canopus_api::{Result, Status};
use compact_str::{CompactString, format_compact};
use http::HeaderMap;
use std::sync::Arc;

const AUTHENTICATION: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Whom a request is made as.
pub struct Impersonated {
    pub user: Arc<User>,
    /// The verb that constrained it; "" when nothing does.
    pub constraint: &'static str,
}

/// The user to act as, when the headers ask for one and the sender may. `wanted` is what the sender is about to do.
pub async fn resolve(server: &Server, wanted: &Attributes<'_>, headers: &HeaderMap) -> Result<Option<Impersonated>> {
    let Some(user) = requested(headers)? else { return Ok(None) };
    if !server.settings.features.enabled("ConstrainedImpersonation") {
        return Check { server, wanted, user: &user, mode: &LEGACY }.all().await.map(Some);
    }
    let mut first = None;
    for mode in MODES.iter().filter(|mode| (mode.fits)(&user, wanted.user)) {
        match (Check { server, wanted, user: &user, mode }).all().await {
            Ok(impersonated) => return Ok(Some(impersonated)),
            Err(why) => first = first.or(Some(why)),
        }
    }
    Err(first.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

/// Takes the headers away, so that nobody behind treats the request differently.
pub fn strip(headers: &mut HeaderMap) {
    let ours = |name: &str| {
        matches!(name, "impersonate-user" | "impersonate-group" | "impersonate-uid")
            || name.starts_with("impersonate-extra-")
    };
    let named: Vec<_> = headers.keys().filter(|name| ours(name.as_str())).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

/// The user the headers describe.
fn requested(headers: &HeaderMap) -> Result<Option<User>> {
    let texts = |name: &str| -> Result<Vec<CompactString>> {
        let text = |v: &http::HeaderValue| std::str::from_utf8(v.as_bytes()).map(CompactString::from);
        let all: std::result::Result<_, _> = headers.get_all(name).iter().map(text).collect();
        all.map_err(|_| Status::bad_request(format!("header {name} is not UTF-8")))
    };
    let first = |name: &str| texts(name).map(|all| all.into_iter().next().unwrap_or_default());
    let (name, uid, groups) = (first("impersonate-user")?, first("impersonate-uid")?, texts("impersonate-group")?);
    let mut extra: Vec<(CompactString, Vec<CompactString>)> = Vec::new();
    for header in headers.keys() {
        let Some(key) = header.as_str().strip_prefix("impersonate-extra-") else { continue };
        let key = CompactString::from(unescape(key).to_lowercase());
        let values = texts(header.as_str())?;
        match extra.iter_mut().find(|(k, _)| *k == key) {
            Some((_, known)) => known.extend(values),
            None => extra.push((key, values)),
        }
    }
    extra.sort();
    if !name.is_empty() {
        return Ok(Some(User { name, uid, groups, extra }));
    }
    if uid.is_empty() && groups.is_empty() && extra.is_empty() {
        return Ok(None);
    }
    Err(Status::bad_request(format!(
        "requested {} without impersonating a user name",
        described(&uid, &groups, &extra)
    )))
}

/// As Go prints the user.
fn described(uid: &str, groups: &[CompactString], extra: &[(CompactString, Vec<CompactString>)]) -> String {
    let list = |items: &[CompactString]| match items {
        [] => "[]string(nil)".to_string(),
        items => format!("[]string{{{}}}", items.iter().map(|i| format!("{i:?}")).collect::<Vec<_>>().join(", ")),
    };
    let extra = match extra {
        [] => "map[string][]string(nil)".to_string(),
        all => {
            let entry = |(k, v): &(CompactString, Vec<CompactString>)| format!("{k:?}:{}", list(v));
            format!("map[string][]string{{{}}}", all.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    };
    format!("&user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:{}, Extra:{extra}}}", list(groups))
}

struct Mode {
    /// What is asked for to act as a user.
    verb: &'static str,
    /// What is asked for to do something, in front of its verb.
    on: &'static str,
    /// Whether this mode is for such a user; the second is who asks.
    fits: fn(&User, &User) -> bool,
}

const LEGACY: Mode = Mode { verb: "impersonate", on: "", fits: |_, _| true };

/// In the order they are tried.
const MODES: [Mode; 5] = [
    Mode {
        verb: "impersonate:associated-node",
        on: "impersonate-on:associated-node:",
        fits: |user, requestor| only_named(user) && on_node(requestor).is_some_and(|n| node(&user.name) == Some(n)),
    },
    Mode {
        verb: "impersonate:arbitrary-node",
        on: "impersonate-on:arbitrary-node:",
        fits: |user, _| only_named(user) && node(&user.name).is_some(),
    },
    Mode {
        verb: "impersonate:serviceaccount",
        on: "impersonate-on:serviceaccount:",
        fits: |user, _| only_named(user) && service_account(&user.name).is_some(),
    },
    Mode {
        verb: "impersonate:user-info",
        on: "impersonate-on:user-info:",
        fits: |user, _| node(&user.name).is_none() && service_account(&user.name).is_none(),
    },
    LEGACY,
];

fn only_named(user: &User) -> bool {
    user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty()
}

fn node(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:").filter(|name| canopus_api::names::dns1123_subdomain(name).is_empty())
}

/// The node that a service account's pod runs on.
fn on_node(user: &User) -> Option<&str> {
    service_account(&user.name)?;
    match user.extra.iter().find(|(key, _)| key == NODE_NAME)?.1.as_slice() {
        [name] => Some(name),
        _ => None,
    }
}

/// Namespace and name of `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let good = |(namespace, name): &(&str, &str)| {
        canopus_api::names::dns1123_label(namespace).is_empty()
            && canopus_api::names::dns1123_subdomain(name).is_empty()
    };
    user.strip_prefix("system:serviceaccount:")?.split_once(':').filter(good)
}

/// What constrained impersonation does not take as extra.
fn unusual((key, values): &(CompactString, Vec<CompactString>)) -> Option<String> {
    let prefixed = key
        .split_once('/')
        .is_some_and(|(domain, path)| canopus_api::names::dns1123_subdomain(domain).is_empty() && !path.is_empty());
    let what = match (key.is_empty(), prefixed, values.is_empty(), values.iter().any(|v| v.is_empty())) {
        (true, ..) => "the empty string key".into(),
        (_, false, ..) => format!("an invalid key {key:?}"),
        (_, _, true, _) => "empty values".into(),
        (.., true) => "the empty string value".into(),
        _ => return None,
    };
    Some(format!("impersonating {what} in extra is not allowed"))
}

struct Check<'a> {
    server: &'a Server,
    wanted: &'a Attributes<'a>,
    user: &'a User,
    mode: &'static Mode,
}

impl Check<'_> {
    fn constrained(&self) -> bool {
        !self.mode.on.is_empty()
    }

    fn associated(&self) -> bool {
        self.mode.on == "impersonate-on:associated-node:"
    }

    async fn all(&self) -> Result<Impersonated> {
        if self.constrained() {
            let verb = format!("{}{}", self.mode.on, self.wanted.verb);
            self.ask(&Attributes { verb: &verb, ..*self.wanted }).await?;
        }
        let mut groups = self.name().await?;
        if !self.user.uid.is_empty() {
            self.allowed(AUTHENTICATION, "uids", "", "", &self.user.uid).await?;
        }
        self.groups().await?;
        self.extra().await?;
        let mark = if self.user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        if !groups.iter().any(|g| g == mark || g == UNAUTHENTICATED) {
            groups.push(mark.into());
        }
        let constraint = if self.constrained() { self.mode.verb } else { "" };
        Ok(Impersonated { user: Arc::new(User { groups, ..self.user.clone() }), constraint })
    }

    /// May it act under this name? Answers the groups that come with it.
    async fn name(&self) -> Result<Vec<CompactString>> {
        let name = self.user.name.as_str();
        if let Some((namespace, account)) = service_account(name) {
            let group = if self.constrained() { AUTHENTICATION } else { "" };
            self.allowed(group, "serviceaccounts", "", namespace, account).await?;
            if self.user.groups.is_empty() {
                let of_namespace = format_compact!("system:serviceaccounts:{namespace}");
                return Ok(vec!["system:serviceaccounts".into(), of_namespace]);
            }
            return Ok(self.user.groups.clone());
        }
        if let Some(node) = node(name).filter(|_| self.constrained()) {
            // Whose node it is has been checked: the right is to all of them.
            let node = if self.associated() { "*" } else { node };
            self.allowed(AUTHENTICATION, "nodes", "", "", node).await?;
            return Ok(vec![NODES.into()]);
        }
        let group = if self.constrained() { AUTHENTICATION } else { "" };
        self.allowed(group, "users", "", "", name).await?;
        Ok(self.user.groups.clone())
    }

    async fn groups(&self) -> Result<()> {
        let api_group = if self.constrained() { AUTHENTICATION } else { "" };
        for group in &self.user.groups {
            if self.constrained() && (group.is_empty() || group == MASTERS) {
                let which = if group.is_empty() { "empty string" } else { MASTERS };
                let why = format!("impersonating the {which} group is not allowed");
                return Err(forbidden(&self.attributes(api_group, "groups", "", "", group), &why));
            }
        }
        for group in &self.user.groups {
            self.allowed(api_group, "groups", "", "", group).await?;
        }
        Ok(())
    }

    async fn extra(&self) -> Result<()> {
        if let Some(why) = self.user.extra.iter().find_map(unusual).filter(|_| self.constrained()) {
            return Err(forbidden(&self.attributes(AUTHENTICATION, "userextras", "", "", ""), &why));
        }
        for (key, values) in &self.user.extra {
            for value in values {
                self.allowed(AUTHENTICATION, "userextras", key, "", value).await?;
            }
        }
        Ok(())
    }

    fn attributes<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        Attributes {
            is_resource: true,
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            ..Attributes::path(self.wanted.user, self.mode.verb, "")
        }
    }

    async fn allowed(&self, group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> Result<()> {
        self.ask(&self.attributes(group, resource, subresource, namespace, name)).await
    }

    /// A service account on whose node this is about is the same on every node: its own extra is left out.
    async fn ask(&self, attributes: &Attributes<'_>) -> Result<()> {
        if !self.associated() {
            return self.server.authorize(attributes).await;
        }
        let keys = attributes.user.extra.iter().map(|(key, _)| key.clone()).collect();
        let extra = vec![("authentication.kubernetes.io/associated-node-keys".into(), keys)];
        let user = User { extra, ..attributes.user.clone() };
        self.server.authorize(&Attributes { user: &user, ..*attributes }).await
    }
}

#[cfg(test)]
#[path = "impersonate_tests.rs"]
mod tests;
