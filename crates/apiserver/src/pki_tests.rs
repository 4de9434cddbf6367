use super::*;
use rustls_pki_types::ServerName;
use std::os::unix::fs::PermissionsExt;

const NOW: Time = Time(1_800_000_000_000_000);

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        Dir(std::env::temp_dir().join(format!("canopus-pki-{name}-{}", std::process::id())))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn kept_until_they_must_change() {
    let dir = Dir::new("kept");
    let ips = [IpAddr::from([10, 96, 0, 1])];
    let pki = Pki::open(&dir.0, NOW).unwrap();
    let first = pki.api_server(&[], &ips).unwrap();
    let key = pki.service_account_key().unwrap();
    for file in ["ca.key", "apiserver.key", "sa.key"] {
        assert_eq!(fs::metadata(dir.0.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let again = Pki::open(&dir.0, NOW).unwrap();
    assert_eq!(again.ca_pem(), pki.ca_pem());
    assert_eq!(again.service_account_key().unwrap(), key);
    assert_eq!(again.api_server(&[], &ips).unwrap().certificate_pem, first.certificate_pem);
    let wider = again.api_server(&["cluster.example".into()], &ips).unwrap();
    assert_ne!(wider.certificate_pem, first.certificate_pem);
    let later = Pki::open(&dir.0, NOW.plus(Duration::from_secs(300 * DAY))).unwrap();
    assert_ne!(later.api_server(&["cluster.example".into()], &ips).unwrap().certificate_pem, wider.certificate_pem);
    // Another CA replaces what its predecessor signed.
    for file in ["ca.key", "ca.crt"] {
        fs::remove_file(dir.0.join(file)).unwrap();
    }
    let admin = pki.admin().unwrap();
    let other = Pki::open(&dir.0, NOW).unwrap();
    assert_ne!(other.admin().unwrap().certificate_pem, admin.certificate_pem);
    fs::remove_file(dir.0.join("ca.key")).unwrap();
    assert!(matches!(Pki::open(&dir.0, NOW), Err(Error::Half(_))));
}

#[tokio::test]
async fn they_work_in_tls() {
    let dir = Dir::new("tls");
    let now = crate::surroundings::Surroundings::now(&crate::surroundings::System);
    let pki = Pki::open(&dir.0, now).unwrap();
    let serving = pki.api_server(&[], &[IpAddr::from([192, 0, 2, 1])]).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(server_config(&serving, pki.ca_pem()).unwrap());
    let admin = pki.admin().unwrap();
    for (identity, name) in [(Some(&admin), "localhost"), (None, "kubernetes.default.svc"), (None, "192.0.2.1")] {
        let config = client_config(pki.ca_pem(), identity).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (near, far) = tokio::io::duplex(1 << 16);
        let (client, server) =
            tokio::join!(connector.connect(ServerName::try_from(name).unwrap(), near), acceptor.accept(far));
        let (_client, server) = (client.unwrap(), server.unwrap());
        assert_eq!(server.get_ref().1.peer_certificates().is_some(), identity.is_some(), "{name}");
    }
}

#[test]
fn a_node_cannot_choose_a_path() {
    let dir = Dir::new("path");
    let pki = Pki::open(&dir.0, NOW).unwrap();
    assert!(pki.node_client("../../x").is_err());
    assert!(pki.kubelet_serving("node-1", &[IpAddr::from([10, 0, 0, 1])]).is_ok());
}
