use super::*;
use crate::authz::always::AlwaysAllow;
use crate::authz::{Step, Union};
use crate::outgoing::Trust;
use crate::testing::{listen, server};
use crate::user::User;
use canopus_api::{FieldSelector, Gvr, LabelSelector, Target};
use std::sync::atomic::{AtomicUsize, Ordering};

fn options(conditions: &[&str]) -> Options {
    Options {
        name: "w".into(),
        version: "v1".into(),
        timeout: Duration::from_secs(3),
        authorized_ttl: Duration::from_secs(60),
        unauthorized_ttl: Duration::ZERO,
        deny_on_error: false,
        conditions: Conditions::of(conditions.iter().copied()).unwrap(),
    }
}

/// One that lets ann do everything, denies bob, contradicts itself about eve, breaks for mallory and knows nobody else.
async fn webhook(options: Options, asked: Arc<AtomicUsize>) -> Arc<Webhook> {
    let (port, ca, _) = listen(move |parts, review| {
        asked.fetch_add(1, Ordering::Relaxed);
        assert_eq!(parts.uri.query(), Some("timeout=3s"));
        let status = match review["spec"]["user"].str() {
            "ann" => value!({"allowed": true, "reason": "ann"}),
            "bob" => value!({"allowed": false, "denied": true, "reason": "not bob"}),
            "eve" => value!({"allowed": true, "denied": true}),
            "mallory" => return (404, "no".into()),
            "echo" => value!({"allowed": false, "reason": json::to_string(&review["spec"])}),
            _ => value!({"allowed": false, "reason": "who?"}),
        };
        let mut answer = review.clone();
        answer.set("status", status);
        (200, json::to_string(&answer))
    })
    .await;
    let to = Destination::url(&format!("https://localhost:{port}/"), Trust::bundle(ca.as_bytes())).unwrap();
    Arc::new(Webhook::new(to, options))
}

#[tokio::test]
async fn what_it_says() {
    let (server, asked) = (server().await, Arc::new(AtomicUsize::new(0)));
    let webhook = webhook(options(&[]), asked.clone()).await;
    let only = Union::new(vec![Step::Remote(webhook.clone())]);
    let or_all = Union::new(vec![Step::Remote(webhook), Step::Local(Box::new(AlwaysAllow))]);
    let target = Target::new(&Gvr::new("", "v1", "pods"), "ns", "");
    let ask = async |union: &Union, name: &str| {
        let user = User::new(name, &[]);
        let verdict = union.authorize(&server, &Attributes::target(&user, "list", &target)).await;
        (verdict.decision, verdict.error.unwrap_or_default())
    };
    for _ in 0..2 {
        assert_eq!(ask(&only, "ann").await, (Decision::Allow("ann".into()), String::new()));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "kept");
    for _ in 0..2 {
        assert_eq!(ask(&or_all, "bob").await, (Decision::Deny("not bob".into()), String::new()));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3, "not kept");
    assert_eq!(ask(&only, "joe").await, (Decision::NoOpinion("who?".into()), String::new()));
    assert_eq!(ask(&or_all, "joe").await, (Decision::Allow(String::new()), String::new()));
    let both = "webhook subject access review returned both allow and deny response";
    assert_eq!(ask(&only, "eve").await, (Decision::Deny(String::new()), both.into()));
    let lost = "the server could not find the requested resource";
    assert_eq!(ask(&only, "mallory").await, (Decision::NoOpinion(String::new()), lost.into()));
    assert_eq!(ask(&or_all, "mallory").await, (Decision::Allow(String::new()), String::new()));
    assert_eq!(
        only.rules(&User::new("ann", &[]), "ns").errors,
        ["webhook authorizer does not support user rule resolution"]
    );
}

