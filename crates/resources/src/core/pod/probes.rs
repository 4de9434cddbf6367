//! Probes and lifecycle hooks.

use crate::checks::{self, in_range, nonnegative, required};
use canopus_api::{Errors, Field};

const PROBE_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];

/// Checks a container's three probes. `grace` is the pod's terminationGracePeriodSeconds, when it has one.
pub fn probes(container: &Field, grace: Option<i64>, errors: &mut Errors) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.at(name);
        if probe.is_unset() {
            continue;
        }
        common(&probe, grace, errors);
        let (success, own_grace) = (probe.at("successThreshold"), probe.at("terminationGracePeriodSeconds"));
        if name == "readinessProbe" {
            if own_grace.is_set() {
                errors.invalid(&own_grace, "must not be set for readinessProbes");
            }
        } else if success.int() != 1 {
            errors.invalid(&success, "must be 1");
        }
    }
}

fn common(probe: &Field, grace: Option<i64>, errors: &mut Errors) {
    handler(probe, PROBE_HANDLERS, grace, errors);
    for seconds in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        nonnegative(&probe.at(seconds), errors);
    }
    let own_grace = probe.at("terminationGracePeriodSeconds");
    if own_grace.is_set() && own_grace.int() <= 0 {
        errors.invalid(&own_grace, "must be greater than 0");
    }
}

/// Checks a container's `lifecycle`.
pub fn lifecycle(lifecycle: &Field, grace: Option<i64>, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.at(hook);
        if hook.is_set() {
            handler(&hook, HOOK_HANDLERS, grace, errors);
        }
    }
}

fn handler(place: &Field, kinds: &[&str], grace: Option<i64>, errors: &mut Errors) {
    let mut found = false;
    for kind in kinds {
        let action = place.at(kind);
        if action.is_unset() {
            continue;
        }
        if found {
            errors.forbidden(&action, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" => {
                required(&action.at("command"), errors);
            }
            "httpGet" => http_get(&action, errors),
            "sleep" => sleep(&action, grace, errors),
            "grpc" => {
                let port = action.at("port");
                in_range(&port.with(&port.int().into()), 1, 65535, errors);
            }
            _ => checks::port_number_or_name(&action.at("port"), errors),
        }
    }
    if !found {
        errors.required(place, "must specify a handler type");
    }
}

fn http_get(action: &Field, errors: &mut Errors) {
    required(&action.at("path"), errors);
    checks::port_number_or_name(&action.at("port"), errors);
    checks::one_of(&action.at("scheme"), &["HTTP", "HTTPS"], errors);
    let headers = action.at("httpHeaders");
    for header in headers.value.items() {
        let name = header["name"].str();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.invalid(&headers.with(&name.into()), why);
        }
    }
}

fn sleep(action: &Field, grace: Option<i64>, errors: &mut Errors) {
    let Some(grace) = grace else { return };
    let seconds = action.value["seconds"].int();
    if !(0..=grace).contains(&seconds) {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(&action.with(&seconds.into()), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::texts;
    use canopus_api::{Value, value};

    #[test]
    fn handlers() {
        let cases: Vec<(Value, &[&str])> = vec![
            (value!({"livenessProbe": {"exec": {"command": ["x"]}, "successThreshold": 1}}), &[]),
            (
                value!({"livenessProbe": {"successThreshold": 2}}),
                &[
                    "c.livenessProbe: Required value: must specify a handler type",
                    "c.livenessProbe.successThreshold: Invalid value: 2: must be 1",
                ],
            ),
            (
                value!({"readinessProbe": {"httpGet": {"path": "/", "port": 0, "scheme": "http"}, "terminationGracePeriodSeconds": 1}}),
                &[
                    "c.readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    r#"c.readinessProbe.httpGet.scheme: Unsupported value: "http": supported values: "HTTP", "HTTPS""#,
                    "c.readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
                ],
            ),
            (
                value!({"startupProbe": {"tcpSocket": {"port": "web"}, "grpc": {"port": 1}, "successThreshold": 1, "periodSeconds": -1}}),
                &[
                    "c.startupProbe.grpc: Forbidden: may not specify more than 1 handler type",
                    "c.startupProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
        ];
        for (container, expected) in cases {
            let root = value!({"c": container});
            let mut errors = Errors::new();
            probes(&Field::root(&root).at("c"), Some(30), &mut errors);
            assert_eq!(texts(&errors), expected);
        }
        let root = value!({"preStop": {"sleep": {"seconds": 31}}});
        let mut errors = Errors::new();
        lifecycle(&Field::root(&root), Some(30), &mut errors);
        assert_eq!(
            texts(&errors),
            ["preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"]
        );
    }
}
