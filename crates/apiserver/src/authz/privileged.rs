//! `system:masters` may do everything, even while no policy has been read (upstream `NewPrivilegedGroups`).

use super::{Attributes, Authorizer, Decision, Step, Union, node::NodeAuthorizer, rbac::Rbac};
use crate::server::Server;
use crate::user::MASTERS;
use canopus_api::Result;
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

/// The authorizers of a cluster in upstream's order: `system:masters`, Node, RBAC.
pub fn standard(server: &Server, rbac: &Arc<Rbac>) -> Result<Union> {
    let node = NodeAuthorizer::start(server)?;
    let steps: [Box<dyn Authorizer>; 3] = [Box::new(PrivilegedGroup), Box::new(node), Box::new(rbac.clone())];
    Ok(Union::new(steps.into_iter().map(Step::Local).collect()))
}
