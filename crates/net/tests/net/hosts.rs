//! A host with pods, made of network namespaces.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use canopus_net::netlink::{Message, Netlink};
use canopus_net::netns::NetNs;
use canopus_net::podnetwork::{PodIp, PodNetwork, PodNetworkConfig};

/// A namespace that plays a host, with a pod network 10.244.1.0/24 and service addresses 10.96.0.0/16.
pub struct Host {
    pub netns: NetNs,
    pub network: PodNetwork,
    pub state: tempfile::TempDir,
}

/// A pod: a namespace attached to the pod network.
pub struct Pod {
    pub netns: NetNs,
    pub attached: PodIp,
}

impl Host {
    pub fn new() -> Host {
        let netns = NetNs::create().unwrap();
        let state = tempfile::tempdir().unwrap();
        let network = netns.run(|| open_network(&state)).unwrap();
        Host { netns, network, state }
    }

    /// Starts a pod whose server on TCP port 8080 answers each connection with the pod's name.
    pub fn pod(&self, name: &'static str) -> Pod {
        let netns = NetNs::create().unwrap();
        let attached = self.network.attach(&netns.path(), name).unwrap();
        let listener = netns.run(|| TcpListener::bind("[::]:8080").unwrap()).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.write_all(name.as_bytes());
            }
        });
        Pod { netns, attached }
    }
}

impl Pod {
    pub fn ip(&self) -> IpAddr {
        self.attached.ips[0]
    }
}

pub fn open_network(state: &tempfile::TempDir) -> PodNetwork {
    let mut netlink = Netlink::route().unwrap();
    netlink.execute(&[Message::set_up(1)]).unwrap();
    let network = PodNetwork::open(PodNetworkConfig {
        bridge: "cni0".into(),
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:244::/64".parse().unwrap()],
        mtu: None,
        state_dir: state.path().into(),
    })
    .unwrap();
    network.ensure_service_route("10.96.0.0/16".parse().unwrap()).unwrap();
    network
}

/// Connects from a namespace and returns the name of the pod that answered.
pub fn ask(from: &NetNs, to: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .unwrap()
}
