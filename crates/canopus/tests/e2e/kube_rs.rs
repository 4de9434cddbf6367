//! A controller as people write them with kube-rs, and what else that library does with a cluster.

use crate::IMAGE;
use crate::space::Space;
use canopus_testkit::Cluster;
use futures::{StreamExt, TryStreamExt, future};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::api::events::v1::Event as RecordedEvent;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{
    AttachParams, DeleteParams, EvictParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams,
    TerminalSize,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{GroupVersionKind, PartialObjectMeta};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{
    Api, Client, Config, CustomResource, CustomResourceExt, Discovery, Error, KubeSchema, Resource, ResourceExt,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio_util::compat::FuturesAsyncReadCompatExt;

const NAME: &str = "stalls.example.org";

#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug)]
#[kube(
    group = "example.org",
    version = "v1",
    kind = "Stall",
    namespaced,
    shortname = "st",
    status = "StallStatus",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.ready"),
    printcolumn(name = "Fruit", type_ = "string", json_path = ".spec.fruit"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.ready"),
    selectable = ".spec.fruit",
    validation = Rule::new("self.spec.replicas < 4 || self.metadata.name.startsWith('big-')").message("only a big stall has more than three"),
)]
struct StallSpec {
    #[x_kube(validation = Rule::new("self == oldSelf").message("a stall keeps to its fruit"))]
    fruit: String,
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 9))]
    replicas: i32,
}

fn one() -> i32 {
    1
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default)]
struct StallStatus {
    ready: i32,
}

struct Context {
    client: Client,
    recorder: Recorder,
}

fn owned_by(stall: &Stall, name: String) -> ObjectMeta {
    let owners = stall.controller_owner_ref(&()).into_iter().collect();
    ObjectMeta { name: Some(name), owner_references: Some(owners), ..ObjectMeta::default() }
}

fn deployment(stall: &Stall) -> Deployment {
    let labels = BTreeMap::from([("stall".to_string(), stall.name_any())]);
    let script = format!("echo {}; exec sleep 3600", stall.spec.fruit);
    let container = Container {
        name: "main".into(),
        image: Some(IMAGE.into()),
        command: Some(["sh", "-c", &script].map(String::from).into()),
        ..Container::default()
    };
    let pod = PodSpec { containers: vec![container], termination_grace_period_seconds: Some(1), ..PodSpec::default() };
    let spec = DeploymentSpec {
        replicas: Some(stall.spec.replicas),
        selector: LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() },
        template: PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
            spec: Some(pod),
        },
        ..DeploymentSpec::default()
    };
    Deployment { metadata: owned_by(stall, stall.name_any()), spec: Some(spec), ..Deployment::default() }
}

async fn apply(stall: Arc<Stall>, cx: &Context) -> Result<Action, Error> {
    let (name, namespace) = (stall.name_any(), stall.namespace().unwrap_or_default());
    let mine = PatchParams::apply("stall-keeper").force();
    let sign = ConfigMap {
        metadata: owned_by(&stall, format!("sign-{name}")),
        data: Some(BTreeMap::from([("fruit".to_string(), stall.spec.fruit.clone())])),
        ..ConfigMap::default()
    };
    let signs = Api::<ConfigMap>::namespaced(cx.client.clone(), &namespace);
    signs.patch(&format!("sign-{name}"), &mine, &Patch::Apply(&sign)).await?;
    let deployments = Api::<Deployment>::namespaced(cx.client.clone(), &namespace);
    let now = deployments.patch(&name, &mine, &Patch::Apply(&deployment(&stall))).await?;
    let ready = now.status.and_then(|s| s.ready_replicas).unwrap_or(0);
    let status = serde_json::json!({"apiVersion": "example.org/v1", "kind": "Stall", "status": {"ready": ready}});
    let stalls = Api::<Stall>::namespaced(cx.client.clone(), &namespace);
    stalls.patch_status(&name, &mine, &Patch::Apply(&status)).await?;
    say(&stall, cx, "Kept").await?;
    Ok(Action::await_change())
}

