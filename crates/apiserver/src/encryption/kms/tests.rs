//! A plugin as a server of its own, on a Unix socket.

use super::envelope::text;
use crate::encryption::{Config, EncryptedStore, Encryption};
use crate::outgoing::message::Message;
use crate::surroundings::{Surroundings, System};
use crate::testing::server_on;
use crate::user::{MASTERS, User};
use bytes::{Bytes, BytesMut};
use canopus_api::protobuf::{Fields, Wire};
use canopus_api::{Gvr, Target, Time, value};
use canopus_store::{Limits, Store, memory::MemoryStore};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What the plugin is like, and how often it was asked what.
struct Plugin {
    version: &'static str,
    healthz: &'static str,
    key_id: &'static str,
    annotations: bool,
    /// It refuses to decrypt.
    locked: bool,
    calls: BTreeMap<String, u32>,
}

impl Default for Plugin {
    fn default() -> Plugin {
        let (version, healthz, key_id) = ("v2", "ok", "key-1");
        Plugin { version, healthz, key_id, annotations: true, locked: false, calls: BTreeMap::new() }
    }
}

type Shared = Arc<Mutex<Plugin>>;

impl Plugin {
    /// What it answers; its cipher is a bit thin.
    fn answer(&mut self, path: &str, question: &[u8]) -> Result<Message, (u32, &'static str)> {
        let method = path.strip_prefix("/v2.KeyManagementService/").unwrap();
        *self.calls.entry(method.into()).or_default() += 1;
        let mut fields = BTreeMap::new();
        for field in Fields::of(question) {
            let (number, Wire::Bytes(bytes)) = field.unwrap() else { panic!("all fields are bytes") };
            fields.insert(number, bytes);
        }
        let turned = |bytes: &[u8]| bytes.iter().map(|b| !b).collect::<Vec<u8>>();
        match method {
            "Status" => {
                let status = Message::default().bytes(1, self.version.as_bytes()).bytes(2, self.healthz.as_bytes());
                Ok(status.bytes(3, self.key_id.as_bytes()))
            }
            "Encrypt" => {
                assert_eq!(fields[&2].len(), 36, "a UID");
                let answer = Message::default().bytes(1, &turned(fields[&1])).bytes(2, self.key_id.as_bytes());
                let note = Message::default().bytes(1, b"local.example").bytes(2, b"note");
                Ok(if self.annotations { answer.message(3, note) } else { answer })
            }
            "Decrypt" if self.locked => Err((7, "not now")),
            "Decrypt" => {
                assert!(text(fields[&3]).unwrap().starts_with("key-"));
                assert_eq!(fields.contains_key(&4), self.annotations);
                Ok(Message::default().bytes(1, &turned(fields[&1])))
            }
            other => panic!("{other}"),
        }
    }
}

