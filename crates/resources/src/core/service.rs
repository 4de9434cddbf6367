//! Service: one name and address for a set of pods. Addresses and node ports are given out by the API server between
//! [`Resource::prepare_create`] (or `prepare_update`) and [`Resource::validate`], which wants them there.

mod addresses;
mod prepare;
mod print;
mod status;
mod validate;

use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, Verb};
use crate::strategy::keep;
use canopus_api::{Errors, Field, Time, Value, names, value};

pub struct Service;

static INFO: Info = Info {
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[
        Subresource {
            name: "proxy",
            kind: ("", "v1", "ServiceProxyOptions"),
            verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        },
        Subresource::status("", "v1", "Service"),
    ],
    selectable_fields: &["spec.clusterIP", "spec.type"],
    name: names::dns1123_label,
    create_on_update: true,
    ..Info::stored("", "v1", "Service", "services")
};

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

impl Resource for Service {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn default(&self, object: &mut Value) {
        prepare::default(object);
    }

    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        object.set("status", value!({"loadBalancer": {}}));
        prepare::create(object.get_mut("spec").unwrap_or(&mut Value::Null));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if cx.subresource == "status" {
            keep(new, old, "spec");
            return;
        }
        keep(new, old, "status");
        prepare::update(new, old);
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        validate::service(object, &Value::Null, errors);
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            status::validate(new, old, errors);
        } else {
            addresses::changes(&new.at("spec"), &old["spec"], errors);
            validate::changes(&new.at("spec"), &old["spec"], errors);
            validate::service(new, old, errors);
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        status::warnings(object)
    }

    fn columns(&self) -> &'static [Column] {
        print::COLUMNS
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        print::row(object, now)
    }
}

/// Whether a service's endpoints are published without an address of its own.
pub fn is_headless(spec: &Value) -> bool {
    matches!(spec["clusterIPs"].items(), [only] if only.str() == "None")
}

fn is_a(spec: &Value, kind: &str) -> bool {
    spec["type"].str() == kind
}

/// Whether a service has (or wants) an address, "None" included.
pub fn needs_cluster_ip(spec: &Value) -> bool {
    !is_a(spec, "ExternalName")
}

/// Whether the API server gives its ports node ports.
pub fn needs_node_ports(spec: &Value) -> bool {
    is_a(spec, "NodePort")
        || is_a(spec, "LoadBalancer") && spec["allocateLoadBalancerNodePorts"].as_bool() != Some(false)
}

/// Whether the API server gives it a healthCheckNodePort.
pub fn needs_health_check(spec: &Value) -> bool {
    is_a(spec, "LoadBalancer") && spec["externalTrafficPolicy"].str() == "Local"
}

fn externally_accessible(spec: &Value) -> bool {
    match spec["type"].str() {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec["externalIPs"].is_empty(),
        _ => false,
    }
}

/// Checks an address unless `old`, a list, has it already: what was allowed once may stay. Whether it is good.
fn legacy_ip(field: &Field, old: &Value, errors: &mut Errors) -> bool {
    if old.items().contains(field.value) {
        return true;
    }
    let before = errors.len();
    checks::ip(field, errors);
    errors.len() == before
}

#[cfg(test)]
mod tests;
