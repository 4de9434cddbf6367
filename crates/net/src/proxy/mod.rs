//! The Service proxy: Services as elements of flat nftables maps.
//!
//! A packet that starts a connection is looked up by destination; that yields the number of a pool, kept in the
//! connection's mark, and the pool's verdict, a chain that balances over so many endpoints. A change of a Service is a
//! change of a few elements. [`Ruleset`] says what should be loaded, [`Proxy`] loads it.
//!
//! Node ports don't answer on loopback addresses.

mod base;
mod conntrack;
mod elements;
mod feed;
pub mod marks;
mod nft;
mod ruleset;
mod state;
mod topology;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write;

pub use base::TABLE;
pub use feed::{run, translate};
pub use nft::{Nft, NftError};
pub use ruleset::{Ruleset, Update, render_delta, render_full};
pub use state::{Endpoint, Family, Protocol, ProxyConfig, ProxyState, ServicePort, ServicePortKey};
pub use topology::{Usable, usable};

use crate::netlink::{Netlink, NetlinkError};

/// Why the kernel's rules could not be brought to the wanted state.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What a synchronization did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SyncReport {
    /// Everything was loaded anew.
    pub full: bool,
    /// Bytes of script loaded.
    pub bytes: usize,
    /// UDP flows and remembered clients whose endpoint was gone.
    pub forgotten: usize,
}

/// Keeps the kernel's rules in step with a state. Synchronous; it belongs to the network namespace of the thread that
/// opened it.
#[derive(Debug)]
pub struct Proxy {
    nft: Nft,
    netfilter: Netlink,
    applied: Option<Ruleset>,
}

impl Proxy {
    /// Touches nothing yet: rules of an earlier run go on working until the first [`Proxy::sync`] replaces them.
    pub fn open() -> Result<Proxy, ProxyError> {
        Ok(Proxy { nft: Nft::open()?, netfilter: Netlink::netfilter()?, applied: None })
    }

    /// Makes the kernel follow this state: the first time, after a failure and when the configuration changed by
    /// loading all of it, else by the difference. Each load is atomic; after an error the old rules still stand, and
    /// the next call starts over.
    pub fn sync(&mut self, state: &ProxyState) -> Result<SyncReport, ProxyError> {
        self.sync_to(state, None)
    }

    /// The same, when only these Service ports can have changed since the last call: its cost doesn't depend on the
    /// number of Services.
    pub fn sync_changed(
        &mut self,
        state: &ProxyState,
        changed: &BTreeSet<ServicePortKey>,
    ) -> Result<SyncReport, ProxyError> {
        self.sync_to(state, Some(changed))
    }

    fn sync_to(
        &mut self,
        state: &ProxyState,
        changed: Option<&BTreeSet<ServicePortKey>>,
    ) -> Result<SyncReport, ProxyError> {
        let (update, ruleset) = match self.apply(state, changed) {
            Ok(applied) => applied,
            Err(ProxyError::Nft(NftError::Refused(message))) => {
                // Somebody changed our table behind our back: start over.
                tracing::warn!(message, "failed to change the service rules, loading all of them");
                self.apply(state, None)?
            }
            Err(error) => return Err(error),
        };
        let mut report = SyncReport { full: update.full, bytes: update.script.len(), forgotten: 0 };
        for (family, pool) in &update.forget {
            report.forgotten += self.forget_clients(&ruleset, *family, *pool)?;
        }
        if update.udp {
            report.forgotten += self.forget_flows(state)?;
        }
        self.applied = Some(ruleset);
        Ok(report)
    }

    /// Makes sure that the rules are still loaded; if somebody removed them, the next [`Proxy::sync`] loads all.
    pub fn check(&mut self) -> Result<(), ProxyError> {
        let families: Vec<Family> = self.applied.iter().flat_map(Ruleset::families).collect();
        for family in families {
            if self.netfilter.rules(family == Family::V6, TABLE, "services")? == 0 {
                tracing::warn!(?family, "somebody removed the service rules, loading them again");
                self.applied = None;
                return Ok(());
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        state: &ProxyState,
        changed: Option<&BTreeSet<ServicePortKey>>,
    ) -> Result<(Update, Ruleset), ProxyError> {
        let mut ruleset = self.applied.take().unwrap_or_default();
        let update = match changed {
            Some(changed) => ruleset.update_some(state, changed),
            None => ruleset.update(state),
        };
        let mut script = update.script.clone();
        if update.full {
            // A family that isn't served any more must not keep its table.
            let removed = [Family::V4, Family::V6].into_iter().filter(|f| !state.config.families.contains(f));
            script.insert_str(0, &removed.map(remove_table).collect::<String>());
        }
        if !script.is_empty() {
            self.nft.load(&script)?;
        }
        Ok((update, ruleset))
    }

    /// Removes clients remembered for endpoints that the pool no longer has.
    fn forget_clients(&mut self, ruleset: &Ruleset, family: Family, pool: u32) -> Result<usize, ProxyError> {
        let endpoints = ruleset.endpoints(family, pool);
        let mut attempts = 3;
        loop {
            let mut stale = self.nft.remembered(family)?;
            stale.retain(|client| client.pool == pool && !endpoints.contains(&client.endpoint));
            if stale.is_empty() {
                return Ok(0);
            }
            let mut script = String::new();
            let ip = base::words(family).ip;
            for nft::Remembered { client, endpoint: (address, port), .. } in &stale {
                let _ = writeln!(
                    script,
                    "delete element {ip} {TABLE} affinity {{ {pool:#010x} . {client} : {address} . {port} }}"
                );
            }
            attempts -= 1;
            match self.nft.load(&script) {
                Ok(()) => return Ok(stale.len()),
                // One may have timed out meanwhile, which fails the whole: look again.
                Err(NftError::Refused(_)) if attempts > 0 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn forget_flows(&mut self, state: &ProxyState) -> Result<usize, ProxyError> {
        let targets = conntrack::UdpTargets::of(state);
        if targets.is_empty() {
            return Ok(0);
        }
        let mut forgotten = 0;
        for family in &state.config.families {
            forgotten += conntrack::forget_stale(&mut self.netfilter, *family, &targets)?;
        }
        Ok(forgotten)
    }

    /// Removes our tables; established connections go on.
    pub fn cleanup(&mut self) -> Result<(), ProxyError> {
        self.applied = None;
        let families = BTreeSet::from([Family::V4, Family::V6]);
        let script: String = families.into_iter().map(remove_table).collect();
        Ok(self.nft.load(&script)?)
    }
}

/// Adding first makes the removal succeed when there is no table.
fn remove_table(family: Family) -> String {
    let ip = base::words(family).ip;
    format!("add table {ip} {TABLE}\ndelete table {ip} {TABLE}\n")
}
