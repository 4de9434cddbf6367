//! nftables: whether rules are there. Changes go through `nft`, which costs seconds just to look at a large table.

use super::{Message, Netlink, NetlinkError};

const NFT_MSG_GETRULE: u16 = 10 << 8 | 7;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;

impl Netlink {
    /// How many rules a chain of a table (`ip`, or `ip6` when `v6`) has; 0 when there is no such chain.
    pub fn rules(&mut self, v6: bool, table: &str, chain: &str) -> Result<usize, NetlinkError> {
        let family = if v6 { nix::libc::NFPROTO_IPV6 } else { nix::libc::NFPROTO_IPV4 } as u8;
        let request = Message::new("list nftables rules", NFT_MSG_GETRULE, 0, &[family, 0, 0, 0])
            .attr_str(NFTA_RULE_TABLE, table)
            .attr_str(NFTA_RULE_CHAIN, chain);
        let mut rules = 0;
        self.dump(&request, |_| rules += 1)?;
        Ok(rules)
    }
}
