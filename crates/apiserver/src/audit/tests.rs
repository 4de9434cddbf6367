use super::*;
use crate::testing::{listen, server};
use crate::user::MASTERS;
use canopus_api::{Gvr, Target};
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn audit(policy: &str, path: &Path) -> Arc<Audit> {
    let policy = Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{policy}]\n")).unwrap();
    let log = Log::open(log::Options { path: path.into(), ..log::Options::default() }).unwrap();
    let clock = Arc::new(crate::testing::At(1_800_000_000));
    Arc::new(Audit { policy, log: Some(log), webhook: None, clock, counts: Counts::default() })
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| json::parse(line.as_bytes()).unwrap()).collect()
}

fn incoming<'a>(headers: &'a HeaderMap) -> Incoming<'a> {
    let peer = Some(IpAddr::from([192, 0, 2, 9]));
    Incoming { id: "id-1", uri: "/api/v1/namespaces/ns/pods", headers, peer, received: Time::from_unix(1_800_000_000) }
}

#[test]
fn an_event_says_who_did_what() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let audit = audit("{level: RequestResponse, omitManagedFields: true}", &path);
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", "k".repeat(1030).parse().unwrap());
    headers.insert("x-forwarded-for", "198.51.100.7, junk".parse().unwrap());
    let (user, target) = (User::new("jane", &["dev"]), Target::new(&Gvr::new("", "v1", "pods"), "ns", ""));
    let record = audit.begin(&Attributes::target(&user, "create", &target), &incoming(&headers)).unwrap();
    record.impersonated(&User::new("joe", &[]), "impersonate:user-info");
    let pod = value!({"metadata": {"name": "p", "managedFields": [{"manager": "m"}]}});
    record.request(&pod);
    record.response(&value!({"items": [pod]}));
    record.status(201, None);
    record.annotate(vec![("authorization.k8s.io/decision".into(), "allow".into())]);
    record.stage(Stage::ResponseComplete);
    let [received, complete] = &lines(&path)[..] else { panic!("two stages") };
    assert_eq!(received["stage"].str(), "RequestReceived");
    assert!(received["responseStatus"].is_null());
    assert_eq!(complete["stage"].str(), "ResponseComplete");
    assert_eq!(complete["auditID"].str(), "id-1");
    assert_eq!(complete["user"]["username"].str(), "jane");
    assert_eq!(complete["impersonatedUser"]["username"].str(), "joe");
    assert_eq!(complete["authenticationMetadata"]["impersonationConstraint"].str(), "impersonate:user-info");
    assert_eq!(complete["sourceIPs"], value!(["198.51.100.7", "192.0.2.9"]));
    assert!(complete["userAgent"].str().ends_with("k...TRUNCATED"));
    let reference = value!({"resource": "pods", "namespace": "ns", "name": "p", "apiVersion": "v1"});
    assert_eq!(complete["objectRef"], reference);
    assert_eq!(complete["requestObject"], value!({"metadata": {"name": "p"}}));
    assert_eq!(complete["responseObject"], value!({"items": [{"metadata": {"name": "p"}}]}));
    assert_eq!(complete["responseStatus"], value!({"metadata": {}, "code": 201}));
    assert_eq!(complete["annotations"]["authorization.k8s.io/decision"].str(), "allow");
    assert_eq!(complete["requestReceivedTimestamp"].str(), "2027-01-15T08:00:00.000000Z");
    let mut text = String::new();
    audit.render(&mut text);
    assert!(text.contains("apiserver_audit_event_total 2\n") && text.contains("{level=\"RequestResponse\"} 1\n"));
}

#[test]
fn levels_and_stages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let rules = "{level: None, users: [quiet]}, {level: Metadata, omitStages: [RequestReceived]}";
    let audit = audit(rules, &path);
    let headers = HeaderMap::new();
    let begin = |user: &User| audit.begin(&Attributes::path(user, "get", "/metrics"), &incoming(&headers));
    assert!(begin(&User::new("quiet", &[])).is_none());
    let record = begin(&User::new("jane", &[])).unwrap();
    record.request(&value!({"metadata": {"name": "p"}}));
    record.response(&value!({}));
    let refused = Status::forbidden(&Gvr::default(), "", "no");
    record.status(403, Some(&refused));
    record.stage(Stage::ResponseComplete);
    let [event] = &lines(&path)[..] else { panic!("one stage") };
    assert!(event["requestObject"].is_null() && event["responseObject"].is_null() && event["objectRef"].is_null());
    assert_eq!(event["responseStatus"]["reason"].str(), "Forbidden");
    assert_eq!(event["responseStatus"]["code"].int(), 403);
}

#[tokio::test]
async fn calls_within_the_process_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let server = server().await;
    let audit = audit("{level: Request, omitStages: [RequestReceived]}", &path);
    assert!(server.audit.set(audit).is_ok());
    let api = crate::LocalApi::shared(server, User::new("system:kube-controller-manager", &[MASTERS]), "m");
    let target = Target::new(&Gvr::new("", "v1", "configmaps"), "default", "c");
    api.create(&target, value!({"metadata": {"name": "c"}, "data": {"k": "v"}}), &Default::default()).await.unwrap();
    assert!(api.get(&Target { name: "missing".into(), ..target }).await.is_err());
    let [created, missing] = &lines(&path)[..] else { panic!("two calls") };
    assert_eq!((created["verb"].str(), created["requestObject"]["data"]["k"].str()), ("create", "v"));
    assert_eq!(created["requestURI"].str(), "/api/v1/namespaces/default/configmaps");
    assert_eq!(missing["requestURI"].str(), "/api/v1/namespaces/default/configmaps/missing");
    assert_eq!(missing["responseStatus"]["code"].int(), 404);
}

#[tokio::test]
async fn a_webhook_is_sent_batches() {
    let (sender, mut batches) = tokio::sync::mpsc::unbounded_channel();
    let (port, ca, _) = listen(move |_, body| {
        let _ = sender.send(body.clone());
        (200, String::new())
    })
    .await;
    let server = server().await;
    let trust = crate::outgoing::Trust::bundle(ca.as_bytes());
    let to = crate::outgoing::Destination::url(&format!("https://localhost:{port}/audit"), trust).unwrap();
    let options = webhook::Options { batch: 2, wait: Duration::from_secs(3600), ..webhook::Options::default() };
    let shutdown = CancellationToken::new();
    let hook = Webhook::start(&server, to, options, shutdown.clone());
    for n in 0..3 {
        hook.send(value!({"auditID": n}));
    }
    let first = batches.recv().await.unwrap();
    assert_eq!((first["kind"].str(), first["items"].items().len()), ("EventList", 2));
    // What is left goes out at the end.
    shutdown.cancel();
    assert_eq!(batches.recv().await.unwrap()["items"], value!([{"auditID": 2}]));
}
