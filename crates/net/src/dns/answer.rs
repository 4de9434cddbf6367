//! Answers from the zone, by Kubernetes' DNS-based service discovery, schema version 1.1.0
//! (https://github.com/kubernetes/dns/blob/master/docs/specification.md).

use std::net::IpAddr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::zone::{Endpoint, Port, Service, Zone, parse_dashed};

/// Lifetime of records in seconds.
pub const TTL: u32 = 5;

/// The schema that `dns-version` announces.
const SCHEMA_VERSION: &str = "1.1.0";

/// What the zone says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
    /// An alias led here: the records of this name belong to the answer too.
    pub follow: Option<Name>,
}

/// Data found under a name; targets of SRV records with their addresses.
enum Found {
    /// There is no such name.
    Nothing,
    /// The name exists, with these records, maybe none.
    Data(Vec<RData>),
    Services(Vec<(SRV, Vec<IpAddr>)>),
    Alias(Name),
}

/// Answers a question, or returns `None` when the name is not the cluster's to answer for.
pub fn answer(zone: &Zone, query: &Query) -> Option<Answer> {
    let name = query.name();
    let labels: Vec<String> = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    if let Some(ip) = reverse_address(name) {
        let pointers: Vec<RData> = zone.names_of(&ip).filter_map(parse_name).map(|to| RData::PTR(PTR(to))).collect();
        // Other people's addresses are for others to name.
        return (!pointers.is_empty()).then(|| build(zone, query, Found::Data(pointers)));
    }
    let domain: Vec<&str> = zone.domain().split('.').collect();
    let inside = labels.strip_suffix(domain.as_slice())?;
    Some(build(zone, query, find(zone, inside, query.query_type())))
}

/// Looks up the labels below the cluster's domain.
fn find(zone: &Zone, labels: &[&str], kind: RecordType) -> Found {
    match labels {
        [] => match kind {
            RecordType::SOA => Found::Data(soa(zone).into_iter().collect()),
            RecordType::NS => {
                Found::Data(parse_name(&nameserver(zone)).map(|name| RData::NS(NS(name))).into_iter().collect())
            }
            _ => Found::Data(vec![]),
        },
        ["dns-version"] => Found::Data(vec![RData::TXT(TXT::new(vec![SCHEMA_VERSION.into()]))]),
        ["dns"] | ["svc"] | ["pod"] => Found::Data(vec![]),
        ["ns", "dns"] => Found::Data(addresses(zone.nameservers().iter().copied())),
        [namespace, "svc" | "pod"] if zone.has_namespace(namespace) => Found::Data(vec![]),
        [ip, namespace, "pod"] if zone.has_namespace(namespace) => match parse_dashed(ip) {
            Some(ip) => Found::Data(addresses([ip])),
            None => Found::Nothing,
        },
        [rest @ .., name, namespace, "svc"] => match zone.service(namespace, name) {
            Some(service) => find_in_service(service, &zone.service_name(namespace, name), rest, kind),
            None => Found::Nothing,
        },
        _ => Found::Nothing,
    }
}

fn find_in_service(service: &Service, owner: &str, rest: &[&str], kind: RecordType) -> Found {
    if matches!(service, Service::Headless { endpoints } if endpoints.is_empty()) {
        return Found::Nothing;
    }
    if let Service::External { name } = service {
        let target = parse_name(&format!("{}.", name.trim_end_matches('.')));
        return match (rest, target) {
            ([], Some(target)) => Found::Alias(target),
            _ => Found::Nothing,
        };
    }
    match rest {
        [] if kind == RecordType::SRV => Found::Services(services(service, owner, |_| true)),
        [] => Found::Data(addresses(service_ips(service))),
        [protocol @ ("_tcp" | "_udp" | "_sctp")] => {
            let found = services(service, owner, |port| is_protocol(port, protocol));
            if found.is_empty() { Found::Nothing } else { Found::Data(vec![]) }
        }
        [name, protocol] if name.starts_with('_') => {
            let wanted = |port: &Port| {
                !port.name.is_empty() && port.name.eq_ignore_ascii_case(&name[1..]) && is_protocol(port, protocol)
            };
            match services(service, owner, wanted) {
                found if found.is_empty() => Found::Nothing,
                found if kind == RecordType::SRV => Found::Services(found),
                _ => Found::Data(vec![]),
            }
        }
        [label] => {
            let Service::Headless { endpoints } = service else { return Found::Nothing };
            let named: Vec<IpAddr> = endpoints.iter().filter(|e| e.label() == **label).map(|e| e.ip).collect();
            if named.is_empty() { Found::Nothing } else { Found::Data(addresses(named)) }
        }
        _ => Found::Nothing,
    }
}

