//! Rules: loaded by the program `nft` (Debian: nftables), read back from the kernel.
//!
//! `nft` costs some milliseconds that messages of our own would not, and is worth them: what is loaded is what an operator reads, in one
//! transaction, and its compiler knows the kernel's expressions better than a hundred constants here would.

use std::{
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::Errno,
    net::netlink,
};

use super::{
    at_work::AtWork,
    netlink::{DUMP, Message, Socket, attributes, text},
};
use crate::error::{Context, Error, ErrorKind, Result};

/// Where it is. A root shell may have no /usr/sbin in its PATH.
pub(super) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    places.chain(["/usr/sbin".into(), "/sbin".into()]).map(|dir: PathBuf| dir.join("nft")).find(|file| file.is_file())
}

/// Why rules cannot be loaded without it.
pub(super) const NO_PROGRAM: &str = "the program nft was not found (Debian: apt-get install nftables)";

/// What it says of an entry that another has made.
pub(super) const EXISTS: &str = "File exists";

/// Loads `script` in the network namespace of the calling thread: all of it or nothing. Should this process be killed meanwhile, the next
/// one can wait for it in the state directory `concerned`.
///
/// # Errors
/// [`ErrorKind::Wall`] with what nft said.
pub(super) fn load(script: &str, concerned: Option<&Path>, purpose: &str) -> Result<()> {
    let program = program().ok_or_else(|| Error::refused(ErrorKind::Wall, format!("{purpose}: {NO_PROGRAM}")))?;
    // Files and not pipes: nobody has to be there to fill or to empty them.
    let file = |name: &str| memfd_create(name, MemfdFlags::CLOEXEC).map(std::fs::File::from).wall(|| format!("memfd_create({name})"));
    let (mut input, mut said) = (file("rules")?, file("complaints")?);
    input.write_all(script.as_bytes()).and_then(|()| input.rewind()).wall(|| format!("{purpose}: write the rules"))?;
    let complaints = said.try_clone().wall(|| "dup(complaints)".into())?;
    let mut command = Command::new(&program);
    let (_mark, output) = concerned.map(AtWork::begin).transpose()?.unzip();
    command.args(["-f", "-"]).env_clear().stdin(input).stdout(output.map_or_else(Stdio::null, Stdio::from)).stderr(complaints);
    let status = match command.status() {
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => None,
        other => Some(other.wall(|| format!("{purpose}: run {}", program.display()))?),
    };
    let mut text = Vec::new();
    said.rewind().and_then(|()| said.read_to_end(&mut text)).wall(|| format!("{purpose}: read what {} said", program.display()))?;
    // Who ignores SIGCHLD is not told how a child ended; nft complains whenever it fails.
    if status.map_or(text.is_empty(), |status| status.success()) {
        return Ok(());
    }
    let (text, status) = (String::from_utf8_lossy(&text), status.map_or_else(String::new, |status| format!("{status}: ")));
    Err(Error::refused(ErrorKind::Wall, format!("{purpose}: {} -f: {status}{}", program.display(), text.trim())))
}

const GETTABLE: u16 = 1;
const NFTA_TABLE_NAME: u16 = 1;

/// Questions about nf_tables of the network namespace in which this was opened.
pub(super) struct Tables(Socket);

impl Tables {
    /// # Errors
    /// EPROTONOSUPPORT on a kernel without netfilter's netlink.
    pub fn open() -> Result<Self> {
        Ok(Self(Socket::open(Some(netlink::NETFILTER), "NETLINK_NETFILTER")?))
    }

    /// Whether the table `inet NAME` is there.
    ///
    /// # Errors
    /// Of NFT_MSG_GETTABLE.
    pub fn has(&self, name: &str) -> Result<bool> {
        match self.0.ask(message(GETTABLE, 0).text(NFTA_TABLE_NAME, name)) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e).wall(|| format!("netlink NFT_MSG_GETTABLE({name})")),
        }
    }

    /// The names of all tables of family inet.
    ///
    /// # Errors
    /// Of NFT_MSG_GETTABLE.
    pub fn names(&self) -> Result<Vec<String>> {
        let all = self.0.ask(message(GETTABLE, DUMP)).wall(|| "netlink NFT_MSG_GETTABLE".into())?;
        let name = |entry: &Vec<u8>| attributes(entry.get(4..)?).find(|(kind, _)| *kind == NFTA_TABLE_NAME).map(|(_, value)| text(value));
        Ok(all.iter().filter_map(name).collect())
    }

    /// A number that every change to the rules of this namespace makes another.
    ///
    /// # Errors
    /// Of NFT_MSG_GETGEN: a kernel without nf_tables has no such question.
    pub fn generation(&self) -> std::result::Result<Vec<u8>, Errno> {
        const GETGEN: u16 = 16;
        const NFTA_GEN_ID: u16 = 1;
        let answers = self.0.ask(message(GETGEN, 0))?;
        let id = attributes(answers.first().and_then(|a| a.get(4..)).ok_or(Errno::BADMSG)?).find(|(kind, _)| *kind == NFTA_GEN_ID);
        id.map(|(_, value)| value.to_vec()).ok_or(Errno::BADMSG)
    }

    /// Fails unless the chain is there, hangs on a hook, and drops what no rule of it accepts.
    ///
    /// # Errors
    /// [`ErrorKind::Wall`].
    pub fn must_drop(&self, table: &str, chain: &str) -> Result<()> {
        const GETCHAIN: u16 = 4;
        const NFTA_CHAIN_TABLE: u16 = 1;
        const NFTA_CHAIN_NAME: u16 = 3;
        const NFTA_CHAIN_HOOK: u16 = 4;
        const NFTA_CHAIN_POLICY: u16 = 5;
        const NF_DROP: [u8; 4] = 0u32.to_be_bytes();
        let question = message(GETCHAIN, 0).text(NFTA_CHAIN_TABLE, table).text(NFTA_CHAIN_NAME, chain);
        let answers = self.0.ask(question).wall(|| format!("netlink NFT_MSG_GETCHAIN({table} {chain})"))?;
        let entry = answers.first().and_then(|a| a.get(4..)).unwrap_or_default();
        let hooked = attributes(entry).any(|(kind, _)| kind == NFTA_CHAIN_HOOK);
        let drops = attributes(entry).any(|(kind, value)| kind == NFTA_CHAIN_POLICY && value == NF_DROP);
        if hooked && drops {
            return Ok(());
        }
        Err(Error::refused(ErrorKind::Wall, format!("nftables: chain {table} {chain} does not drop by default")))
    }
}

/// A question to nf_tables, family inet.
fn message(kind: u16, flags: u16) -> Message {
    const NFTABLES: u16 = 10 << 8; // NFNL_SUBSYS_NFTABLES
    const NFPROTO_INET: u8 = 1;
    Message::new(NFTABLES | kind, flags, &[NFPROTO_INET, 0, 0, 0])
}
