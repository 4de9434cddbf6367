//! Startup, liveness and readiness probes: a task each, for as long as the container runs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use canopus_api::Value;
use canopus_runtime::spec::ExecSpec;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::planner::{Instance, Observed, ProbeResults};
use crate::pod;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn field(self) -> &'static str {
        match self {
            Kind::Startup => "startupProbe",
            Kind::Liveness => "livenessProbe",
            Kind::Readiness => "readinessProbe",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Startup => "startup",
            Kind::Liveness => "liveness",
            Kind::Readiness => "readiness",
        }
    }
}

/// The probes of one pod's containers.
pub struct Probers {
    node: Arc<Node>,
    notify: Arc<Notify>,
    results: Arc<Mutex<ProbeResults>>,
    tasks: BTreeMap<String, CancellationToken>,
}

struct Probe {
    node: Arc<Node>,
    notify: Arc<Notify>,
    results: Arc<Mutex<ProbeResults>>,
    pod: Arc<Value>,
    container: Value,
    probe: Value,
    kind: Kind,
    id: String,
    ip: Option<IpAddr>,
}

impl Probers {
    pub fn new(node: Arc<Node>, notify: Arc<Notify>) -> Self {
        Self { node, notify, results: Arc::default(), tasks: BTreeMap::new() }
    }

    pub fn results(&self) -> ProbeResults {
        self.results.lock().clone()
    }

    pub fn clear(&mut self) {
        std::mem::take(&mut self.tasks).into_values().for_each(|t| t.cancel());
        *self.results.lock() = ProbeResults::default();
    }

    /// Starts the probes of containers that run, ends those of others.
    pub fn sync(&mut self, pod: &Arc<Value>, observed: &Observed, ips: &[IpAddr]) {
        let gone = |id: &String| !observed.running().any(|i| i.id == *id);
        self.tasks.retain(|id, token| {
            let over = gone(id);
            if over {
                token.cancel();
            }
            !over
        });
        {
            let mut results = self.results.lock();
            results.started.retain(|id, _| !gone(id));
            results.ready.retain(|id, _| !gone(id));
            results.failed.retain(|id, _| !gone(id));
        }
        for instance in observed.running() {
            if !self.tasks.contains_key(&instance.id) {
                let token = self.start(pod, instance, ips);
                self.tasks.insert(instance.id.clone(), token);
            }
        }
    }

    /// What the status says of this very container holds until a probe says otherwise: the agent's restart changes
    /// nothing, as upstream without ChangeContainerStatusOnKubeletRestart.
    fn remember(&self, pod: &Value, instance: &Instance) {
        let lists = ["containerStatuses", "initContainerStatuses"].map(|list| pod["status"][list].items());
        let id = crate::status::container_id(&instance.id);
        let Some(status) = lists.into_iter().flatten().find(|s| s["containerID"].str() == id) else { return };
        let mut results = self.results.lock();
        if status["started"].bool() {
            results.started.insert(instance.id.clone(), true);
        }
        if status["ready"].bool() {
            results.ready.insert(instance.id.clone(), true);
        }
    }

    fn start(&self, pod: &Arc<Value>, instance: &Instance, ips: &[IpAddr]) -> CancellationToken {
        let token = CancellationToken::new();
        let Some(container) = pod::container(pod, &instance.name) else { return token };
        self.remember(pod, instance);
        for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
            let probe = &container[kind.field()];
            let begun = kind == Kind::Startup && self.results.lock().started.contains_key(&instance.id);
            if probe.is_null() || begun {
                continue;
            }
            let probe = Probe {
                node: self.node.clone(),
                notify: self.notify.clone(),
                results: self.results.clone(),
                pod: pod.clone(),
                container: container.clone(),
                probe: probe.clone(),
                kind,
                id: instance.id.clone(),
                ip: ips.first().copied(),
            };
            let (ended, age) = (token.clone(), canopus_client::now().since(instance.started_at.unwrap_or_default()));
            tokio::spawn(async move {
                tokio::select! {
                    () = probe.run(age) => {}
                    () = ended.cancelled() => {}
                }
            });
        }
        token
    }
}

impl Drop for Probers {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Probe {
    fn number(&self, field: &str, default: i64) -> u64 {
        u64::try_from(self.probe[field].as_i64().unwrap_or(default)).unwrap_or(0)
    }

