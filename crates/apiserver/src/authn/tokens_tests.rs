use super::*;
use crate::testing::{At, Objects};

const NOW: i64 = 1_800_000_000;

fn tokens(now: i64, key: &str, objects: [&[Value]; 4]) -> ServiceAccountTokens {
    let [accounts, pods, secrets, nodes] = objects.map(|o| Arc::new(Objects::new(o)) as Arc<dyn View>);
    let objects = BoundObjects { accounts, pods, secrets, nodes };
    let key = SigningKey::from_pem(key).unwrap();
    ServiceAccountTokens::new("https://kubernetes.default.svc.cluster.local", vec![], key, Arc::new(At(now)), objects)
}

fn object(name: &str, uid: &str) -> Value {
    value!({"metadata": {"namespace": "ns", "name": name, "uid": uid}})
}

fn claims() -> TokenClaims {
    TokenClaims {
        namespace: "ns".into(),
        service_account: "sa".into(),
        service_account_uid: "u1".into(),
        audiences: vec!["https://kubernetes.default.svc.cluster.local".into()],
        lifetime: Duration::from_secs(3600),
        bound: Some(("Pod".into(), "p".into(), "u2".into())),
        node: Some(("n".into(), "u3".into())),
        ..TokenClaims::default()
    }
}

#[test]
fn a_bound_token_says_who_it_is() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let good = tokens(NOW, &key, [&[object("sa", "u1")], &[object("p", "u2")], &[], &[]]);
    let token = good.issue(claims()).unwrap();
    let headers = http::HeaderMap::new();
    let credentials = Credentials { certificates: &[], token: Some(&token), headers: &headers };
    let user = good.authenticate(&credentials).unwrap().unwrap();
    assert_eq!(user.name, "system:serviceaccount:ns:sa");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
    let extra: Vec<&str> = user.extra.iter().map(|(k, _)| k.rsplit('/').next().unwrap()).collect();
    assert_eq!(extra, ["credential-id", "node-name", "node-uid", "pod-name", "pod-uid"]);
    let (_, audiences) = good.review(&token, &[]).unwrap().unwrap();
    assert_eq!(audiences, good.audiences());
    assert_eq!(good.review("abc", &[]), Ok(None));
}

#[test]
fn a_token_dies() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let (sa, pod) = ([object("sa", "u1")], [object("p", "u2")]);
    let token = tokens(NOW, &key, [&sa, &pod, &[], &[]]).issue(claims()).unwrap();
    let mut deleted = pod.clone();
    deleted[0].set_path(&["metadata", "deletionTimestamp"], Time::from_unix(NOW - 61));
    let other = [String::from("other")];
    type Case<'a> = (i64, [&'a [Value]; 4], &'a [String], &'a str);
    let cases: [Case; 8] = [
        (NOW + 3661, [&sa, &pod, &[], &[]], &[], "service account token has expired"),
        (NOW - 61, [&sa, &pod, &[], &[]], &[], "service account token is not valid yet"),
        (NOW, [&[], &pod, &[], &[]], &[], r#"serviceaccounts "sa" not found"#),
        (NOW, [&[object("sa", "u9")], &pod, &[], &[]], &[], "service account UID (u9) does not match claim (u1)"),
        (NOW, [&sa, &[], &[], &[]], &[], "service account token has been invalidated"),
        (NOW, [&sa, &deleted, &[], &[]], &[], "service account token has been invalidated"),
        (
            NOW,
            [&sa, &[object("p", "u9")], &[], &[]],
            &[],
            "pod UID (u9) does not match service account pod ref claim (u2)",
        ),
        (
            NOW,
            [&sa, &pod, &[], &[]],
            &other,
            r#"token audiences ["https://kubernetes.default.svc.cluster.local"] is invalid for the target audiences ["other"]"#,
        ),
    ];
    for (now, objects, audiences, why) in cases {
        let answer = tokens(now, &key, objects).review(&token, audiences);
        assert_eq!(answer, Err(Unauthenticated(why.into())));
    }
}

#[test]
fn static_tokens() {
    let admin = User::new("admin", &["system:masters"]);
    let tokens = StaticTokens(vec![("secret".into(), admin.clone()), (String::new(), admin.clone())]);
    for (token, known) in [("secret", true), ("secret2", false), ("", false)] {
        assert_eq!(tokens.find(token).is_some(), known, "{token}");
    }
}

#[test]
fn keys_and_issuers_change() {
    let (old, new) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let sa = [object("sa", "u1")];
    let before = tokens(NOW, &old.serialize_pem(), [&sa, &[], &[], &[]]);
    let unbound = TokenClaims { bound: None, node: None, ..claims() };
    let token = before.issue(unbound.clone()).unwrap();
    let after = || tokens(NOW, &new.serialize_pem(), [&sa, &[], &[], &[]]);
    assert!(after().review(&token, &[]).is_err());
    let public = PublicKey::all_from_pem(&old.public_key_pem()).unwrap();
    let both = after().accepting(&["https://before".into()], public);
    assert!(both.review(&token, &[]).unwrap().is_some());
    assert!(both.review(&both.issue(unbound).unwrap(), &[]).unwrap().is_some());
    assert_eq!(both.jwks()["keys"].items().len(), 2);
    assert_eq!(both.openid_configuration()["issuer"].str(), "https://kubernetes.default.svc.cluster.local");
}

#[test]
fn what_a_good_token_misses() {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let (sa, pod) = ([object("sa", "u1")], [object("p", "u2")]);
    let token = tokens(NOW, &key, [&sa, &pod, &[], &[]]).issue(claims()).unwrap();
    let misses = |objects: [&[Value]; 4], token: &str| {
        let tokens = tokens(NOW, &key, objects);
        let refused = tokens.review(token, &[]).is_err();
        (refused, tokens.misses(token))
    };
    assert_eq!(misses([&sa, &pod, &[], &[]], &token), (false, false));
    assert_eq!(misses([&[], &pod, &[], &[]], &token), (true, true));
    assert_eq!(misses([&sa, &[object("p", "u9")], &[], &[]], &token), (true, true));
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert_eq!(misses([&[], &[], &[], &[]], &format!("{signed}.AAAA")), (true, false), "forged");
}
