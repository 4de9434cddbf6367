use super::*;

fn read(authorizers: &str) -> Result<Vec<String>, String> {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{authorizers}]"
    );
    let shown = |c: Configured| match c {
        Configured::Webhook(_, o) => {
            format!(
                "{} {} {:?} {:?} {:?} {}",
                o.name, o.version, o.timeout, o.authorized_ttl, o.unauthorized_ttl, o.deny_on_error
            )
        }
        other => other.kind().to_string(),
    };
    parse(&text).map(|all| all.into_iter().map(shown).collect())
}

const WEBHOOK: &str = "timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /etc/hostname}";

fn webhook(rest: &str) -> String {
    format!("{{type: Webhook, name: w, webhook: {{{rest}}}}}")
}

#[test]
fn in_order_with_defaults() {
    let all = format!("{{type: Node, name: node}}, {}, {{type: RBAC, name: rbac}}", webhook(WEBHOOK));
    assert_eq!(read(&all), Ok(vec!["Node".into(), "w v1 3s 300s 30s true".into(), "RBAC".into()]));
    let never = webhook(&format!("{WEBHOOK}, cacheAuthorizedRequests: false, unauthorizedTTL: 1m30s"));
    assert_eq!(read(&never), Ok(vec!["w v1 3s 0ns 90s true".into()]));
}

#[test]
fn what_is_wrong() {
    let with = |from: &str, to: &str| webhook(&WEBHOOK.replace(from, to));
    let condition = |source: &str| {
        webhook(&format!(
            "{WEBHOOK}, matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{{expression: \"{source}\"}}]"
        ))
    };
    assert!(read(&condition("has(request.resourceAttributes) && request.user.startsWith('x')")).is_ok());
    for (all, why) in [
        (String::new(), "authorizers: Required value: at least one authorization mode must be defined"),
        ("{name: x}".into(), "authorizers[0].type: Required value"),
        (
            "{type: ABAC, name: abac}".into(),
            "authorizers[0].type: Unsupported value: \"ABAC\": supported values: \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"",
        ),
        ("{type: RBAC, name: rbac}, {type: RBAC, name: r}".into(), "authorizers[1].type: Duplicate value: \"RBAC\""),
        ("{type: RBAC, name: x}".into(), "expected name rbac for authorizer RBAC instead of x"),
        ("{type: RBAC}".into(), "authorizers[0].name: Required value"),
        ("{type: Webhook, name: w}".into(), "authorizers[0].webhook: Required value: required when type=Webhook"),
        (
            "{type: RBAC, name: rbac, webhook: {timeout: 1s}}".into(),
            "authorizers[0].webhook: Invalid value: \"non-null\": may only be specified when type=Webhook",
        ),
        (
            with("timeout: 3s", "timeout: 31s"),
            "authorizers[0].timeout: Invalid value: \"31s\": must be > 0s and <= 30s",
        ),
        (with("timeout: 3s, ", ""), "authorizers[0].timeout: Required value"),
        (
            with("Version: v1", "Version: v2"),
            "authorizers[0].subjectAccessReviewVersion: Unsupported value: \"v2\": supported values: \"v1\", \"v1beta1\"",
        ),
        (
            with("Deny", "Ignore"),
            "authorizers[0].failurePolicy: Unsupported value: \"Ignore\": supported values: \"NoOpinion\", \"Deny\"",
        ),
        (
            with("/etc/hostname", "x"),
            "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"x\": must be an absolute path",
        ),
        (with("/etc/hostname", "/etc"), "must be a regular file"),
        (
            webhook(&format!("{WEBHOOK}, matchConditions: [{{expression: 'true'}}]")),
            "authorizers[0].matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified",
        ),
        (condition("request.usr == 'x'"), "undefined field 'usr'"),
        (condition("request.user"), "must evaluate to bool but got string"),
    ] {
        let said = read(&all).err().unwrap_or_default();
        assert!(said.contains(why), "{all}\n{said}");
    }
}

#[test]
fn modes_of_flags() {
    let webhook = value!({"connectionInfo": {"kubeConfigFile": "/x"}, "subjectAccessReviewVersion": "v1beta1"});
    let read = |modes: &[&str], webhook: &Value| {
        let modes: Vec<String> = modes.iter().map(|m| m.to_string()).collect();
        let policies = modes.iter().any(|m| m == "ABAC").then(|| Policies::parse("p", "{}").unwrap());
        of_modes(&modes, policies, webhook).map(|all| all.iter().map(Configured::kind).collect::<Vec<_>>())
    };
    assert_eq!(read(&["Node", "RBAC"], &Value::Null), Ok(vec!["Node", "RBAC"]));
    assert_eq!(read(&["Webhook", "AlwaysDeny"], &webhook), Ok(vec!["Webhook", "AlwaysDeny"]));
    assert_eq!(read(&["Node", "ABAC", "RBAC"], &Value::Null), Ok(vec!["Node", "ABAC", "RBAC"]));
    let policies = || Policies::parse("p", "{}").ok();
    assert!(of_modes(&["ABAC".into()], None, &Value::Null).is_err());
    assert!(of_modes(&["RBAC".into()], policies(), &Value::Null).is_err());
    for (modes, webhook) in [
        (&["Webhook"][..], &Value::Null),
        (&["RBAC"], &webhook),
        (&["RBAC", "RBAC"], &Value::Null),
        (&["X"], &Value::Null),
    ] {
        assert!(read(modes, webhook).is_err(), "{modes:?}");
    }
}
