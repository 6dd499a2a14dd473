//! Connections in TIME_WAIT: of nobody any more, they stand for a minute, so that late packets meet nobody else. On a loopback whose
//! processes have all ended there are none.

use rustix::{io::Errno, net::netlink};

use super::netlink::{DUMP, Message, Socket};
use crate::error::{Context, Result};

const BY_FAMILY: u16 = 20; // SOCK_DIAG_BY_FAMILY
const DESTROY: u16 = 21; // SOCK_DESTROY, Linux 4.5; TIME_WAIT later (6.1.192 and 6.18 do)
const TIME_WAIT: u32 = 1 << 6;

/// Where `struct inet_diag_sockid` is in `struct inet_diag_msg`.
const ID: std::ops::Range<usize> = 4..52;

/// Ends the `lingering` ones of the calling thread's network namespace. A kernel that cannot leaves them, which is no error. To look for
/// them is to go through the connections of the whole host, once for each family. The socket that was used is counted as long as it is
/// open, and a moment longer.
///
/// # Errors
/// Of socket(2) and of asking for them.
pub(super) fn end_lingering(mut lingering: u64) -> Result<Socket> {
    let socket = Socket::open(Some(netlink::SOCK_DIAG), "NETLINK_SOCK_DIAG")?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        if lingering == 0 {
            break;
        }
        let question = Message::new(BY_FAMILY, DUMP, &request(family, &[0; 48]));
        let all = match socket.ask(question) {
            // No such protocol, or a kernel without the question.
            Err(Errno::NOENT | Errno::INVAL | Errno::OPNOTSUPP) => continue,
            other => other.io(|| "netlink SOCK_DIAG_BY_FAMILY(TIME_WAIT)".into())?,
        };
        for id in all.iter().filter_map(|answer| answer.get(ID)) {
            match socket.ask(Message::new(DESTROY, 0, &request(family, id))) {
                Ok(_) => lingering = lingering.saturating_sub(1),
                // Gone by itself; or this kernel cannot.
                Err(Errno::NOENT | Errno::OPNOTSUPP) => {}
                Err(e) => return Err(e).io(|| "netlink SOCK_DESTROY(TIME_WAIT)".into()),
            }
        }
    }
    Ok(socket)
}

/// `struct inet_diag_req_v2`.
fn request(family: i32, id: &[u8]) -> Vec<u8> {
    let mut request = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    request.extend(TIME_WAIT.to_ne_bytes());
    request.extend(id);
    request
}
