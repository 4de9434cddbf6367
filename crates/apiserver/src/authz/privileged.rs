//! `system:masters` may do everything, even while no policy has been read (upstream `NewPrivilegedGroups`).

use super::always::{AlwaysAllow, AlwaysDeny};
use super::chain::Counted;
use super::config::Configured;
use super::webhook::Webhook;
use super::{Attributes, Authorizer, Decision, Step, Union, node::NodeAuthorizer, rbac::Rbac};
use crate::metrics::authorization::Authorization;
use crate::outgoing::Destination;
use crate::server::Server;
use crate::user::MASTERS;
use canopus_api::{Result, Status};
use std::path::Path;
use std::sync::Arc;

pub struct PrivilegedGroup;

impl Authorizer for PrivilegedGroup {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(MASTERS) {
            return Decision::Allow(String::new());
        }
        Decision::NoOpinion(String::new())
    }
}

/// What stays while the configuration of authorization changes.
#[derive(Clone)]
pub struct Authorizers {
    rbac: Arc<Rbac>,
    node: Option<Arc<NodeAuthorizer>>,
    counts: Arc<Authorization>,
}

impl Authorizers {
    /// `node`: whether there is a Node authorizer.
    pub fn new(server: &Server, rbac: &Arc<Rbac>, node: bool) -> Result<Authorizers> {
        let node = if node { Some(Arc::new(NodeAuthorizer::start(server)?)) } else { None };
        Ok(Authorizers { rbac: rbac.clone(), node, counts: server.metrics.authorization.clone() })
    }

    /// `system:masters`, then the others as they are configured; `find` knows whom a kubeconfig leads to.
    ///
    /// # Errors
    /// Whom it could not find, or what cannot begin now.
    pub fn union<E: From<String>>(
        &self,
        configured: Vec<Configured>,
        find: impl Fn(&Path) -> std::result::Result<Destination, E>,
    ) -> std::result::Result<Union, E> {
        let mut steps = vec![Step::Local(Box::new(PrivilegedGroup))];
        for one in configured {
            let kind = one.kind();
            let counts = |name: &str| self.counts.decisions(kind, name);
            let named = counts(&kind.to_lowercase());
            steps.push(match one {
                Configured::AlwaysAllow => Step::Local(Box::new(Counted(AlwaysAllow, named))),
                Configured::AlwaysDeny => Step::Local(Box::new(Counted(AlwaysDeny, named))),
                Configured::Abac(policies) => Step::Local(Box::new(Counted(policies, named))),
                Configured::Rbac => Step::Local(Box::new(Counted(self.rbac.clone(), named))),
                Configured::Node => {
                    let missing = "authorizer type Node is not allowed if it was not enabled at initial server startup";
                    let node = self.node.clone().ok_or_else(|| missing.to_string())?;
                    Step::Local(Box::new(Counted(node, named)))
                }
                Configured::Webhook(kubeconfig, options) => {
                    let counts = counts(&options.name);
                    Step::Remote(Arc::new(Counted(Webhook::new(find(&kubeconfig)?, options), counts)))
                }
            });
        }
        Ok(Union::new(steps))
    }
}

/// The authorizers of a cluster in upstream's order: `system:masters`, Node, RBAC.
pub fn standard(server: &Server, rbac: &Arc<Rbac>) -> Result<Union> {
    let none = |_: &Path| Err("there is no webhook".to_string());
    let authorizers = Authorizers::new(server, rbac, true)?;
    authorizers.union(vec![Configured::Node, Configured::Rbac], none).map_err(Status::internal)
}
