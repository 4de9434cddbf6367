//! Where objects live in the store (upstream's key layout), and the store's errors as a client sees them.

use canopus_api::Status;
use canopus_resources::Info;

/// `/registry/pods/`: upstream's prefix of a resource's keys.
pub fn prefix(info: &Info) -> String {
    let resource = match (info.group, info.plural) {
        ("", "nodes") => "minions",
        ("", "services") => "services/specs",
        ("", "endpoints") => "services/endpoints",
        ("networking.k8s.io", "ingresses") => "ingress",
        ("", "replicationcontrollers") => "controllers",
        (_, plural) => plural,
    };
    format!("/registry/{resource}/")
}

pub fn status(error: canopus_store::Error) -> Status {
    match error {
        canopus_store::Error::Compacted { .. } => Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
        ),
        other => Status::internal(other),
    }
}
