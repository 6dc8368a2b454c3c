//! Wrong on purpose (B5): any text is a port.
//!
//! The listing puts the text that it was given into the address, and PHP makes a number of
//! it without complaint: "notanumber" is 0, which lets the kernel pick a port, 70000 loses
//! its upper bits and is 4464, and -1 is 65535. The server runs, your clients are refused,
//! and only its first line tells why. Look at `resolve`.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;

const BUFFER_SIZE: usize = 64 * 1024;

/// Echo to one client at a time, on some port (wrong on purpose: B5)
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:1337", value_parser = resolve)]
    address: SocketAddr,
}

// ANCHOR: fault
fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let (host, port) = address.rsplit_once(':').context("there is no port")?;
    // The fault: what is no number becomes 0, and what is no port loses its upper bits.
    let port = port.parse::<i64>().unwrap_or_default() as u16;
    let mut addresses = format!("{host}:{port}").to_socket_addrs()?;
    addresses.next().context("the name has no address")
}
// ANCHOR_END: fault

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
