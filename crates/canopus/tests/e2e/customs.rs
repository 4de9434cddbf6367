//! Definitions in the shapes that operators bring: certificates with rules and defaults, workflows and applications that keep
//! what nobody knows, whole objects in others.

use crate::space::{Space, has_lines};
use canopus_testkit::Cluster;

const DEFINITIONS: &str = include_str!("customs/definitions.yaml");
const OBJECTS: &str = include_str!("customs/objects.yaml");

pub fn of_operators(c: &Cluster) {
    let s = Space::new(c, "customs");
    s.apply(DEFINITIONS);
    for name in ["certificates.certs", "issuers.certs", "workflows.flow", "applications.flow"] {
        s.k(&["wait", "--for=condition=Established", "crd", &format!("{name}.example.com"), "--timeout=20s"]);
    }
    s.apply(OBJECTS);
    assert_eq!(s.kubectl_with(&["diff", "-f", "-"], OBJECTS).code, 0, "what was applied is what there is");
    let again = s.kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], OBJECTS);
    assert_eq!(again.code, 0, "{again:?}");
    looks(&s);
    changes(&s);
    s.k(&["create", "quota", "q", "--hard=count/certificates.certs.example.com=1"]);
    s.wait_for("quota q", "{.status.used.count/certificates\\.certs\\.example\\.com}", "1");
    let second = OBJECTS.replace("name: web}", "name: web2}");
    s.refused(&["create", "-f", "-"], &second, "exceeded quota: q, requested: count/certificates.certs.example.com=1");
    s.kubectl_with(&["delete", "--wait", "-f", "-"], DEFINITIONS);
    s.refused(&["get", "certificates.certs.example.com"], "", "the server doesn't have a resource type");
}

fn looks(s: &Space) {
    has_lines(&s.k(&["get", "certs"]), &["certificate.certs.example.com/web web-tls", "issuer.certs.example.com/le"]);
    has_lines(&s.k(&["get", "crt", "-o", "wide"]), &["NAME READY SECRET ISSUER STATUS AGE", "web web-tls le"]);
    has_lines(
        &s.k(&["explain", "certificates.certs.example.com.spec.issuerRef", "--recursive"]),
        &["name <string> -required-", "kind <string>", "enum: Issuer, ClusterIssuer"],
    );
    has_lines(&s.k(&["explain", "applications.spec.source.manifest"]), &["metadata <ObjectMeta>"]);
    for (host, count) in [("le", 1), ("other", 0)] {
        let found = s.k(&["get", "crt", "-o", "name", "--field-selector", &format!("spec.issuerRef.name={host}")]);
        assert_eq!(found.lines().count(), count, "{found}");
    }
    // Defaults, within defaults too.
    let key = s.see("crt web", "{.spec.privateKey.algorithm} {.spec.privateKey.rotationPolicy} {.spec.isCA}");
    assert_eq!(key, "RSA Always false");
    assert_eq!(s.see("wf hello", "{.spec.templates[0].steps[0][0].arguments.parameters[0].value}"), "1");
    assert_eq!(s.see("app guestbook", "{.spec.source.manifest.data.k} {.spec.source.helm.maxHistory}"), "v 10%");
    assert_eq!(s.see("app guestbook", "{.spec.source.kustomize.replicas[*].count}"), "3 4");
}

fn changes(s: &Space) {
    let refused: &[(&str, &str, &str)] = &[
        ("crt/web", r#"{"issuerRef":{"name":"x"}}"#, r#"spec.issuerRef.name: Invalid value: "x": issuer is immutable"#),
        (
            "crt/web",
            r#"{"renewBefore":"9999h"}"#,
            "spec.renewBefore: Invalid value: renewBefore 9999h must be shorter than duration 2160h",
        ),
        (
            "crt/web",
            r#"{"renewBeforePercentage":3}"#,
            "spec: Invalid value: only one of renewBefore and renewBeforePercentage",
        ),
        ("crt/web", r#"{"usages":["server auth","server auth"]}"#, r#"spec.usages[1]: Duplicate value: "server auth""#),
        (
            "crt/web",
            r#"{"additionalOutputFormats":[{"type":"DER"},{"type":"DER"}]}"#,
            r#"spec.additionalOutputFormats[1]: Duplicate value: {"type":"DER"}"#,
        ),
        ("app/guestbook", r#"{"source":{"manifest":{"kind":null}}}"#, "spec.source.manifest.kind: Required value"),
        (
            "app/guestbook",
            r#"{"source":{"helm":{"maxHistory":1.5}}}"#,
            "spec.source.helm.maxHistory in body must be of type integer,string",
        ),
        ("wf/hello", r#""x""#, "spec in body must be of type object"),
    ];
    for (what, spec, why) in refused {
        s.refused(&["patch", what, "--type=merge", "-p", &format!(r#"{{"spec":{spec}}}"#)], "", why);
    }
    s.refused(&["patch", "crt", "web", "-p", "{}"], "", "application/strategic-merge-patch+json is not supported");
    let unknown = OBJECTS.replace("secretName: web-tls", "secretName: web-tls\n  nope: 1");
    s.refused(&["apply", "-f", "-"], &unknown, r#"unknown field "spec.nope""#);
    let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True","message":"up to date"}]}}"#;
    s.k(&["patch", "crt", "web", "--subresource=status", "--type=merge", "-p", ready]);
    s.k(&["wait", "crt/web", "--for=condition=Ready", "--timeout=10s"]);
    has_lines(&s.k(&["get", "crt", "-o", "wide"]), &["web True web-tls le up to date"]);
    let edited = s.edit(&["crt", "web"], "s/web-tls/web-tls2/");
    assert_eq!(edited.code, 0, "{edited:?}");
    assert_eq!(s.see("crt web", "{.spec.secretName} {.metadata.generation}"), "web-tls2 2");
}