async fn sweep(stall: Arc<Stall>, cx: &Context) -> Result<Action, Error> {
    let swept = format!("swept-{}", stall.name_any());
    let note = ConfigMap {
        metadata: ObjectMeta { name: Some(swept.clone()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    };
    let notes = Api::<ConfigMap>::namespaced(cx.client.clone(), &stall.namespace().unwrap_or_default());
    notes.entry(&swept).await?.or_insert(|| note).commit(&PostParams::default()).await.expect("nobody else writes it");
    say(&stall, cx, "Swept").await?;
    Ok(Action::await_change())
}

async fn say(stall: &Stall, cx: &Context, reason: &str) -> Result<(), Error> {
    let event =
        Event { type_: EventType::Normal, reason: reason.into(), note: None, action: "Keep".into(), secondary: None };
    cx.recorder.publish(&event, &stall.object_ref(&())).await
}

async fn reconcile(stall: Arc<Stall>, cx: Arc<Context>) -> Result<Action, finalizer::Error<Error>> {
    let stalls = Api::<Stall>::namespaced(cx.client.clone(), &stall.namespace().unwrap_or_default());
    finalizer(&stalls, "example.org/sweep", stall, |event| async {
        match event {
            finalizer::Event::Apply(stall) => apply(stall, &cx).await,
            finalizer::Event::Cleanup(stall) => sweep(stall, &cx).await,
        }
    })
    .await
}

/// Runs `story` with a client of the cluster, for two minutes at most.
fn with_client(c: &Cluster, story: impl AsyncFnOnce(Client)) {
    // Who comes second finds it done.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut kubeconfig = Kubeconfig::read_from(c.data_dir().join("kubeconfig")).expect("a kubeconfig");
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        cluster.server = Some(format!("https://{}:6443", c.host().ip()));
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("a configuration")).expect("a client");
        tokio::time::timeout(Duration::from_secs(120), story(client)).await.expect("it ends");
    });
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Error>, code: u16, why: &str) {
    match answer {
        Err(Error::Api(status)) if status.code == code && status.message.contains(why) => {}
        other => panic!("wanted {code} {why}: {other:?}"),
    }
}

/// Waits until `holds` of an object.
async fn until<K>(api: &Api<K>, name: &str, holds: impl Fn(&K) -> bool)
where
    K: Clone + std::fmt::Debug + Send + for<'de> Deserialize<'de> + Resource<DynamicType = ()> + 'static,
{
    await_condition(api.clone(), name, |object: Option<&K>| object.is_some_and(&holds))
        .await
        .expect("it can be watched");
}

