//! The cluster's zone: what Services and pods contribute to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use crate::proxy::Protocol;

/// A named port: a Service's, or an endpoint's of a headless Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Empty for a nameless port, which has no SRV record.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// An endpoint of a headless Service that may be published: it is ready, or the Service publishes those that aren't.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    /// The endpoint's `hostname`, if any; else its address with dashes serves as one.
    pub hostname: Option<String>,
    pub ports: Vec<Port>,
}

/// A Service as DNS shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// With cluster IPs.
    Cluster { ips: Vec<IpAddr>, ports: Vec<Port> },
    /// Without: names lead to the endpoints.
    Headless { endpoints: Vec<Endpoint> },
    /// An alias of a name elsewhere, with or without final dot.
    External { name: String },
}

/// All records of the cluster, by what they come from.
#[derive(Debug)]
pub struct Zone {
    /// Without final dot, in lower case, such as `cluster.local`.
    domain: String,
    services: BTreeMap<String, BTreeMap<String, Service>>,
    namespaces: BTreeSet<String>,
    reverse: BTreeMap<IpAddr, BTreeSet<String>>,
    serial: u32,
    nameservers: Vec<IpAddr>,
}

impl Zone {
    /// An empty zone. `nameservers` are the addresses under which clients know this server: the DNS Service's.
    pub fn new(domain: &str, nameservers: Vec<IpAddr>) -> Zone {
        Zone {
            domain: domain.trim_end_matches('.').to_ascii_lowercase(),
            services: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            reverse: BTreeMap::new(),
            serial: 1,
            nameservers,
        }
    }

    /// Sets or removes a Service. Whoever calls leaves out cluster IPs and endpoints that must not be published.
    pub fn set_service(&mut self, namespace: &str, name: &str, service: Option<Service>) {
        let in_namespace = self.services.entry(namespace.into()).or_default();
        let old = match &service {
            Some(service) => in_namespace.insert(name.into(), service.clone()),
            None => in_namespace.remove(name),
        };
        if in_namespace.is_empty() {
            self.services.remove(namespace);
        }
        let owner = self.service_name(namespace, name);
        for (ip, pointer) in old.iter().flat_map(|service| pointers(service, &owner)) {
            if let Some(names) = self.reverse.get_mut(&ip) {
                names.remove(&pointer);
            }
            if self.reverse.get(&ip).is_some_and(BTreeSet::is_empty) {
                self.reverse.remove(&ip);
            }
        }
        for (ip, pointer) in service.iter().flat_map(|service| pointers(service, &owner)) {
            self.reverse.entry(ip).or_default().insert(pointer);
        }
        self.serial = self.serial.wrapping_add(1);
    }

    /// Sets whether a namespace exists. Names below one that doesn't, and that has no Service, don't exist.
    pub fn set_namespace(&mut self, namespace: &str, exists: bool) {
        if exists {
            self.namespaces.insert(namespace.into());
        } else {
            self.namespaces.remove(namespace);
        }
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Grows with every change.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    pub(super) fn nameservers(&self) -> &[IpAddr] {
        &self.nameservers
    }

    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace) || self.services.contains_key(namespace)
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(namespace)?.get(name)
    }

    /// The full name of a Service, with final dot.
    pub(super) fn service_name(&self, namespace: &str, name: &str) -> String {
        format!("{name}.{namespace}.svc.{}.", self.domain)
    }

    /// The full names that an address stands for.
    pub(super) fn names_of(&self, ip: &IpAddr) -> impl Iterator<Item = &str> {
        self.reverse.get(ip).into_iter().flatten().map(String::as_str)
    }
}

/// Which name each address of a Service points back to.
fn pointers<'a>(service: &'a Service, owner: &'a str) -> Box<dyn Iterator<Item = (IpAddr, String)> + 'a> {
    match service {
        Service::Cluster { ips, .. } => Box::new(ips.iter().map(move |ip| (*ip, owner.to_string()))),
        Service::Headless { endpoints } => {
            Box::new(endpoints.iter().map(move |e| (e.ip, format!("{}.{owner}", e.label()))))
        }
        Service::External { .. } => Box::new(std::iter::empty()),
    }
}

impl Endpoint {
    /// The endpoint's label below its Service's name.
    pub fn label(&self) -> String {
        match &self.hostname {
            Some(hostname) if !hostname.is_empty() => hostname.to_ascii_lowercase(),
            _ => dashed(self.ip),
        }
    }
}

/// An address as a label: `1-2-3-4`, `fd00--1`.
fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

/// The address that such a label stands for.
pub(super) fn parse_dashed(label: &str) -> Option<IpAddr> {
    if label.bytes().filter(|byte| *byte == b'-').count() == 3 && !label.contains("--") {
        return label.replace('-', ".").parse().ok();
    }
    label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}