    async fn run(&self, age: Duration) {
        let delay = Duration::from_secs(self.number("initialDelaySeconds", 0));
        tokio::time::sleep(delay.saturating_sub(age)).await;
        let mut ticks = tokio::time::interval(Duration::from_secs(self.number("periodSeconds", 10).max(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut good, mut bad) = (0_u64, 0_u64);
        loop {
            if self.kind != Kind::Startup && !self.container["startupProbe"].is_null() {
                self.started().await;
            }
            ticks.tick().await;
            match self.once().await {
                Ok(()) => (good, bad) = (good + 1, 0),
                Err(why) => {
                    (good, bad) = (0, bad + 1);
                    self.unhealthy(&why);
                }
            }
            let succeeded = good >= self.number("successThreshold", 1).max(1);
            let failed = bad >= self.number("failureThreshold", 3).max(1);
            if (succeeded || failed) && self.conclude(succeeded) {
                return;
            }
        }
    }

    /// Other probes wait for the startup probe.
    async fn started(&self) {
        while self.results.lock().started.get(&self.id) != Some(&true) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Takes a verdict down; whether this probe is done.
    fn conclude(&self, good: bool) -> bool {
        let mut results = self.results.lock();
        let before = results.clone();
        let done = match (self.kind, good) {
            (Kind::Startup, true) => {
                results.started.insert(self.id.clone(), true);
                true
            }
            (Kind::Readiness, good) => {
                results.ready.insert(self.id.clone(), good);
                false
            }
            (Kind::Liveness, true) => false,
            (_, false) => {
                results.failed.insert(self.id.clone(), self.kind.name());
                true
            }
        };
        let changed = *results != before;
        drop(results);
        if changed {
            self.notify.notify_one();
        }
        done
    }

    fn unhealthy(&self, why: &str) {
        let mut kind = self.kind.name().to_owned();
        kind[..1].make_ascii_uppercase();
        let path = pod::field_path(&self.pod, self.container["name"].str());
        let message = format!("{kind} probe failed: {why}");
        self.node.recorder.record(&self.pod, "Warning", "Unhealthy", message, &path);
    }

    async fn once(&self) -> Result<(), String> {
        let limit = Duration::from_secs(self.number("timeoutSeconds", 1).max(1));
        if !self.probe["exec"].is_null() {
            return self.exec(limit).await;
        }
        let work = async {
            if !self.probe["httpGet"].is_null() {
                return self.http().await;
            }
            if !self.probe["tcpSocket"].is_null() {
                let (host, port) = self.address(&self.probe["tcpSocket"])?;
                let connected = TcpStream::connect((host.as_str(), port)).await;
                return connected.map(|_| ()).map_err(|e| format!("dial tcp {host}:{port}: {e}"));
            }
            Err("missing probe handler".to_owned())
        };
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned()),
        }
    }

    fn address(&self, action: &Value) -> Result<(String, u16), String> {
        let host = match action["host"].str() {
            "" => self.ip.map(|ip| ip.to_string()).ok_or("the pod has no address")?,
            host => host.to_owned(),
        };
        let port = match action["port"].as_i64() {
            Some(number) => number,
            None => {
                let ports = self.container["ports"].items().iter();
                let named = ports.clone().find(|p| p["name"].str() == action["port"].str());
                let named = named.map(|p| p["containerPort"].int());
                named.or_else(|| action["port"].str().parse().ok()).unwrap_or(0)
            }
        };
        match u16::try_from(port) {
            Ok(port) if port > 0 => Ok((host, port)),
            _ => Err(format!("invalid port number: {port}")),
        }
    }

    async fn exec(&self, limit: Duration) -> Result<(), String> {
        let args = self.probe["exec"]["command"].items().iter().map(|a| a.str().to_owned()).collect();
        let (id, spec) = (self.id.clone(), ExecSpec { args, stdout: true, stderr: true, ..ExecSpec::default() });
        let result = self
            .node
            .blocking(move |node| -> Result<(Option<i32>, String), canopus_runtime::Error> {
                let mut session = node.runtime.exec(&id, &spec)?;
                let outputs = [session.stdout.take(), session.stderr.take()];
                let readers = outputs.map(|file| std::thread::spawn(move || read_some(file)));
                let code = session.wait_timeout(limit)?;
                // Dropping the session kills the command, which closes its output.
                drop(session);
                let text: String = readers.into_iter().filter_map(|r| r.join().ok()).collect();
                Ok((code, text))
            })
            .await;
        match result {
            Ok(Ok((Some(0), _))) => Ok(()),
            Ok(Ok((Some(_), output))) => Err(output),
            Ok(Ok((None, _))) => {
                Err(format!("command timed out: {:?} timed out after {}s", self.command(), limit.as_secs()))
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn command(&self) -> String {
        let words: Vec<&str> = self.probe["exec"]["command"].items().iter().map(Value::str).collect();
        words.join(" ")
    }

    async fn http(&self) -> Result<(), String> {
        let action = &self.probe["httpGet"];
        let (host, port) = self.address(action)?;
        let path = match action["path"].str() {
            "" => "/".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        let https = action["scheme"].str() == "HTTPS";
        let url = format!("{}://{host}:{port}{path}", if https { "https" } else { "http" });
        let failed = |e: String| format!("Get {url:?}: {e}");
        let mut request = http::Request::builder().uri(&path).header("User-Agent", "kube-probe/1.36");
        let mut named_host = false;
        for header in action["httpHeaders"].items() {
            named_host |= header["name"].str().eq_ignore_ascii_case("host");
            request = request.header(header["name"].str(), header["value"].str());
        }
        if !named_host {
            request = request.header("Host", format!("{host}:{port}"));
        }
        let request = request.header("Accept", "*/*").body(Empty::<Bytes>::new()).map_err(|e| failed(e.to_string()))?;
        let stream = TcpStream::connect((host.as_str(), port)).await;
        let stream = stream.map_err(|e| failed(format!("dial tcp {host}:{port}: {e}")))?;
        let status = match https {
            true => exchange(crate::tls::unverified(stream, &host).await.map_err(failed)?, request).await,
            false => exchange(stream, request).await,
        };
        match status.map_err(failed)? {
            200..400 => Ok(()),
            code => Err(format!("HTTP probe failed with statuscode: {code}")),
        }
    }
}

async fn exchange<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<u16, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let driving = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|e| e.to_string());
    driving.abort();
    Ok(answer?.status().as_u16())
}

/// At most 10 KiB, as upstream; what follows is read and dropped so that the command can end.
fn read_some(file: Option<std::fs::File>) -> String {
    use std::io::Read;
    let Some(mut file) = file else { return String::new() };
    let mut kept = Vec::new();
    let mut part = [0_u8; 4096];
    while let Ok(n @ 1..) = file.read(&mut part) {
        let room = (10_usize << 10) - kept.len();
        kept.extend_from_slice(&part[..n.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