/// A definition, objects of it, and the controller that keeps what belongs to them.
pub fn operator(c: &Cluster) {
    let s = Space::new(c, "operator");
    with_client(c, async |client| {
        let definitions = Api::<CustomResourceDefinition>::all(client.clone());
        let mine = PatchParams::apply("stall-keeper").force();
        definitions.patch(NAME, &mine, &Patch::Apply(Stall::crd())).await.expect("the definition is taken");
        await_condition(definitions.clone(), NAME, conditions::is_crd_established()).await.expect("established");

        let stalls = Api::<Stall>::namespaced(client.clone(), &s.name);
        let signs = Api::<ConfigMap>::namespaced(client.clone(), &s.name);
        let deployments = Api::<Deployment>::namespaced(client.clone(), &s.name);
        let cx = Context { client: client.clone(), recorder: Recorder::new(client.clone(), "stall-keeper".into()) };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let controller = Controller::new(stalls.clone(), watcher::Config::default().streaming_lists())
            .owns(deployments.clone(), watcher::Config::default())
            .owns(signs.clone(), watcher::Config::default())
            .graceful_shutdown_on(async { drop(stopped.await) })
            .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), Arc::new(cx));
        let controller = tokio::spawn(controller.for_each(|_| future::ready(())));

        let stall = |name: &str, replicas| Stall::new(name, StallSpec { fruit: "figs".into(), replicas });
        let post = PostParams::default();
        refused(stalls.create(&post, &stall("small", 4)).await, 422, "only a big stall has more than three");
        refused(stalls.create(&post, &stall("big-one", 10)).await, 422, "should be less than or equal to 9");
        stalls.create(&post, &stall("figs", 1)).await.expect("made");
        let ready = |n: i32| move |stall: &Stall| stall.status.as_ref().is_some_and(|s| s.ready == n);
        until(&stalls, "figs", ready(1)).await;
        let apricots = Patch::Merge(serde_json::json!({"spec": {"fruit": "apricots"}}));
        refused(stalls.patch("figs", &PatchParams::default(), &apricots).await, 422, "a stall keeps to its fruit");
        let two = Patch::Merge(serde_json::json!({"spec": {"replicas": 2}}));
        stalls.patch_scale("figs", &PatchParams::default(), &two).await.expect("scaled");
        until(&stalls, "figs", ready(2)).await;
        assert_eq!(stalls.get_scale("figs").await.expect("a scale").status.map(|s| s.replicas), Some(2));
        let by_fruit = ListParams::default().fields("spec.fruit=figs");
        assert_eq!(stalls.list(&by_fruit).await.expect("a list").items.len(), 1);
        crate::space::has_lines(&s.k(&["get", "st"]), &["NAME FRUIT READY", "figs figs 2"]);

        // What belongs to it and is taken away or changed comes back.
        let sign = signs.get("sign-figs").await.expect("a sign");
        signs.delete("sign-figs", &DeleteParams::default()).await.expect("deleted");
        until(&signs, "sign-figs", |now| now.uid() != sign.uid()).await;
        let other = Patch::Merge(serde_json::json!({"data": {"fruit": "none"}}));
        signs.patch("sign-figs", &PatchParams::default(), &other).await.expect("changed");
        until(&signs, "sign-figs", |now| now.data.as_ref().is_some_and(|d| d["fruit"] == "figs")).await;

        let discovered = Discovery::new(client.clone()).run().await.expect("discovery");
        let aggregated = Discovery::new(client.clone()).run_aggregated().await.expect("aggregated discovery");
        for discovery in [discovered, aggregated] {
            let (resource, abilities) =
                discovery.resolve_gvk(&GroupVersionKind::gvk("example.org", "v1", "Stall")).expect("the kind is known");
            assert_eq!((resource.plural.as_str(), abilities.subresources.len()), ("stalls", 2));
        }

        let uid = stalls.get("figs").await.expect("still there").uid().expect("a uid");
        stalls.delete("figs", &DeleteParams::foreground()).await.expect("deleted");
        await_condition(stalls.clone(), "figs", conditions::is_deleted(&uid)).await.expect("gone");
        signs.get("swept-figs").await.expect("it was swept first");
        await_condition(deployments, "figs", |now: Option<&Deployment>| now.is_none())
            .await
            .expect("what it owned goes");
        let events = Api::<RecordedEvent>::namespaced(client.clone(), &s.name);
        let events = events.list(&ListParams::default().fields("regarding.kind=Stall")).await.expect("events");
        let kept = events.iter().find(|e| e.reason.as_deref() == Some("Kept")).expect("it said what it did");
        assert!(kept.series.as_ref().is_some_and(|series| series.count > 1), "{kept:?}");
        assert!(events.iter().any(|e| e.reason.as_deref() == Some("Swept")));

        stop.send(()).expect("it runs still");
        controller.await.expect("it ends");
        definitions.delete(NAME, &DeleteParams::default()).await.expect("deleted");
    });
}

/// Lists as streams, stores that follow them, and a lock of which one of two is the holder.
pub fn watchers(c: &Cluster) {
    let s = Space::new(c, "watchers");
    with_client(c, async |client| {
        let maps = Api::<ConfigMap>::namespaced(client.clone(), &s.name);
        let map = |i: i32, labels: &[(&str, &str)]| ConfigMap {
            metadata: ObjectMeta {
                name: Some(format!("m{i}")),
                labels: Some(labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        };
        for i in 0..5 {
            maps.create(&PostParams::default(), &map(i, &[("n", "x")])).await.expect("made");
        }
        for config in [watcher::Config::default().streaming_lists(), watcher::Config::default().page_size(2)] {
            let (store, writer) = reflector::store();
            let events = reflector(writer, watcher(maps.clone(), config.labels("n=x"))).default_backoff();
            let follow = tokio::spawn(events.touched_objects().for_each(|_| future::ready(())));
            store.wait_until_ready().await.expect("a first list");
            assert_eq!(store.len(), 5);
            let leave = Patch::Merge(serde_json::json!({"metadata": {"labels": {"n": "y"}}}));
            maps.patch("m0", &PatchParams::default(), &leave).await.expect("changed");
            while store.len() != 4 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            maps.replace("m0", &PostParams::default(), &map(0, &[("n", "x")])).await.expect("changed back");
            while store.len() != 5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            follow.abort();
        }
        let metadata = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client.clone(), &s.name);
        let metadata = watcher(metadata, watcher::Config::default().streaming_lists().labels("n"));
        let names = metadata.applied_objects().take(5).map_ok(|m| m.name_any()).try_collect::<Vec<_>>();
        assert_eq!(names.await.expect("metadata").len(), 5);

        // Both want the lock, and see that nobody has it.
        let leases = Api::<Lease>::namespaced(client, &s.name);
        let lease = |holder: &str| Lease {
            metadata: ObjectMeta { name: Some("lock".into()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            }),
        };
        let first = leases.entry("lock").await.expect("an answer").or_insert(|| lease("ann"));
        let second = leases.entry("lock").await.expect("an answer").or_insert(|| lease("bob"));
        let post = PostParams::default();
        let (mut first, mut second) = (first, second);
        let won = [first.commit(&post).await.is_ok(), second.commit(&post).await.is_ok()];
        assert_eq!(won, [true, false]);
        // The holder lets go; of two who saw it, one takes it.
        let seen = leases.get("lock").await.expect("the lock");
        let mut taken = lease("bob");
        taken.metadata.resource_version = seen.resource_version();
        leases.replace("lock", &post, &taken).await.expect("bob has it");
        refused(leases.replace("lock", &post, &taken).await, 409, "the object has been modified");
    });
}

/// Logs, exec, attach, forwarded ports, eviction.
pub fn streams(c: &Cluster) {
    let s = Space::new(c, "streams");
    s.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: c, image: '{IMAGE}', stdin: true, command: [sh, -c, 'httpd -p 8080; echo ready; while read l; do echo got $l; done']}}
