use super::*;

fn read(body: &str) -> Result<Configuration, String> {
    let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{body}");
    Configuration::parse(&text, &["https://own".into()])
}

fn jwt(issuer: &str, rest: &str) -> String {
    let username =
        if rest.contains("username:") { "" } else { ", claimMappings: {username: {claim: sub, prefix: ''}}" };
    format!("jwt: [{{issuer: {{{issuer}}}{username}{rest}}}]")
}

#[test]
fn what_may_be_said() {
    let issuer = "url: 'https://x', audiences: [a]";
    for good in [
        String::new(),
        jwt(issuer, ""),
        jwt("url: 'https://x', audiences: [a, b], audienceMatchPolicy: MatchAny, discoveryURL: 'https://y/z'", ""),
        jwt(issuer, ", claimMappings: {username: {expression: \"claims.email_verified ? claims.email : ''\"}}"),
        jwt(
            issuer,
            ", claimMappings: {username: {claim: sub, prefix: 'x:'}, groups: {expression: 'claims.g'}, uid: {claim: u}, extra: [{key: a.b/c, valueExpression: claims.x}]}",
        ),
        jwt(
            issuer,
            ", userValidationRules: [{expression: \"user.extra.exists(k, k == 'a') && user.username != 'x'\", message: m}]",
        ),
    ] {
        assert!(read(&good).is_ok(), "{good}: {:?}", read(&good).err());
    }
    let expression = "issuer: {url: 'https://x', audiences: [a]}";
    for (bad, why) in [
        ("jwts: []".to_string(), "strict decoding error: unknown field \"jwts\""),
        (jwt("url: '', audiences: [a]", ""), "jwt[0].issuer.url: Required value"),
        (
            jwt("url: 'http://x', audiences: [a]", ""),
            "jwt[0].issuer.url: Invalid value: \"http://x\": URL scheme must be https",
        ),
        (
            jwt("url: 'https://a@x', audiences: [a]", ""),
            "jwt[0].issuer.url: Invalid value: \"https://a@x\": URL must not contain a username or password",
        ),
        (
            jwt("url: 'https://x?q=1', audiences: [a]", ""),
            "jwt[0].issuer.url: Invalid value: \"https://x?q=1\": URL must not contain a query",
        ),
        (
            jwt("url: 'https://x#f', audiences: [a]", ""),
            "jwt[0].issuer.url: Invalid value: \"https://x#f\": URL must not contain a fragment",
        ),
        (
            jwt("url: 'https://own', audiences: [a]", ""),
            "jwt[0].issuer.url: Invalid value: \"https://own\": URL must not overlap with disallowed issuers: [https://own]",
        ),
        (
            jwt("url: 'https://x', discoveryURL: 'https://x/', audiences: [a]", ""),
            "jwt[0].issuer.discoveryURL: Invalid value: \"https://x/\": discoveryURL must be different from URL",
        ),
        (
            jwt("url: 'https://x'", ""),
            "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
        ),
        (
            jwt("url: 'https://x', audiences: [a, b]", ""),
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences",
        ),
        (
            jwt("url: 'https://x', audiences: [a], certificateAuthority: junk", ""),
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\": data does not contain any valid RSA or ECDSA certificates",
        ),
        (
            jwt(issuer, ", claimMappings: {username: {claim: sub}}"),
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
        ),
        (
            format!("jwt: [{{{expression}}}]"),
            "jwt[0].claimMappings.username: Required value: claim or expression is required",
        ),
        (
            jwt(issuer, ", claimMappings: {username: {expression: 'claims.email'}}"),
            "claims.email_verified must be used in",
        ),
        (
            jwt(issuer, ", claimMappings: {username: {expression: 'claim.sub'}}"),
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'claim'",
        ),
        (
            jwt(issuer, ", claimValidationRules: [{expression: \"'x'\"}]"),
            "jwt[0].claimValidationRules[0].expression: Invalid value: \"'x'\": must evaluate to bool",
        ),
        (
            jwt(issuer, ", claimValidationRules: [{claim: a, message: m}]"),
            "jwt[0].claimValidationRules[0].message: Invalid value: \"m\": may not be specified when claim is set",
        ),
        (
            jwt(issuer, ", claimValidationRules: [{}]"),
            "jwt[0].claimValidationRules[0]: Required value: claim or expression is required",
        ),
        (jwt(issuer, ", userValidationRules: [{expression: 'user.nam == 1'}]"), "undefined field 'nam'"),
        (
            jwt(
                issuer,
                ", claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: k8s.io/x, valueExpression: claims.x}]}",
            ),
            "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
        ),
        (
            "anonymous: {enabled: false, conditions: [{path: /livez}]}".into(),
            "enabled should be set to true when conditions are defined",
        ),
    ] {
        let said = read(&bad).err().unwrap_or_default();
        assert!(said.contains(why), "{bad}\n{said}");
    }
}

#[test]
fn one_issuer_once() {
    let entry = "{issuer: {url: 'https://x', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}";
    let twice = read(&format!("jwt: [{entry}, {entry}]")).err();
    assert_eq!(twice.as_deref(), Some("jwt[1].issuer.url: Duplicate value: \"https://x\""));
    let many = vec![entry; 65].join(", ");
    let many = read(&format!("jwt: [{many}]")).err();
    assert_eq!(many.as_deref(), Some("jwt: Too many: 65: must have at most 64 items"));
}

#[test]
fn who_may_come_without_a_name() {
    let anonymous = |body| read(body).unwrap().anonymous;
    assert_eq!(anonymous("jwt: []"), None);
    assert_eq!(anonymous("anonymous: {enabled: false}"), Some(Anonymous { enabled: false, paths: vec![] }));
    let paths = vec!["/livez".to_string()];
    assert_eq!(
        anonymous("anonymous: {enabled: true, conditions: [{path: /livez}]}"),
        Some(Anonymous { enabled: true, paths })
    );
}
