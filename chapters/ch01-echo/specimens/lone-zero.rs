//! Wrong on purpose (B1): a lone "0" ends the connection.
//!
//! The listing loops with `while ($buf = fread(...))`, and in PHP the text "0" is false like
//! the empty one. A client whose message arrives as exactly "0" gets no answer, only the end
//! of the connection; for years nobody sees it, because nobody sends a lone 0.
//! Look at `echo`.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;

const BUFFER_SIZE: usize = 64 * 1024;

/// Echo to one client at a time, until one says 0 (wrong on purpose: B1)
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

// ANCHOR: fault
fn echo(mut connection: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        let count = match connection.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        };
        // The fault: only a count of 0 is the end. A "0" is a byte like any other.
        if matches!(&buffer[..count], b"" | b"0") {
            return Ok(());
        }
        connection.write_all(&buffer[..count])?;
    }
}
// ANCHOR_END: fault
