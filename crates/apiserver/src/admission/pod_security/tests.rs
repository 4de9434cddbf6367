//! What the standards say of pods, and what the plugin makes of it.

use super::*;
use crate::LocalApi;
use crate::notes::{Notes, noting};
use crate::testing::{server, server_with};
use crate::user::{MASTERS, User};
use canopus_api::{Api, Gvr, Patch, Target, value};

/// A pod that even the strictest rules let in, with these fields of its spec changed.
fn pod(change: Value) -> Value {
    let mut pod = value!({"metadata": {"name": "p"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "image": "i", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}});
    change.entries().for_each(|(field, value)| pod.set_path(&["spec", field], value));
    pod
}

fn container(change: Value) -> Value {
    let mut changed = pod(value!({}));
    let one = &mut changed.get_mut("spec").unwrap().get_mut("containers").unwrap().as_array_mut().unwrap()[0];
    change.entries().for_each(|(field, value)| one.set_path(&field.split('.').collect::<Vec<_>>(), value));
    changed
}

fn text(rules: &str, pod: &Value) -> String {
    let (level, version) = rules.split_once(':').unwrap();
    let rules = Rules { level: Level::parse(level).unwrap(), version: Version::parse(version).unwrap() };
    details(&evaluate(rules, &Pod { metadata: &pod["metadata"], spec: &pod["spec"] }))
}

#[test]
fn each_check() {
    let bare = value!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    let own_users = container(value!({"securityContext.procMount": "Unmasked", "securityContext.runAsUser": 0}));
    let own_users = {
        let mut pod = own_users;
        pod.set_path(&["spec", "hostUsers"], false);
        pod
    };
    let mut annotated = pod(value!({}));
    annotated.set_path(&["metadata", "annotations"], value!({
        "seccomp.security.alpha.kubernetes.io/pod": "unconfined", "container.apparmor.security.beta.kubernetes.io/a": "unconfined"}));
    let windows = value!({"spec": {"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]}});
    let cases: &[(&str, Value, &str)] = &[
        ("restricted:latest", pod(value!({})), ""),
        ("baseline:latest", bare.clone(), ""),
        ("privileged:latest", pod(value!({"hostNetwork": true})), ""),
        (
            "restricted:latest",
            bare.clone(),
            r#"allowPrivilegeEscalation != false (containers "a", "b" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers "a", "b" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or containers "a", "b" must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers "a", "b" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ),
        (
            "restricted:v1.7",
            bare,
            r#"runAsNonRoot != true (pod or containers "a", "b" must set securityContext.runAsNonRoot=true)"#,
        ),
        (
            "baseline:latest",
            pod(value!({"hostNetwork": true, "hostIPC": true, "volumes": [{"name": "v", "hostPath": {}}]})),
            r#"host namespaces (hostNetwork=true, hostIPC=true), hostPath volumes (volume "v")"#,
        ),
        (
            "restricted:latest",
            pod(
                value!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}, {"name": "x", "emptyDir": {}}]}),
            ),
            r#"restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")"#,
        ),
        (
            "baseline:latest",
            container(value!({"ports": [{"hostPort": 90}, {"hostPort": 8080}], "securityContext.privileged": true})),
            r#"hostPort (container "a" uses hostPorts 8080, 90), privileged (container "a" must not set securityContext.privileged=true)"#,
        ),
        (
            "baseline:latest",
            container(
                value!({"livenessProbe": {"httpGet": {"host": "h"}}, "securityContext.capabilities.add": ["NET_RAW", "CHOWN"]}),
            ),
            r#"non-default capabilities (container "a" must not include "NET_RAW" in securityContext.capabilities.add), probe or lifecycle host (container "a" uses probe or lifecycle host "h")"#,
        ),
        ("baseline:v1.33", container(value!({"livenessProbe": {"httpGet": {"host": "h"}}})), ""),
        (
            "restricted:latest",
            container(value!({"securityContext.capabilities": {"add": ["CHOWN", "NET_BIND_SERVICE"]}})),
            r#"unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]; container "a" must not include "CHOWN" in securityContext.capabilities.add)"#,
        ),
        (
            "baseline:latest",
            pod(
                value!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u", "role": "r"}, "sysctls": [{"name": "kernel.msgmax"}],
                "windowsOptions": {"hostProcess": true}, "appArmorProfile": {"type": "Unconfined"}, "seccompProfile": {"type": "Unconfined"}}}),
            ),
            r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined"), seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "x"; user may not be set; role may not be set), seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined"), forbidden sysctls (kernel.msgmax), hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"#,
        ),
        (
            "baseline:v1.31",
            pod(value!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}})),
            "forbidden sysctls (net.ipv4.tcp_rmem)",
        ),
        ("baseline:v1.32", pod(value!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}})), ""),
        (
            "restricted:latest",
            pod(
                value!({"securityContext": {"runAsNonRoot": false, "runAsUser": 0, "seccompProfile": {"type": "Localhost"}}}),
            ),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0)",
        ),
        (
            "restricted:latest",
            own_users.clone(),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        ("baseline:latest", own_users.clone(), ""),
        (
            "restricted:v1.34",
            own_users,
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked"), runAsUser=0 (container "a" must not set runAsUser=0)"#,
        ),
        (
            "baseline:v1.18",
            annotated,
            r#"forbidden AppArmor profile (annotation must not set AppArmor profile type to "container.apparmor.security.beta.kubernetes.io/a="unconfined""), seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")"#,
        ),
        ("restricted:v1.25", windows.clone(), ""),
        (
            "restricted:v1.18",
            windows,
            r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)"#,
        ),
    ];
    for (rules, pod, expected) in cases {
        assert_eq!(text(rules, pod), *expected, "{rules} {pod:?}");
    }
}