fn is_protocol(port: &Port, label: &str) -> bool {
    label.strip_prefix('_').is_some_and(|name| name == port.protocol.to_string())
}

fn service_ips(service: &Service) -> Vec<IpAddr> {
    match service {
        Service::Cluster { ips, .. } => ips.clone(),
        Service::Headless { endpoints } => endpoints.iter().map(|e| e.ip).collect(),
        Service::External { .. } => vec![],
    }
}

/// The SRV records for the ports that are wanted: the Service itself, or each endpoint name that has the port.
fn services(service: &Service, owner: &str, wanted: impl Fn(&Port) -> bool) -> Vec<(SRV, Vec<IpAddr>)> {
    let mut found: Vec<(u16, String, Vec<IpAddr>)> = Vec::new();
    match service {
        Service::Cluster { ips, ports } => {
            found.extend(ports.iter().filter(|port| wanted(port)).map(|p| (p.port, owner.to_string(), ips.clone())));
        }
        Service::Headless { endpoints } => {
            let by_label = |label: &str| endpoints.iter().filter(|e| e.label() == label).map(|e| e.ip).collect();
            let one = |e: &Endpoint, port: &Port| (port.port, format!("{}.{owner}", e.label()), by_label(&e.label()));
            for endpoint in endpoints {
                found.extend(endpoint.ports.iter().filter(|port| wanted(port)).map(|port| one(endpoint, port)));
            }
        }
        Service::External { .. } => {}
    }
    // A name with two addresses, one of each family, is one target.
    found.sort();
    found.dedup();
    let weight = (100 / found.len().max(1)).max(1) as u16;
    found
        .into_iter()
        .filter_map(|(port, target, ips)| Some((SRV::new(0, weight, port, parse_name(&target)?), ips)))
        .collect()
}

/// Puts the records that were asked for into an answer under the name as it was asked.
fn build(zone: &Zone, query: &Query, found: Found) -> Answer {
    let kind = query.query_type();
    let record = |data| Record::from_rdata(query.name().clone(), TTL, data);
    let mut answer =
        Answer { code: ResponseCode::NoError, answers: vec![], authorities: vec![], additionals: vec![], follow: None };
    match found {
        Found::Nothing => answer.code = ResponseCode::NXDomain,
        Found::Data(data) => {
            let wanted = data.into_iter().filter(|data| data.record_type() == kind || kind == RecordType::ANY);
            answer.answers.extend(wanted.map(record));
        }
        Found::Services(services) => {
            for (srv, ips) in services {
                let target = srv.target.clone();
                let glue = addresses(ips).into_iter().map(|data| Record::from_rdata(target.clone(), TTL, data));
                let glue: Vec<Record> = glue.filter(|record| !answer.additionals.contains(record)).collect();
                answer.additionals.extend(glue);
                answer.answers.push(record(RData::SRV(srv)));
            }
        }
        Found::Alias(target) => {
            answer.answers.push(record(RData::CNAME(CNAME(target.clone()))));
            answer.follow = (kind != RecordType::CNAME).then_some(target);
        }
    }
    if answer.answers.is_empty() {
        // Whoever keeps the absence in mind learns here for how long.
        let owner = parse_name(&format!("{}.", zone.domain()));
        answer.authorities.extend(owner.zip(soa(zone)).map(|(owner, soa)| Record::from_rdata(owner, TTL, soa)));
    }
    answer
}

fn nameserver(zone: &Zone) -> String {
    format!("ns.dns.{}.", zone.domain())
}

fn soa(zone: &Zone) -> Option<RData> {
    let server = parse_name(&nameserver(zone))?;
    let mailbox = parse_name(&format!("hostmaster.{}.", zone.domain()))?;
    Some(RData::SOA(SOA::new(server, mailbox, zone.serial(), 7200, 1800, 86400, TTL)))
}

fn addresses(ips: impl IntoIterator<Item = IpAddr>) -> Vec<RData> {
    ips.into_iter()
        .map(|ip| match ip {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        })
        .collect()
}

/// The address that a name in `in-addr.arpa` or `ip6.arpa` stands for, if it is a whole one.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

fn parse_name(name: &str) -> Option<Name> {
    Name::from_ascii(name).ok()
}
