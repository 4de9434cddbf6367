//! Ports of the node that Services are reached at. Each port in use is a key of its own in the store, made by
//! compare-and-swap, so that two servers on one store cannot hand out the same one.

use crate::port_range::PortRange;
use crate::served::Served;
use crate::server::Server;
use canopus_api::{Errors, Field, Object, Result, Status, Value, View, value};
use canopus_resources::core::service::needs_health_check;
use canopus_store::{Change, Expect, Outcome, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const PREFIX: &str = "/registry/ranges/servicenodeports/";
/// How many random ports are tried before the range is searched.
const GUESSES: u32 = 8;

/// Whether services of this type have node ports.
fn has_node_ports(spec: &Value) -> bool {
    ["NodePort", "LoadBalancer"].contains(&spec["type"].str())
}

fn number(port: &Value) -> u16 {
    u16::try_from(port.int()).unwrap_or(0)
}

/// The ports that a Service holds.
pub fn held(service: &Value) -> BTreeSet<u16> {
    let spec = &service["spec"];
    let ports = spec["ports"].items().iter().map(|port| number(&port["nodePort"]));
    ports.chain([number(&spec["healthCheckNodePort"])]).filter(|port| *port != 0).collect()
}

/// Ports to try: random ones, then all in order, those for who asks last.
fn candidates(range: PortRange, random: u128) -> impl Iterator<Item = u16> {
    let dynamic = range.dynamic();
    let span = u128::from(range.last - dynamic) + 1;
    let guesses = (0..GUESSES).map(move |i| dynamic + ((random >> (i * 12)) % span) as u16);
    // 0 is no port.
    guesses.chain(dynamic..=range.last).chain(range.first..dynamic).filter(|port| *port != 0)
}

/// Why a port was not given.
enum Refused {
    Taken,
    OutOf(PortRange),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Taken => f.write_str("provided port is already allocated"),
            Refused::OutOf(range) => {
                write!(f, "provided port is not in the valid range. The range of valid ports is {range}")
            }
        }
    }
}

/// What one write takes.
struct Taking<'a> {
    server: &'a Server,
    dry_run: bool,
    /// `namespace/name`
    owner: String,
    taken: Vec<u16>,
}

impl Taking<'_> {
    async fn this(&mut self, port: u16) -> Result<std::result::Result<(), Refused>> {
        let range = self.server.settings.node_ports;
        if !range.ports().contains(&port) {
            return Ok(Err(Refused::OutOf(range)));
        }
        if self.taken.contains(&port) || !self.server.take_port(port, &self.owner, self.dry_run).await? {
            return Ok(Err(Refused::Taken));
        }
        self.taken.push(port);
        Ok(Ok(()))
    }

    async fn any(&mut self) -> Result<u16> {
        for port in candidates(self.server.settings.node_ports, self.server.surroundings.random()) {
            if self.this(port).await?.is_ok() {
                return Ok(port);
            }
        }
        Err(Status::internal("failed to allocate a nodePort: range is full"))
    }

    /// Every port of a new Service: ports of one number but two protocols share theirs.
    async fn all(&mut self, served: &Served, service: &mut Value) -> Result<()> {
        let allocates = allocates(&service["spec"]);
        let mut known: BTreeMap<i64, u16> = BTreeMap::new();
        for i in 0..service["spec"]["ports"].items().len() {
            let port = service["spec"]["ports"][i].clone();
            let (of, asked) = (port["port"].int(), number(&port["nodePort"]));
            if asked == 0 && !allocates {
                continue;
            }
            let same = known.get(&of).copied();
            let given = match (same, asked) {
                (Some(same), 0) => same,
                (Some(same), _) if same == asked => same,
                (Some(_), _) => self.asked(served, service, i, asked).await?,
                (None, _) => {
                    let later = service["spec"]["ports"].items().iter().filter(|p| p["port"].int() == of);
                    let asked = later.map(|p| number(&p["nodePort"])).find(|p| *p != 0);
                    let given = match asked {
                        Some(asked) => self.asked(served, service, i, asked).await?,
                        None => self.any().await?,
                    };
                    known.insert(of, given);
                    given
                }
            };
            set(service, i, given);
        }
        Ok(())
    }

    /// The ports that a changed Service has more than before.
    async fn more(&mut self, served: &Served, service: &mut Value, old: &Value) -> Result<()> {
        let allocates = allocates(&service["spec"]);
        let before = held_ports(&old["spec"]);
        for i in 0..service["spec"]["ports"].items().len() {
            match number(&service["spec"]["ports"][i]["nodePort"]) {
                0 if allocates => {
                    let port = self.any().await?;
                    set(service, i, port);
                }
                0 => {}
                asked if before.contains(&asked) || self.taken.contains(&asked) => {}
                asked => {
                    self.asked(served, service, i, asked).await?;
                }
            }
        }
        Ok(())
    }

    async fn asked(&mut self, served: &Served, service: &Value, i: usize, port: u16) -> Result<u16> {
        let Err(why) = self.this(port).await? else { return Ok(port) };
        let mut errors = Errors::new();
        let (root, shown) = (Field::root(service), Value::from(i64::from(port)));
        errors.invalid(&root.at("spec").at("ports").index(i).at("nodePort").with(&shown), why.to_string());
        Err(Status::invalid(&served.info().gvk(), service["metadata"]["name"].str(), errors))
    }

    async fn health_check(&mut self, service: &mut Value) -> Result<()> {
        let port = match number(&service["spec"]["healthCheckNodePort"]) {
            0 => self.any().await?,
            port => {
                if let Err(why) = self.this(port).await? {
                    let what = format!("failed to allocate requested HealthCheck NodePort {port}: {why}");
                    return Err(Status::internal(what));
                }
                port
            }
        };
        service.set_path(&["spec", "healthCheckNodePort"], i64::from(port));
        Ok(())
    }
}

