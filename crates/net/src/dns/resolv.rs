//! `resolv.conf`: who answers for other names.

use std::net::{IpAddr, SocketAddr};

/// Most upstream servers used; more are ignored.
const MOST: usize = 15;

/// The servers that a `resolv.conf` names, in order, each once, without those that are this server itself.
pub fn upstreams(resolv_conf: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for line in resolv_conf.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(ip) = words.next().and_then(parse) else { continue };
        let server = SocketAddr::new(ip, 53);
        if !own.contains(&ip) && !found.contains(&server) && found.len() < MOST {
            found.push(server);
        }
    }
    found
}

/// An address; the zone of a link-local one, which std can't express here, is not supported.
fn parse(word: &str) -> Option<IpAddr> {
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_each_usable_server_once() {
        let text = "# comment\nsearch example.org\nnameserver 192.0.2.1 # the router\n nameserver\t2001:db8::1\n\
                    nameserver 10.96.0.10\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver\noptions ndots:5\n";
        let found = upstreams(text, &["10.96.0.10".parse().unwrap()]);
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1:53", "[2001:db8::1]:53"]);
    }
}
