use super::*;

#[test]
fn the_token_is_mounted_where_it_is_missing() {
    let mut spec = value!({
        "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}],
        "initContainers": [{"name": "i"}],
    });
    mount_token(&mut spec, || "kube-api-access-abcde".into());
    let mount = value!([{"name": "kube-api-access-abcde", "readOnly": true, "mountPath": MOUNT_PATH}]);
    assert_eq!(spec["containers"][0]["volumeMounts"], mount);
    assert_eq!(spec["containers"][1]["volumeMounts"].items().len(), 1);
    assert_eq!(spec["initContainers"][0]["volumeMounts"], mount);
    assert_eq!(spec["volumes"], value!([{"name": "kube-api-access-abcde", "projected": token_source()}]));
    let once = spec.clone();
    mount_token(&mut spec, || "kube-api-access-other".into());
    assert_eq!(spec, once);
}

#[test]
fn who_decides_about_mounting() {
    let wish = |wish: Option<bool>| value!({"automountServiceAccountToken": wish});
    let cases =
        [(None, None, true), (None, Some(false), false), (Some(true), Some(false), true), (Some(false), None, false)];
    for (pod, account, expected) in cases {
        assert_eq!(should_mount(&wish(pod), &wish(account)), expected, "{pod:?} {account:?}");
    }
}

#[test]
fn secrets_may_be_limited() {
    let account =
        value!({"metadata": {"name": "sa"}, "secrets": [{"name": "ok"}], "imagePullSecrets": [{"name": "pull"}]});
    let env = |name: &str| value!({"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": name}}}]});
    let no = "is not allowed because service account sa does not reference that";
    let cases = [
        (
            value!({"volumes": [{"secret": {"secretName": "ok"}}], "imagePullSecrets": [{"name": "pull"}]}),
            false,
            String::new(),
        ),
        (
            value!({"volumes": [{"secret": {"secretName": "x"}}]}),
            false,
            format!("volume with secret.secretName=\"x\" {no} secret"),
        ),
        (
            value!({"containers": [env("x")]}),
            false,
            format!("container c with envVar E referencing secret.secretName=\"x\" {no} secret"),
        ),
        (value!({"containers": [env("x")]}), true, String::new()),
        (
            value!({"ephemeralContainers": [env("x")]}),
            true,
            format!("ephemeral container c with envVar E referencing secret.secretName=\"x\" {no} secret"),
        ),
        (
            value!({"imagePullSecrets": [{"name": "x"}]}),
            false,
            format!("imagePullSecrets[0].name=\"x\" {no} imagePullSecret"),
        ),
    ];
    for (spec, ephemeral, expected) in cases {
        let pod = value!({"spec": spec});
        assert_eq!(limit_secrets(&pod, &account, ephemeral).err().unwrap_or_default(), expected);
    }
}
