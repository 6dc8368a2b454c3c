//! Wrong on purpose (B3): a timeout that nobody has decided on.
//!
//! PHP gives each socket a default timeout (60 seconds; 1 here, so that you need not wait).
//! When it passes, `fread` returns nothing, which the listing takes for the end: a client
//! that thinks for a while is dropped. And `fwrite` returns after a part, which the listing
//! does not look at: a client that stops reading for a while misses bytes. Look at `echo`.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;

const BUFFER_SIZE: usize = 64 * 1024;

/// The default_socket_timeout of php.ini, only shorter.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// Echo to one client at a time, if it does not pause (wrong on purpose: B3)
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
    // The fault: these come from nobody's decision, and below nobody handles them.
    connection.set_read_timeout(Some(DEFAULT_TIMEOUT))?;
    connection.set_write_timeout(Some(DEFAULT_TIMEOUT))?;
    loop {
        let count = match connection.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => none_if_late(result)?, // the client was silent: is that the end?
        };
        if count == 0 {
            return Ok(());
        }
        // The client was not reading: what has not gone out by now is lost.
        let _sent = none_if_late(connection.write(&buffer[..count]))?;
    }
}
// ANCHOR_END: fault

// ANCHOR: none-if-late
/// Like PHP, makes no difference between a timeout and nothing. (It comes as WouldBlock on
/// Unix, and as TimedOut on Windows.)
fn none_if_late<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(T::default())
        }
        result => result,
    }
}
// ANCHOR_END: none-if-late