fn allocates(spec: &Value) -> bool {
    spec["type"].str() == "NodePort" || spec["allocateLoadBalancerNodePorts"].as_bool() != Some(false)
}

fn held_ports(spec: &Value) -> BTreeSet<u16> {
    spec["ports"].items().iter().map(|port| number(&port["nodePort"])).filter(|port| *port != 0).collect()
}

fn set(service: &mut Value, i: usize, port: u16) {
    let ports = service.obj_mut("spec").get_mut("ports").and_then(Value::as_array_mut);
    if let Some(entry) = ports.and_then(|ports| ports.get_mut(i)) {
        entry.set("nodePort", i64::from(port));
    }
}

impl Server {
    /// Gives a Service the ports it needs; answers those that it hadn't got before.
    pub(crate) async fn reserve_ports(
        &self,
        served: &Served,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Vec<u16>> {
        let meta = &service["metadata"];
        let owner = format!("{}/{}", meta["namespace"].str(), meta["name"].str());
        let mut taking = Taking { server: self, dry_run, owner, taken: Vec::new() };
        let done = async {
            match old.filter(|_| has_node_ports(&service["spec"])) {
                Some(old) => taking.more(served, service, old).await?,
                None if has_node_ports(&service["spec"]) => taking.all(served, service).await?,
                None => {}
            }
            let checked = old.is_some_and(|old| needs_health_check(&old["spec"]));
            if needs_health_check(&service["spec"]) && !checked {
                taking.health_check(service).await?;
            }
            Ok(())
        };
        let done = done.await;
        let taken = if dry_run { Vec::new() } else { taking.taken };
        match done {
            Ok(()) => Ok(taken),
            Err(error) => {
                self.release_ports(taken).await;
                Err(error)
            }
        }
    }

    /// True when the port was free and now is the owner's.
    async fn take_port(&self, port: u16, owner: &str, dry_run: bool) -> Result<bool> {
        let key: Arc<str> = format!("{PREFIX}{port}").into();
        if dry_run {
            let (held, _) = self.store.get(&key).await.map_err(crate::storage::status)?;
            return Ok(held.is_none());
        }
        let mut entry = value!({"service": owner, "metadata": {"creationTimestamp": self.surroundings.now()}});
        let change = Change::Put { value: Object::encode(&mut entry), facts: None, ttl: None };
        let outcome = self.store.commit(Write { key, expect: Expect::Absent, change }).await;
        Ok(matches!(outcome.map_err(crate::storage::status)?, Outcome::Committed { .. }))
    }

    /// Gives ports back. One that cannot be given back now is found by [`Self::repair_node_ports`].
    pub(crate) async fn release_ports(&self, ports: Vec<u16>) {
        for port in ports {
            let key = format!("{PREFIX}{port}").into();
            let write = Write { key, expect: Expect::Anything, change: Change::Delete };
            if let Err(error) = self.store.commit(write).await {
                tracing::warn!(port, %error, "failed to release a node port");
            }
        }
    }

    /// Releases ports whose Service does not exist (a crash between two writes), takes missing ones.
    pub(crate) async fn repair_node_ports(&self) -> Result<()> {
        let services = self.cache("", "v1", "services")?;
        let mut wanted: BTreeMap<u16, String> = BTreeMap::new();
        for service in View::list(&*services, "") {
            let owner = format!("{}/{}", service.namespace(), service.name());
            wanted.extend(held(&service.value()).into_iter().map(|port| (port, owner.clone())));
        }
        let end = canopus_store::prefix_end(PREFIX);
        let taken = self.store.range(PREFIX, &end, None, 0).await.map_err(crate::storage::status)?;
        let taken = taken.items.iter().filter_map(|version| {
            let port: u16 = version.key.strip_prefix(PREFIX)?.parse().ok()?;
            Some((port, self.settled(version)))
        });
        let taken: BTreeMap<u16, bool> = taken.collect();
        let astray = taken.iter().filter(|(port, settled)| **settled && !wanted.contains_key(port));
        self.release_ports(astray.map(|(port, _)| *port).collect()).await;
        for (port, owner) in wanted.iter().filter(|(port, _)| !taken.contains_key(port)) {
            self.take_port(*port, owner, false).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LocalApi;
    use crate::user::{MASTERS, User};
    use canopus_api::{DeleteOptions, Gvr, Patch, Target, WriteOptions};

    fn service(name: &str, spec: Value) -> Value {
        value!({"metadata": {"name": name}, "spec": spec})
    }

    #[test]
    fn every_port_is_a_candidate() {
        for (range, expected) in
            [("30000-32767", (30000, 32767, 2768)), ("0-65535", (1, 65535, 65535)), ("9", (9, 9, 1))]
        {
            let all: BTreeSet<u16> = candidates(range.parse().unwrap(), u128::MAX / 3).collect();
            assert_eq!((*all.first().unwrap(), *all.last().unwrap(), all.len()), expected);
        }
    }

    #[tokio::test]
    async fn given_kept_and_given_back() {
        let server = crate::testing::server().await;
        let api = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
        let at = |name: &str| Target::new(&Gvr::new("", "v1", "services"), "default", name);
        let options = WriteOptions::default();
        let create = async |name: &str, spec: Value| api.create(&at(""), service(name, spec), &options).await;
        let ports = value!([{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]);
        let dns = create("dns", value!({"type": "NodePort", "ports": ports})).await.unwrap().value();
        let port = dns["spec"]["ports"][0]["nodePort"].int();
        assert!((30086..=32767).contains(&port), "{port}");
        assert_eq!(dns["spec"]["ports"][1]["nodePort"].int(), port, "one for both protocols");

        let asked = |port: i64| value!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
        for (port, why) in
            [(port, "provided port is already allocated"), (80, "The range of valid ports is 30000-32767")]
        {
            let refused = create("late", asked(port)).await.unwrap_err();
            assert!(refused.message.contains("spec.ports[0].nodePort") && refused.message.contains(why), "{refused}");
        }
        let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
        for _ in 0..2 {
            api.create(&at(""), service("dry", asked(30001)), &dry).await.unwrap();
        }

        let quiet = value!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}],
            "externalTrafficPolicy": "Local"});
        let quiet = create("quiet", quiet).await.unwrap().value();
        assert!(quiet["spec"]["ports"][0]["nodePort"].is_null());
        assert_ne!(quiet["spec"]["healthCheckNodePort"].int(), 0);

        // Another type has no use for them.
        let change = Patch::Merge(value!({"spec": {"type": "ClusterIP"}}));
        api.patch(&at("dns"), change, &options).await.unwrap();
        create("late", asked(port)).await.unwrap();
        api.delete(&at("late"), &DeleteOptions::default()).await.unwrap();
        create("later", asked(port)).await.unwrap();
    }