"
    ));
    s.ready("p");
    with_client(c, async |client| {
        let pods = Api::<Pod>::namespaced(client, &s.name);
        let log = pods.log_stream("p", &LogParams { follow: true, ..LogParams::default() }).await.expect("a log");
        let mut log = log.compat().lines();
        assert_eq!(log.next_line().await.expect("a line").as_deref(), Some("ready"));

        let both = AttachParams::default().stdin(true).stderr(false);
        let mut attached = pods.attach("p", &both).await.expect("attached");
        let mut stdin = attached.stdin().expect("its input");
        stdin.write_all(b"one\n").await.expect("written");
        let mut lines = tokio::io::BufReader::new(attached.stdout().expect("its output")).lines();
        assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("got one"));
        assert_eq!(log.next_line().await.expect("a line").as_deref(), Some("got one"));
        attached.abort();

        let mut process = pods.exec("p", ["sh", "-c", "cat; exit 3"], &both).await.expect("started");
        let mut input = process.stdin().expect("its input");
        let mut output = process.stdout().expect("its output");
        let status = process.take_status().expect("a status");
        let mut all = Vec::new();
        let write = async {
            input.write_all(&[b'x'; 100_000]).await.expect("written");
            input.shutdown().await.expect("closed");
            drop(input);
        };
        // Who only writes is not heard any more as soon as the echo fills the client's buffers.
        let (_, read) = tokio::join!(write, output.read_to_end(&mut all));
        read.expect("read");
        assert_eq!(all.len(), 100_000);
        let status = status.await.expect("how it ended");
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");
        process.join().await.expect("it ends");

        let mut terminal = pods.exec("p", ["sh"], &AttachParams::interactive_tty()).await.expect("started");
        let mut size = terminal.terminal_size().expect("a terminal");
        size.try_send(TerminalSize { height: 33, width: 77 }).expect("sent");
        let mut input = terminal.stdin().expect("its input");
        // The size comes on a channel of its own.
        input
            .write_all(b"until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done; echo $((6*7)); exit\n")
            .await
            .expect("written");
        let mut said = String::new();
        terminal.stdout().expect("its output").read_to_string(&mut said).await.expect("read");
        assert!(said.contains("\n42\r\n"), "{said:?}");

        let mut forwarded = pods.portforward("p", &[8080, 8081]).await.expect("forwarded");
        let mut stream = forwarded.take_stream(8080).expect("a stream");
        stream.write_all(b"GET /none HTTP/1.0\r\n\r\n").await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        assert!(answer.contains("404 Not Found"), "{answer}");
        let nobody = forwarded.take_error(8081).expect("an error channel").await.unwrap_or_default();
        assert!(nobody.contains("8081"), "{nobody}");

        pods.evict("p", &EvictParams::default()).await.expect("evicted");
        refused(pods.evict("nobody", &EvictParams::default()).await, 404, "pods \"nobody\" not found");
    });
}