fn serve(socket: &Path) -> Shared {
    let shared = Shared::default();
    let (plugin, listener) = (shared.clone(), tokio::net::UnixListener::bind(socket).unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let plugin = plugin.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let plugin = plugin.clone();
                async move {
                    let path = request.uri().path().to_string();
                    let question = request.into_body().collect().await.unwrap().to_bytes();
                    let answer = plugin.lock().answer(&path, &question[5..]);
                    let head = http::Response::builder().header("content-type", "application/grpc");
                    let (head, body) = match answer {
                        Ok(message) => {
                            let message = message.finish();
                            let mut body = BytesMut::from(&[0][..]);
                            body.extend((message.len() as u32).to_be_bytes());
                            body.extend(message);
                            (head.header("grpc-status", "0"), body.freeze())
                        }
                        Err((code, why)) => {
                            (head.header("grpc-status", code).header("grpc-message", why), Bytes::new())
                        }
                    };
                    Ok::<_, std::convert::Infallible>(head.body(Full::new(body)).unwrap())
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    shared
}

/// A clock that goes when it is told to.
struct Clock(Mutex<Time>);

impl Clock {
    fn new() -> Arc<Clock> {
        Arc::new(Clock(Mutex::new(Time::from_unix(1_000_000))))
    }

    fn forward(&self, seconds: u64) {
        let mut now = self.0.lock();
        *now = now.plus(Duration::from_secs(seconds));
    }
}

impl Surroundings for Clock {
    fn now(&self) -> Time {
        *self.0.lock()
    }

    fn random(&self) -> u128 {
        System.random()
    }
}

fn config(socket: &Path, more: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: \
         [{{resources: [secrets], providers: [kms: {{apiVersion: v2, name: vault, timeout: 1s, endpoint: 'unix://{}'}}{more}]}}]",
        socket.display()
    )
}

async fn start(text: &str, clock: &Arc<Clock>) -> Arc<Encryption> {
    Encryption::start(text, clock.clone(), false).await.unwrap()
}

fn target(plural: &str) -> Target {
    Target::new(&Gvr::new("", "v1", plural), "default", "s")
}

const KEY: &str = "/registry/secrets/default/s";

#[tokio::test]
async fn secrets_are_sealed_and_opened() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let (plugin, clock) = (serve(&socket), Clock::new());
    let raw: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default()).unwrap());
    let encryption = start(&config(&socket, ", identity: {}"), &clock).await;
    let server = server_on(Arc::new(EncryptedStore::new(raw.clone(), encryption.clone())), Default::default()).await;
    let (admin, options) = (User::new("admin", &[MASTERS]), Default::default());
    let body = value!({"metadata": {"name": "s"}, "data": {"password": "aHVudGVyMg=="}});
    server.create(&admin, &target("secrets"), body, &options).await.unwrap();
    let stored = async || raw.get(KEY).await.unwrap().0.unwrap().value.clone();
    let first = stored().await;
    assert!(first.starts_with(b"k8s:enc:kms:v2:vault:"));
    let read = server.get(&target("secrets"), None).await.unwrap();
    assert_eq!(read.value()["data"]["password"].str(), "aHVudGVyMg==");
    let update = async || server.update(&admin, &target("secrets"), (*read.value()).clone(), &options).await.unwrap();
    assert_eq!(update().await.object.revision, read.revision, "nothing to write");
    let asked = |method: &str| plugin.lock().calls.get(method).copied().unwrap_or(0);
    assert_eq!((asked("Encrypt"), asked("Decrypt")), (1, 0), "one seed for all values, known to its maker");

    // The plugin goes over to another key: the value is written again, though it is the same.
    plugin.lock().key_id = "key-2";
    clock.forward(30);
    assert_eq!(encryption.check().await, Ok(()));
    assert!(update().await.object.revision > read.revision);
    let second = stored().await;
    assert_ne!(first, second);
    assert_eq!((asked("Encrypt"), asked("Decrypt")), (2, 0));

    // Another server reads both, after it has asked once for each seed.
    let other = start(&config(&socket, ""), &clock).await;
    for stored in [&first, &second, &first] {
        let config = other.config();
        let providers = config.providers("", "secrets").unwrap();
        let open = providers.decrypt(stored, KEY).await.unwrap();
        assert!(String::from_utf8_lossy(&open).contains("aHVudGVyMg=="));
        assert_eq!(providers.is_stale(stored), stored == &first);
    }
    assert_eq!(asked("Decrypt"), 2);
    let mut text = String::new();
    encryption.write_metrics(&mut text);
    for part in [
        r#"apiserver_envelope_encryption_kms_operations_latency_seconds_count{provider_name="vault",method_name="/v2.KeyManagementService/Encrypt",grpc_status_code="OK"} 2"#,
        r#"resource="secrets",transformation_type="to_storage",transformer_prefix="k8s:enc:kms:v2:vault:",status="OK"} 2"#,
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[tokio::test]
async fn a_plugin_that_is_not_well() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let (plugin, clock) = (serve(&socket), Clock::new());
    let encryption = start(&config(&socket, ""), &clock).await;
    let config = encryption.config();
    let secrets = config.providers("", "secrets").unwrap();
    let sealed = secrets.encrypt(b"x", KEY).unwrap();
    let check = async || {
        clock.forward(30);
        encryption.check().await
    };
    for (spoil, why) in [
        ((|p| p.healthz = "sick") as fn(&mut Plugin), "got unexpected healthz status: sick"),
        (|p| p.version = "v1", "expected KMSv2 API version v2, got v1"),
        (
            |p| p.version = "v2beta1",
            "KMSv2 API version should not change after the initial status response version v2, got v2beta1",
        ),
        (|p| p.key_id = "", "got invalid KMSv2 KeyID hash \"\": keyID is empty"),
    ] {
        spoil(&mut plugin.lock());
        let expected = format!("kms-provider-0: kmsv2 Provider vault is not healthy, error: {why}");
        assert_eq!(check().await, Err(expected));
        *plugin.lock() = Plugin::default();
        assert_eq!(check().await, Ok(()));
    }
    // For three minutes after it was last well values are written, and read as long as the key is known.
    plugin.lock().key_id = "";
    clock.forward(120);
    assert!(secrets.encrypt(b"x", KEY).is_ok());
    clock.forward(120);
    assert!(secrets.encrypt(b"x", KEY).unwrap_err().contains(" expired at 1970-01-12T"));
    assert_eq!(secrets.decrypt(&sealed, KEY).await.unwrap(), b"x");
    plugin.lock().key_id = "key-1";
    assert_eq!(check().await, Ok(()));
    assert!(secrets.encrypt(b"x", KEY).is_ok());
}

