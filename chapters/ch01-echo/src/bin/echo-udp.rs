// ANCHOR: all
// ANCHOR: about
//! The echo service over UDP: each datagram is answered on its own.
//!
//! No connection, so no accept and no end: one socket serves everybody. The sender's address
//! is whatever the datagram says. An open UDP echo answers to forged addresses too, which is
//! why this one stays on the loopback interface unless it is told otherwise.
// ANCHOR_END: about

use std::{
    io::{self, Write},
    net::{SocketAddr, ToSocketAddrs, UdpSocket},
};

use anyhow::Context;
use clap::Parser;

// ANCHOR: buffer-size
/// A UDP length field counts to 65,535. A buffer of that size never truncates a datagram.
const BUFFER_SIZE: usize = 65_535;
// ANCHOR_END: buffer-size

// ANCHOR: arguments
/// Echo every datagram back to its sender: no connection, no order, no promise
#[derive(Parser)]
struct Args {
    /// Where to receive; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:1337", value_parser = resolve)]
    address: SocketAddr,
}
// ANCHOR_END: arguments

// ANCHOR: resolve
fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}
// ANCHOR_END: resolve

// ANCHOR: bind
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let socket =
        UdpSocket::bind(address).with_context(|| format!("cannot receive on {address}"))?;
    let own = socket.local_addr()?;
    let _ = writeln!(io::stdout(), "Listening on {own}");
    // ANCHOR_END: bind

    // ANCHOR: receive
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let (count, peer) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            // A signal, or (on Windows) the news that an earlier answer found nobody.
            Err(error) => {
                let _ = writeln!(io::stderr(), "cannot receive: {error}");
                continue;
            }
        };
        // ANCHOR_END: receive
        // ANCHOR: forged
        // A datagram forged to come from ourselves, or from an echo server like this one on
        // another machine, would be answered forever. Its port gives it away.
        if peer.port() == own.port() {
            continue;
        }
        // ANCHOR_END: forged
        // ANCHOR: answer
        // Zero bytes are a datagram like any other: here, 0 is not the end.
        let _ = match socket.send_to(&buffer[..count], peer) {
            Ok(_) => writeln!(io::stdout(), "{count} bytes from {peer}"),
            Err(error) => writeln!(io::stderr(), "{count} bytes from {peer}: {error}"),
        };
    }
}
// ANCHOR_END: answer
// ANCHOR_END: all
