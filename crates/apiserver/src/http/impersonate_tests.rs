use super::*;
use crate::testing::server;
use canopus_api::{Gvr, Target, Value, WriteOptions, value};

async fn grant(server: &Arc<Server>, user: &str, rules: Value) {
    let admin = User::new("admin", &[MASTERS]);
    let group = "rbac.authorization.k8s.io";
    let name = user.replace(':', "-");
    let role = value!({"metadata": {"name": &name}, "rules": rules});
    let subjects = value!([{"kind": "User", "name": user, "apiGroup": group}]);
    let role_ref = value!({"kind": "ClusterRole", "name": &name, "apiGroup": group});
    let binding = value!({"metadata": {"name": &name}, "subjects": subjects, "roleRef": role_ref});
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let target = Target::new(&Gvr::new(group, "v1", plural), "", &name);
        let written = server.create(&admin, &target, object, &WriteOptions::default()).await.unwrap();
        let cache = server.cache(group, "v1", plural).unwrap();
        cache.reached(written.object.revision).await.unwrap();
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(k, v)| (http::HeaderName::from_static(k), http::HeaderValue::from_static(v))).collect()
}

async fn ask(server: &Server, user: &User, pairs: &[(&'static str, &'static str)]) -> Result<Option<Impersonated>> {
    let target = Target::new(&Gvr::new("", "v1", "pods"), "ns", "");
    resolve(server, &Attributes::target(user, "list", &target), &headers(pairs)).await
}

#[tokio::test]
async fn with_the_right_to_be_anybody() {
    let server = server().await;
    let admin = User::new("admin", &[MASTERS]);
    assert!(ask(&server, &admin, &[]).await.unwrap().is_none());
    let be = async |pairs: &[(&'static str, &'static str)]| ask(&server, &admin, pairs).await.map(|i| i.unwrap().user);
    let user = be(&[("impersonate-user", "jane"), ("impersonate-group", "a"), ("impersonate-uid", "1")]).await.unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "1"));
    assert_eq!(user.groups, ["a", "system:authenticated"]);
    let user = be(&[("impersonate-user", "system:serviceaccount:ns:sa")]).await.unwrap();
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
    let user = be(&[("impersonate-user", "system:anonymous")]).await.unwrap();
    assert_eq!(user.groups, ["system:unauthenticated"]);
    let user =
        be(&[("impersonate-user", "x"), ("impersonate-extra-a%2fb", "1"), ("impersonate-extra-a%2fb", "2")]).await;
    assert_eq!(user.unwrap().extra, [("a/b".into(), vec!["1".into(), "2".into()])]);
    let nameless = be(&[("impersonate-group", "system:masters")]).await.unwrap_err();
    let described =
        "&user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"system:masters\"}, Extra:map[string][]string(nil)}";
    assert_eq!(
        (nameless.code, nameless.message),
        (400, format!("requested {described} without impersonating a user name"))
    );
    let injected = [("impersonate-user", "jane\u{7f}")];
    assert!(http::HeaderValue::from_bytes(b"a\r\nImpersonate-Group: system:masters").is_err());
    assert!(std::panic::catch_unwind(|| headers(&injected)).is_err(), "no such header can exist");
}

#[tokio::test]
async fn within_limits() {
    let server = server().await;
    let api = value!(["authentication.k8s.io"]);
    grant(
        &server,
        "helper",
        value!([
            {"apiGroups": api.clone(), "resources": ["users", "groups"], "verbs": ["impersonate:user-info"], "resourceNames": ["jane", "dev"]},
            {"apiGroups": api, "resources": ["nodes"], "verbs": ["impersonate:arbitrary-node"], "resourceNames": ["n1"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["impersonate-on:user-info:list", "impersonate-on:arbitrary-node:list"]},
        ]),
    )
    .await;
    let helper = User::new("helper", &[]);
    let jane =
        ask(&server, &helper, &[("impersonate-user", "jane"), ("impersonate-group", "dev")]).await.unwrap().unwrap();
    assert_eq!(jane.constraint, "impersonate:user-info");
    let node = ask(&server, &helper, &[("impersonate-user", "system:node:n1")]).await.unwrap().unwrap();
    assert_eq!(node.user.groups, ["system:nodes", "system:authenticated"]);
    let refused: [&[(&'static str, &'static str)]; 5] = [
        &[("impersonate-user", "joe")],
        &[("impersonate-user", "jane"), ("impersonate-group", "system:masters")],
        &[("impersonate-user", "jane"), ("impersonate-uid", "1")],
        &[("impersonate-user", "system:node:n2")],
        &[("impersonate-user", "system:serviceaccount:ns:sa")],
    ];
    for pairs in refused {
        assert_eq!(ask(&server, &helper, pairs).await.err().unwrap().code, 403, "{pairs:?}");
    }
    let target = Target::new(&Gvr::new("", "v1", "secrets"), "ns", "");
    let secrets = Attributes::target(&helper, "list", &target);
    let refused = resolve(&server, &secrets, &headers(&[("impersonate-user", "jane")])).await.err().unwrap();
    assert_eq!(
        refused.message,
        r#"secrets is forbidden: User "helper" cannot impersonate-on:user-info:list resource "secrets" in API group "" in the namespace "ns""#
    );
}