#[tokio::test]
async fn what_it_is_asked() {
    let server = server().await;
    let v1 = webhook(options(&[]), Arc::default()).await;
    let old = webhook(Options { version: "v1beta1".into(), ..options(&[]) }, Arc::default()).await;
    let user = User {
        name: "echo".into(),
        uid: "1".into(),
        groups: vec!["g".into()],
        extra: vec![("k".into(), vec!["v".into()])],
    };
    let target = Target::new(&Gvr::new("apps", "v1", "deployments"), "ns", "x");
    let fields = FieldSelector::parse("spec.nodeName=n,metadata.name!=m").unwrap();
    let labels = LabelSelector::parse("a in (b,c),!d,e>1").unwrap();
    let selected = Attributes {
        fields: &fields.terms,
        labels: labels.requirements(),
        ..Attributes::target(&user, "list", &target)
    };
    let path = Attributes::path(&user, "get", "/healthz");
    let ask = async |webhook: &Webhook, attributes: &Attributes<'_>| {
        webhook.authorize(&server, attributes).await.decision.into_reason()
    };
    let who = r#""uid":"1","user":"echo""#;
    assert_eq!(
        ask(&v1, &selected).await,
        format!(
            r#"{{"extra":{{"k":["v"]}},"groups":["g"],"resourceAttributes":{{"fieldSelector":{{"requirements":[{{"key":"spec.nodeName","operator":"In","values":["n"]}},{{"key":"metadata.name","operator":"NotIn","values":["m"]}}]}},"group":"apps","labelSelector":{{"requirements":[{{"key":"a","operator":"In","values":["b","c"]}},{{"key":"d","operator":"DoesNotExist"}}]}},"name":"x","namespace":"ns","resource":"deployments","verb":"list","version":"v1"}},{who}}}"#
        )
    );
    assert_eq!(
        ask(&old, &path).await,
        format!(
            r#"{{"extra":{{"k":["v"]}},"group":["g"],"nonResourceAttributes":{{"path":"/healthz","verb":"get"}},{who}}}"#
        )
    );
}

#[tokio::test]
async fn only_what_is_its_business() {
    let (server, asked) = (server().await, Arc::new(AtomicUsize::new(0)));
    let conditions = ["has(request.resourceAttributes)", "request.resourceAttributes.namespace == 'ns'"];
    let some = webhook(options(&conditions), asked.clone()).await;
    let broken = Options { deny_on_error: true, ..options(&["request.extra['none'][0] == 'x'"]) };
    let broken = webhook(broken, asked.clone()).await;
    let ann = User::new("ann", &[]);
    let within = |namespace: &str| Target::new(&Gvr::new("", "v1", "pods"), namespace, "");
    let (inside, outside) = (within("ns"), within("other"));
    let ask = async |webhook: &Webhook, attributes: &Attributes<'_>| webhook.authorize(&server, attributes).await;
    let none = Verdict::from(Decision::NoOpinion(String::new()));
    assert_eq!(ask(&some, &Attributes::path(&ann, "get", "/")).await, none);
    assert_eq!(ask(&some, &Attributes::target(&ann, "get", &outside)).await, none);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(ask(&some, &Attributes::target(&ann, "get", &inside)).await, Decision::Allow("ann".into()).into());
    let refused = ask(&broken, &Attributes::target(&ann, "get", &inside)).await;
    assert_eq!(refused.decision, Decision::Deny(String::new()));
    assert!(refused.error.unwrap().starts_with("cel evaluation error: expression"));
    let mut metrics = String::new();
    server.metrics.authorization.write(&mut metrics);
    for line in [
        r#"apiserver_authorization_webhook_evaluations_total{name="w",result="success"} 1"#,
        r#"apiserver_authorization_match_condition_exclusions_total{name="w",type="Webhook"} 2"#,
        r#"apiserver_authorization_match_condition_evaluation_errors_total{name="w",type="Webhook"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_cannot_wait_get_an_answer_too() {
    let server = server().await;
    let webhook = webhook(options(&[]), Arc::default()).await;
    server.gates.set_authorizer(Union::new(vec![Step::Remote(webhook)])).unwrap();
    let ann = User::new("ann", &[]);
    let verdict = server.verdict_now(&Attributes::path(&ann, "get", "/")).unwrap();
    assert_eq!(verdict.decision, Decision::Allow("ann".into()));
}
