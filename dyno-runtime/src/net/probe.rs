//! What a host lacks for links: tried out in a network namespace of its own, which nothing else sees.

use std::net::Ipv4Addr;

use super::{
    link::{self, Links},
    nft, rules, wall, within_new,
};
use crate::{
    error::{Context, ErrorKind, Result},
    spec::Egress,
};

/// What this host lacks for [`crate::Network::Egress`], a line each; empty when it can. Needs root.
pub fn missing() -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |result: Result<()>| found.extend(result.err().map(|e| e.to_string()));
    note(link::routes().and_then(|routes| wall::pool_must_be_free(&routes)));
    if nft::program().is_none() {
        note(Err(crate::Error::refused(ErrorKind::Wall, nft::NO_PROGRAM)));
    }
    note(within_new(|| {
        let home = std::fs::File::open("/proc/thread-self/ns/net").io(|| "open(/proc/thread-self/ns/net)".into())?;
        let links = Links::open()?;
        links.add_pair("dyprobe", rules::INSIDE, std::os::fd::AsFd::as_fd(&home), [2, 0, 0, 0, 0, 1])
    }));
    if nft::program().is_some() {
        let address = Ipv4Addr::new(198, 19, 0, 1);
        let both = rules::host("probe", "a probe", true) + &rules::inside(address, &Egress::default(), &[address]);
        note(within_new(|| {
            nft::load(&both, None, "nf_tables (CONFIG_NF_TABLES_INET, NFT_CT, NFT_CONNLIMIT, NFT_FIB_INET, NFT_NAT, NFT_MASQ, NFT_REJECT_INET)")
        }));
    }
    found
}