#[tokio::test]
async fn what_cannot_be_read_now_may_be_read_later() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let clock = Clock::new();
    let raw: Arc<dyn Store> = Arc::new(MemoryStore::new(Limits::default()).unwrap());
    // The plugin is not there yet: that is no reason not to begin.
    let encryption = start(&config(&socket, ""), &clock).await;
    let late = encryption.config().providers("", "secrets").unwrap().encrypt(b"x", KEY);
    assert_eq!(late, Err("got unexpected nil transformer".into()));
    assert!(encryption.check().await.unwrap_err().contains("code = DeadlineExceeded"));

    let plugin = serve(&socket);
    clock.forward(30);
    assert_eq!(encryption.check().await, Ok(()));
    let sealed = encryption.config().providers("", "secrets").unwrap().encrypt(b"{}", KEY).unwrap();
    let write = canopus_store::Write::put(KEY, canopus_store::Expect::Absent, sealed);
    raw.commit(write).await.unwrap();

    plugin.lock().locked = true;
    let another = EncryptedStore::new(raw.clone(), start(&config(&socket, ""), &clock).await);
    let mut watch = another.watch("/registry/secrets/", 1).await.unwrap();
    let refused = "failed to decrypt DEK, error: rpc error: code = PermissionDenied desc = not now";
    assert_eq!(another.get(KEY).await.unwrap_err().to_string(), refused);
    assert_eq!(watch.next().await.unwrap().map(drop).unwrap_err().to_string(), refused);
    plugin.lock().locked = false;
    assert_eq!(&another.get(KEY).await.unwrap().0.unwrap().value[..], b"{}");
    assert_eq!(&watch.next().await.unwrap().unwrap()[0].version.as_ref().unwrap().value[..], b"{}");
}

#[tokio::test]
async fn another_configuration_waits_for_its_plugin() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let clock = Clock::new();
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{resources: [secrets], providers: [identity: {}]}]";
    let encryption = Encryption::start(text, clock.clone(), true).await.unwrap();
    assert!(encryption.may_have_services(), "there may be some one day");
    assert_eq!(encryption.check().await, Ok(()));
    let plugin = serve(&socket);
    encryption.reload(&config(&socket, ", identity: {}")).await.unwrap();
    assert_eq!(plugin.lock().calls["Encrypt"], 1);
    let mut metrics = String::new();
    encryption.write_metrics(&mut metrics);
    assert!(metrics.contains("apiserver_encryption_config_controller_automatic_reloads_total{"), "{metrics}");
}

#[tokio::test]
async fn annotations_are_optional() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let (plugin, clock) = (serve(&socket), Clock::new());
    plugin.lock().annotations = false;
    let maker = start(&config(&socket, ""), &clock).await;
    let sealed = maker.config().providers("", "secrets").unwrap().encrypt(b"x", KEY).unwrap();
    let reader: Arc<Config> = start(&config(&socket, ""), &clock).await.config();
    assert_eq!(reader.providers("", "secrets").unwrap().decrypt(&sealed, KEY).await.unwrap(), b"x");
}
