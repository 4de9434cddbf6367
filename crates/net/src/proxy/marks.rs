//! The one table of packet and connection mark bits on a node. Whoever needs a bit takes it here: proxy, policy, and
//! what is known of others' habits.
//!
//! | mark | bits | who | what |
//! |---|---|---|---|
//! | packet (`meta mark`) | 14 | proxy | masquerade this packet's connection (upstream's KUBE-MARK-MASQ bit); cleared when done |
//! | packet | 15 | nobody | upstream's former KUBE-MARK-DROP: left alone |
//! | packet | rest | CNI plugins and others | never touched |
//! | connection (`ct mark`) | 0–23 | proxy | pool that a new connection to a service was balanced over |
//! | connection | 24–26 | proxy | how the connection came in; set only while its first packet is looked at |
//! | connection | 27 | policy | reserved |

use std::fmt;

/// Packet mark: masquerade.
pub const MASQUERADE: u32 = 1 << 14;

/// Connection mark: the pool's number.
pub const POOL_MASK: u32 = 0x00ff_ffff;

/// Connection mark, by a cluster IP: masqueraded when it comes from outside the pod network.
pub const INTERNAL: u32 = 1 << 24;

/// Connection mark, by an external address under the Cluster policy: always masqueraded.
pub const EXTERNAL: u32 = 1 << 25;

/// Connection mark, by an external address under the Local policy: from inside the cluster it goes to all endpoints.
pub const EXTERNAL_LOCAL: u32 = 1 << 26;

/// A mark as nft prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex(pub u32);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}
