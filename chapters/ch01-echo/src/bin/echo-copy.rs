// ANCHOR: all
// ANCHOR: about
//! The echo server with `std::io::copy` for its inner loop.
//!
//! Look at it with `strace -f -e trace=network,read,write`: between two sockets, copy is
//! the same read and write as in the chapter's program, with a smaller buffer (8 KiB).
// ANCHOR_END: about

use std::{
    io::{self, ErrorKind, Write},
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;

// ANCHOR: arguments
/// Echo every byte back to one client at a time, with io::copy as the loop
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
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
    // Steps 1 to 3 in one call, SO_REUSEADDR included (on Unix).
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);
    // ANCHOR_END: bind

    // ANCHOR: accept
    loop {
        let (connection, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            // The client has left the queue again. (A signal is not seen here: std retries.)
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                let _ = writeln!(io::stderr(), "cannot accept: {error}");
                thread::sleep(Duration::from_secs(1));
                continue;
            }
        };
        // ANCHOR_END: accept
        // ANCHOR: copy
        let _ = writeln!(io::stdout(), "Client {peer} connected");
        // A shared reference to a stream both reads and writes: the kernel does the locking.
        let _ = match io::copy(&mut &connection, &mut &connection) {
            Ok(count) => writeln!(io::stdout(), "Client {peer} got {count} bytes back"),
            Err(error) => writeln!(io::stderr(), "Client {peer}: {error}"),
        };
    }
}
// ANCHOR_END: copy
// ANCHOR_END: all
