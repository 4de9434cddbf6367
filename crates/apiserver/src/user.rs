//! Who asks: the outcome of authentication (upstream `user.Info`).

use canopus_resources::Requester;
use compact_str::CompactString;
use std::sync::Arc;

pub const ANONYMOUS: &str = "system:anonymous";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const MASTERS: &str = "system:masters";
pub const NODES: &str = "system:nodes";

#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    pub name: CompactString,
    pub uid: CompactString,
    pub groups: Vec<CompactString>,
    pub extra: Vec<(CompactString, Vec<CompactString>)>,
}

impl User {
    /// An authenticated user; `system:authenticated` is added to `groups`.
    pub fn new(name: &str, groups: &[&str]) -> Arc<User> {
        let groups = groups.iter().copied().chain([AUTHENTICATED]).map(CompactString::from).collect();
        Arc::new(User { name: name.into(), groups, ..User::default() })
    }

    /// With `system:authenticated` among the groups, unless it or its opposite is (upstream `group.AuthenticatedGroupAdder`).
    pub fn authenticated(mut self) -> User {
        if self.name != ANONYMOUS && !self.in_group(AUTHENTICATED) && !self.in_group(UNAUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }

    pub fn anonymous() -> Arc<User> {
        let groups = vec![UNAUTHENTICATED.into()];
        Arc::new(User { name: ANONYMOUS.into(), groups, ..User::default() })
    }

    /// What a resource's rules may know of the user besides the name.
    pub fn requester(&self) -> Requester<'_> {
        Requester { uid: &self.uid, groups: &self.groups, extra: &self.extra }
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node this user is, when it is one.
    pub fn node(&self) -> Option<&str> {
        if !self.in_group(NODES) {
            return None;
        }
        self.name.strip_prefix("system:node:").filter(|name| !name.is_empty())
    }
}
