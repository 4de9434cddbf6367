//! Ingress: which Service answers requests from outside, by host and path.

use super::ingressclass::reference;
use crate::checks;
use crate::resource::{Column, Context, Info, Resource, Subresource, age, name};
use canopus_api::{Errors, Field, Time, Value, names};
use std::collections::BTreeSet;

pub struct Ingress;

static INFO: Info = Info {
    singular: "ingress",
    short_names: &["ing"],
    subresources: &[Subresource::status("networking.k8s.io", "v1", "Ingress")],
    generation: true,
    ..Info::stored("networking.k8s.io", "v1", "Ingress", "ingresses")
};

/// How an Ingress named its class before `spec.ingressClassName`.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// What an update may leave as it was, though it would not be let in today.
#[derive(Clone, Copy, Default)]
struct Leniency {
    secret_names: bool,
    wildcard_rules: bool,
}

impl Leniency {
    fn of(old: &Value) -> Leniency {
        let root = Field::root(old);
        let spec = root.at("spec");
        let bad_secret = |tls: &Value| !secret_name(tls["secretName"].str()).is_empty();
        let mut errors = Errors::new();
        for rule in spec.at("rules").items().filter(|rule| rule.value["host"].str().contains('*')) {
            http(&rule.at("http"), &mut errors);
        }
        Leniency { secret_names: old["spec"]["tls"].items().iter().any(bad_secret), wildcard_rules: !errors.is_empty() }
    }
}

impl Resource for Ingress {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn validate(&self, object: &Field, errors: &mut Errors) {
        ingress(&object.at("spec"), Leniency::default(), errors);
        let annotation = object.value["metadata"]["annotations"].at(CLASS_ANNOTATION);
        let class = object.value["spec"]["ingressClassName"].as_str();
        if let (Some(said), Some(class)) = (annotation.as_str(), class)
            && said != class
        {
            let annotations = object.at("annotations");
            let field = annotations.at(CLASS_ANNOTATION);
            errors.invalid(&field.with(annotation), "must match `ingressClassName` when both are specified");
        }
    }

