//! Wrong on purpose (B16): the error is looked at after the first use.
//!
//! The listing creates its listener, uses it, and asks only then whether it has one. On a
//! taken port it ends in a TypeError with exit status 255, and the careful message two lines
//! below is never seen; here it is a panic with 101. Somebody has only to start the server
//! twice. Look at `main`.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;

const BUFFER_SIZE: usize = 64 * 1024;

/// Echo to one client at a time, if the port is free (wrong on purpose: B16)
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

// ANCHOR: fault
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address);
    // The fault: this needs a listener, and whether there is one is asked below.
    let local = listener.as_ref().expect("a listener").local_addr()?;
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    let _ = writeln!(io::stdout(), "Listening on {local}");
    // ANCHOR_END: fault

    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        match listener.accept() {
            Ok((connection, peer)) => {
                if let Err(error) = echo(&connection, &mut buffer) {
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

fn echo(mut connection: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match connection.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => connection.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
