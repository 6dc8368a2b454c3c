//! Wrong on purpose (B2): the tail of a message is in hand, and waits for more.
//!
//! PHP's streams read 8192 bytes ahead, and the listing asks for 4096. Of a message of 5000
//! bytes, 4096 come back at once. The next `fread` has the other 904 in its buffer, but that
//! is no full block, and so it asks the kernel for more, which comes with the next message or
//! never. Here the loop itself insists on full blocks. Short messages work, and so it looks
//! like the network's fault. Look at `echo`.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;

/// What the listing asks for at a time.
const BLOCK_SIZE: usize = 4096;

/// Echo to one client at a time, the tail of a message later (wrong on purpose: B2)
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:1337", value_parser = resolve)]
    address: SocketAddr,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}

fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    loop {
        match listener.accept() {
            Ok((connection, peer)) => {
                if let Err(error) = echo(&connection) {
                    let _ = writeln!(io::stderr(), "Client {peer}: {error}");
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let _ = writeln!(io::stderr(), "cannot accept: {error}");
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

// ANCHOR: fault
fn echo(mut connection: &TcpStream) -> io::Result<()> {
    let mut block = [0; BLOCK_SIZE];
    let (mut filled, mut goes_on) = (0, false);
    loop {
        match connection.read(&mut block[filled..]) {
            Ok(0) => return connection.write_all(&block[..filled]),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        // The fault: after a full block, a short one waits until it is full, too. What a read
        // has brought must go on before the next read, which may wait for ever.
        if filled == BLOCK_SIZE || !goes_on {
            connection.write_all(&block[..filled])?;
            goes_on = filled == BLOCK_SIZE;
            filled = 0;
        }
    }
}
// ANCHOR_END: fault