    fn validate_update(&self, new: &Field, old: &Value, cx: &Context, errors: &mut Errors) {
        if cx.subresource == "status" {
            return balancer(&new.at("status").at("loadBalancer"), &old["status"]["loadBalancer"], errors);
        }
        ingress(&new.at("spec"), Leniency::of(old), errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let annotated = !object["metadata"]["annotations"].at(CLASS_ANNOTATION).is_null();
        if old.is_none() && annotated && object["spec"]["ingressClassName"].is_null() {
            let text =
                format!("annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead");
            return vec![text];
        }
        if old.is_none_or(|old| old["status"] == object["status"]) {
            return Vec::new();
        }
        let points = object["status"]["loadBalancer"]["ingress"].items().iter().enumerate();
        points
            .filter_map(|(i, p)| checks::ip_warning(&format!("status.loadBalancer.ingress[{i}]"), p["ip"].str()))
            .collect()
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::new(
                    "Class",
                    "string",
                    "The name of the IngressClass resource that should be used for additional configuration",
                ),
                Column::new(
                    "Hosts",
                    "string",
                    "Hosts that incoming requests are matched against before the ingress rule",
                ),
                Column::new("Address", "string", "Address is a list containing ingress points for the load-balancer"),
                Column::new("Ports", "string", "Ports of TLS configurations that open"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Time) -> Vec<Value> {
        let spec = &object["spec"];
        let points = object["status"]["loadBalancer"]["ingress"].items().iter();
        let address =
            |point: &Value| if point["ip"].is_empty() { point["hostname"].clone() } else { point["ip"].clone() };
        let addresses: BTreeSet<String> =
            points.map(|p| address(p).str().to_string()).filter(|a| !a.is_empty()).collect();
        vec![
            name(object),
            spec["ingressClassName"].as_str().unwrap_or("<none>").into(),
            hosts(spec["rules"].items()).into(),
            addresses.into_iter().collect::<Vec<_>>().join(",").into(),
            if spec["tls"].is_empty() { "80".into() } else { "80, 443".into() },
            age(object, now),
        ]
    }
}

/// The hosts of the rules, three at most.
fn hosts(rules: &[Value]) -> String {
    const MOST: usize = 3;
    let (mut list, mut more) = (Vec::new(), false);
    for rule in rules {
        more |= list.len() == MOST;
        if !more && !rule["host"].is_empty() {
            list.push(rule["host"].str());
        }
    }
    match (list.is_empty(), more) {
        (true, _) => "*".into(),
        (false, false) => list.join(","),
        (false, true) => format!("{} + {} more...", list.join(","), rules.len() - MOST),
    }
}

fn ingress(spec: &Field, leniency: Leniency, errors: &mut Errors) {
    let (rules, default) = (spec.at("rules"), spec.at("defaultBackend"));
    if rules.value.is_empty() && default.is_unset() {
        errors.invalid(&spec.with(rules.value), "either `defaultBackend` or `rules` must be specified");
    }
    if default.is_set() {
        backend(&default, errors);
    }
    for rule in rules.items() {
        let host = rule.at("host");
        let wildcard = host.str().contains('*');
        if checks::parse_ip(host.str()).is_some() {
            errors.invalid(&host, "must be a DNS name, not an IP address");
        }
        if !host.str().is_empty() {
            host_name(&host, errors);
        }
        if !wildcard || !leniency.wildcard_rules {
            http(&rule.at("http"), errors);
        }
    }
    for tls in spec.at("tls").items() {
        tls.at("hosts").items().for_each(|host| host_name(&host, errors));
        if !leniency.secret_names {
            checks::check(&tls.at("secretName"), secret_name, errors);
        }
    }
    let class = spec.at("ingressClassName");
    if class.is_set() {
        checks::check(&class, names::dns1123_subdomain, errors);
    }
}

fn secret_name(name: &str) -> Vec<String> {
    if name.is_empty() { Vec::new() } else { names::dns1123_subdomain(name) }
}

fn host_name(host: &Field, errors: &mut Errors) {
    let why: checks::Check =
        if host.str().contains('*') { names::wildcard_subdomain } else { names::dns1123_subdomain };
    checks::check(host, why, errors);
}

fn http(http: &Field, errors: &mut Errors) {
    if http.is_unset() {
        return;
    }
    let paths = http.at("paths");
    checks::required(&paths, errors);
    for path in paths.items() {
        let kind = path.at("pathType");
        if kind.is_unset() {
            errors.required(&kind, "pathType must be specified");
            continue;
        }
        let text = path.at("path");
        match kind.str() {
            "Exact" | "Prefix" => strict_path(&text, errors),
            "ImplementationSpecific" if text.str().is_empty() => {}
            "ImplementationSpecific" => absolute(&text, errors),
            _ => errors.not_supported(&kind, &["Exact", "ImplementationSpecific", "Prefix"]),
        }
        backend(&path.at("backend"), errors);
    }
}

fn absolute(path: &Field, errors: &mut Errors) {
    if !path.str().starts_with('/') {
        errors.invalid(&path.with(&path.str().into()), "must be an absolute path");
    }
}

fn strict_path(path: &Field, errors: &mut Errors) {
    absolute(path, errors);
    for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
        if path.str().contains(sequence) {
            errors.invalid(path, format!("must not contain '{sequence}'"));
        }
    }
    for end in ["/..", "/."] {
        if path.str().ends_with(end) {
            errors.invalid(path, format!("cannot end with '{end}'"));
        }
    }
}

fn backend(backend: &Field, errors: &mut Errors) {
    let (resource, service, nothing) = (backend.at("resource"), backend.at("service"), Value::from(""));
    let whole = backend.with(&nothing);
    match (resource.is_set(), service.is_set()) {
        (true, true) => errors.invalid(&whole, "cannot set both resource and service backends"),
        (true, false) => reference(&resource, errors),
        (false, true) => {
            checks::required_check(&service.at("name"), names::dns1123_label, errors);
            let port = service.at("port");
            let (name, number) = (port.at("name"), port.at("number"));
            match (name.str().is_empty(), number.int() == 0) {
                (false, false) => errors.invalid(&whole, "cannot set both port name & port number"),
                (false, true) => checks::check(&name, names::port_name, errors),
                (true, false) => checks::in_range(&number, 1, 65535, errors),
                (true, true) => errors.required(&whole, "port name or number is required"),
            }
        }
        (false, false) => errors.invalid(&whole, "resource or service backend is required"),
    }
}

fn balancer(balancer: &Field, old: &Value, errors: &mut Errors) {
    let known = |ip: &str| old["ingress"].items().iter().any(|point| point["ip"].str() == ip);
    for point in balancer.at("ingress").items() {
        let (ip, host) = (point.at("ip"), point.at("hostname"));
        if !ip.str().is_empty() && !known(ip.str()) {
            checks::ip(&ip, errors);
        }
        if !host.str().is_empty() {
            checks::check(&host, names::dns1123_subdomain, errors);
            if checks::parse_ip(host.str()).is_some() {
                errors.invalid(&host, "must be a DNS name, not an IP address");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cells, create, update};
    use canopus_api::value;

    fn path(path: &str, kind: &str) -> Value {
        value!({"http": {"paths": [{"path": path, "pathType": kind, "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}})
    }

    fn rule(host: &str, rest: Value) -> Value {
        let mut rule = rest;
        rule.set("host", host);
        value!({"metadata": {"name": "i"}, "spec": {"rules": [rule]}})
    }

    fn default_backend(backend: Value) -> Value {
        value!({"spec": {"defaultBackend": backend}})
    }

    #[test]
    fn creation() {
        let cases: &[(Value, &[&str])] = &[
            (rule("a.b", path("/", "Prefix")), &[]),
            (rule("*.a.b", path("", "ImplementationSpecific")), &[]),
            (default_backend(value!({"resource": {"kind": "K", "name": "n"}})), &[]),
            (
                value!({"spec": {}}),
                &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
            ),
            (
                rule("1.2.3.4", path("a//b/..", "Exact")),
                &[
                    "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": must be an absolute path",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": must not contain '//'",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": cannot end with '/..'",
                ],
            ),
            (
                rule("a", path("/", "Regex")),
                &[
                    "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
                ],
            ),
            (
                rule("a", value!({"http": {"paths": [{"backend": {}}]}})),
                &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
            ),
            (rule("a", value!({"http": {}})), &["spec.rules[0].http.paths: Required value"]),
            (
                rule("a.*", value!({})),
                &[
                    "spec.rules[0].host: Invalid value: \"a.*\": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
            (
                default_backend(value!({"service": {}, "resource": {}})),
                &["spec.defaultBackend: Invalid value: \"\": cannot set both resource and service backends"],
            ),
            (
                default_backend(value!({"service": {}})),
                &[
                    "spec.defaultBackend.service.name: Required value",
                    "spec.defaultBackend: Required value: port name or number is required",
                ],
            ),
            (
                default_backend(value!({"service": {"name": "s", "port": {"name": "a", "number": 1}}})),
                &["spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number"],
            ),
            (
                default_backend(value!({})),
                &["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"],
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(create(&Ingress, object.clone()), *expected, "{object:?}");
        }
    }

    #[test]
    fn the_old_way_to_name_a_class() {
        let mut object = rule("a", path("/", "Prefix"));
        object.set_path(&["metadata", "annotations", CLASS_ANNOTATION], "x");
        assert_eq!(
            Ingress.warnings(&object, None),
            ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]
        );
        object.set_path(&["spec", "ingressClassName"], "y");
        assert_eq!(
            create(&Ingress, object.clone()),
            [
                "annotations.kubernetes.io/ingress.class: Invalid value: \"x\": must match `ingressClassName` when both are specified"
            ]
        );
        assert!(update(&Ingress, "", object.clone(), object).is_empty());
    }

    #[test]
    fn what_was_let_in_may_stay() {
        let mut bad = rule("*.a", path("no", "Exact"));
        bad.set_path(&["spec", "tls"], value!([{"secretName": "Bad_Name", "hosts": ["a.b"]}]));
        assert_eq!(create(&Ingress, bad.clone()).len(), 2);
        assert!(update(&Ingress, "", bad.clone(), bad).is_empty());
    }

    #[test]
    fn status_and_cells() {
        let mut old = rule("a", path("/", "Prefix"));
        old.set_path(&["metadata", "generation"], 1);
        let mut new = old.clone();
        new.set(
            "status",
            value!({"loadBalancer": {"ingress": [{"ip": "1.2.3"}, {"hostname": "1.2.3.4"}, {"ip": "::0001"}]}}),
        );
        assert_eq!(
            update(&Ingress, "status", old.clone(), new.clone()),
            [
                "status.loadBalancer.ingress[0].ip: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "status.loadBalancer.ingress[1].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            ]
        );
        assert_eq!(
            Ingress.warnings(&new, Some(&old)),
            [
                "status.loadBalancer.ingress[2]: IPv6 address \"::0001\" should be in RFC 5952 canonical format (\"::1\")"
            ]
        );
        assert!(!Ingress.raises_generation(&new, &old));
        assert_eq!(cells(&Ingress, &new), ["i", "<none>", "a", "1.2.3,1.2.3.4,::0001", "80", "<unknown>"]);
        let five: Vec<Value> = ["a", "b", "", "c", "d"].map(|h| value!({"host": h})).into();
        assert_eq!(hosts(&five), "a,b,c + 2 more...");
        assert_eq!(hosts(&[]), "*");
    }
}