fn target(group: &str, plural: &str, namespace: &str, name: &str) -> Target {
    Target::new(&Gvr::new(group, "v1", plural), namespace, name)
}

async fn namespace(api: &Arc<dyn Api>, name: &str, labels: Value) -> Result<(), Status> {
    let object = value!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    api.create(&target("", "namespaces", "", ""), object, &Default::default()).await?;
    let account = value!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}, "automountServiceAccountToken": false});
    api.create(&target("", "serviceaccounts", name, ""), account, &Default::default()).await.map(drop)
}

fn whole(name: &str, kind: (&str, &str), spec: Value) -> Value {
    value!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn namespaces_say_what_their_pods_may() {
    let server = server().await;
    let user = User::new("admin", &[MASTERS]);
    let admin = LocalApi::shared(server.clone(), user.clone(), "tests");
    namespace(&admin, "open", value!({})).await.unwrap();
    namespace(&admin, "strict", value!({(policy::ENFORCE): "restricted", (policy::AUDIT): "baseline"})).await.unwrap();
    let root = value!({"containers": [{"name": "c", "image": "i"}]});
    let pods = |ns: &str| target("", "pods", ns, "");
    for name in ["a", "b"] {
        admin.create(&pods("open"), whole(name, ("v1", "Pod"), root.clone()), &Default::default()).await.unwrap();
    }
    let refused =
        admin.create(&pods("strict"), whole("a", ("v1", "Pod"), root.clone()), &Default::default()).await.unwrap_err();
    let starts = r#"pods "a" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities"#;
    assert!(refused.code == 403 && refused.message.starts_with(starts), "{}", refused.message);

    // What makes pods is only warned about.
    let template = value!({"metadata": {"labels": {"a": "b"}}, "spec": root});
    let set =
        whole("d", ("apps/v1", "Deployment"), value!({"selector": {"matchLabels": {"a": "b"}}, "template": template}));
    let notes = Arc::new(Notes::default());
    noting(notes.clone(), server.create(&user, &target("apps", "deployments", "strict", ""), set, &Default::default()))
        .await
        .unwrap();
    let warnings = notes.take_warnings();
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("would violate PodSecurity \"restricted:latest\": "),
        "{warnings:?}"
    );

    // New rules for a namespace that has pods.
    let label = |level: &str| Patch::Merge(value!({"metadata": {"labels": {(policy::ENFORCE): level}}}));
    let notes = Arc::new(Notes::default());
    let open = target("", "namespaces", "", "open");
    noting(notes.clone(), server.patch(&user, &open, label("restricted"), &Default::default())).await.unwrap();
    assert_eq!(
        notes.take_warnings(),
        [
            "existing pods in namespace \"open\" violate the new PodSecurity enforce level \"restricted:latest\"",
            "a (and 1 other pod): allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile",
        ]
    );
    let refused = admin.patch(&open, label("loose"), &Default::default()).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            422,
            "Namespace \"open\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"loose\": must be one of privileged, baseline, restricted"
        )
    );
}

#[tokio::test]
async fn defaults_and_exemptions_are_the_operators() {
    let mut settings = crate::settings::Settings::default();
    settings.pod_security.defaults.enforce = Rules { level: Level::Baseline, version: Version::Latest };
    settings.pod_security.exempt_namespaces.insert("free".into());
    settings.pod_security.exempt_users.insert("root".into());
    let server = server_with(settings).await;
    let api = |name: &str| LocalApi::shared(server.clone(), User::new(name, &[MASTERS]), "tests");
    let (user, admin, root) = (User::new("admin", &[MASTERS]), api("admin"), api("root"));
    for name in ["free", "held"] {
        namespace(&admin, name, value!({})).await.unwrap();
    }
    let spec = value!({"hostPID": true, "containers": [{"name": "c", "image": "i"}]});
    let create = async |api: &Arc<dyn Api>, ns: &str, name: &str| {
        let pod = whole(name, ("v1", "Pod"), spec.clone());
        api.create(&target("", "pods", ns, ""), pod, &Default::default()).await
    };
    create(&admin, "free", "a").await.unwrap();
    create(&root, "held", "a").await.unwrap();
    let refused = create(&admin, "held", "b").await.unwrap_err();
    let why = r#"pods "b" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)"#;
    assert_eq!(refused.message, why);
    let (refusals, label) = (
        "{decision=\"deny\",policy_level=\"baseline\",policy_version=\"latest\",mode=\"enforce\",request_operation=\"create\",resource=\"pod\",subresource=\"\"} 1",
        "{request_operation=\"create\",resource=\"pod\",subresource=\"\"} 2",
    );
    let text = crate::metrics::text(&server);
    assert!(text.contains(&format!("pod_security_evaluations_total{refusals}\n")), "{text}");
    assert!(text.contains(&format!("pod_security_exemptions_total{label}\n")), "{text}");
    let notes = Arc::new(Notes::default());
    let label = Patch::Merge(value!({"metadata": {"labels": {(policy::ENFORCE): "restricted"}}}));
    noting(notes.clone(), server.patch(&user, &target("", "namespaces", "", "free"), label, &Default::default()))
        .await
        .unwrap();
    assert_eq!(
        notes.take_warnings(),
        ["namespace \"free\" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored"]
    );
}