    #[tokio::test]
    async fn out_of_the_range_that_was_given() {
        let settings = crate::Settings { node_ports: "8000".parse().unwrap(), ..Default::default() };
        let server = crate::testing::server_with(settings).await;
        let api = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
        let at = Target::new(&Gvr::new("", "v1", "services"), "default", "");
        let create = async |name: &str| {
            let service = service(name, value!({"type": "NodePort", "ports": [{"port": 80}]}));
            api.create(&at, service, &WriteOptions::default()).await.map(|made| made.value())
        };
        assert_eq!(create("a").await.unwrap()["spec"]["ports"][0]["nodePort"].int(), 8000);
        assert!(create("b").await.unwrap_err().message.contains("range is full"));
    }

    #[tokio::test]
    async fn repaired() {
        let server = crate::testing::server().await;
        let api = LocalApi::shared(server.clone(), User::new("admin", &[MASTERS]), "tests");
        let spec = value!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30002}]});
        let at = Target::new(&Gvr::new("", "v1", "services"), "default", "");
        let made = api.create(&at, service("a", spec), &WriteOptions::default()).await.unwrap();
        server.cache("", "v1", "services").unwrap().reached(made.revision).await.unwrap();
        server.release_ports(vec![30002]).await;
        assert!(server.take_port(30003, "default/gone", false).await.unwrap());
        server.repair_node_ports().await.unwrap();
        assert!(!server.take_port(30002, "default/b", false).await.unwrap());
        assert!(server.take_port(30003, "default/b", false).await.unwrap());
    }
}
