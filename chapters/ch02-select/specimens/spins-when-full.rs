//! Wrong on purpose (B18): an error of accept is nobody's business.
//!
//! The listing says `@stream_socket_accept`, and goes on when nothing came of it. When the
//! descriptors are used up (`ulimit -n 32` and 40 clients), the newcomer stays in the queue
//! and the listener stays readable: select returns at once, accept fails, and a processor is
//! at 100 % until a client leaves, with nothing said. Look at `accept`.
#![cfg_attr(not(unix), allow(unused))]

#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::sys::select::{FD_SETSIZE, FdSet, select};

/// The most that one read takes, and the most that waits for a client: no more is read before.
const BUFFER_SIZE: usize = 16 * 1024;

/// Echo to many clients, and spin when full (wrong on purpose: B18)
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:9000", value_parser = resolve)]
    address: SocketAddr,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    let mut clients: Vec<Client> = Vec::new();
    loop {
        let ready = match wait(&listener, &clients) {
            Err(nix::Error::EINTR) => continue,
            answer => answer.context("select failed")?,
        };
        let mut each = ready[1..].iter();
        clients.retain_mut(|client| match each.next() {
            // Readiness is a hint only: a call that would block has done nothing.
            Some(true) => client
                .serve()
                .unwrap_or_else(|error| error.kind() == ErrorKind::WouldBlock),
            _ => true,
        });
        if ready[0] {
            accept(&listener, &mut clients);
        }
    }
}

/// Which are ready for what they wait for, the listener first?
#[cfg(unix)]
fn wait(listener: &TcpListener, clients: &[Client]) -> nix::Result<Vec<bool>> {
    let (mut readable, mut writable) = (FdSet::new(), FdSet::new());
    readable.insert(listener.as_fd());
    for client in clients {
        if client.pending.is_empty() {
            readable.insert(client.stream.as_fd());
        } else {
            writable.insert(client.stream.as_fd());
        }
    }
    select(None, &mut readable, &mut writable, None, None)?;

    let clients = clients.iter().map(|client| client.stream.as_fd());
    let all = [listener.as_fd()].into_iter().chain(clients);
    Ok(all
        .map(|fd| readable.contains(fd) || writable.contains(fd))
        .collect())
}

/// Takes a newcomer, if one is there.
#[cfg(unix)]
fn accept(listener: &TcpListener, clients: &mut Vec<Client>) {
    // ANCHOR: fault
    match listener.accept() {
        Ok((stream, peer)) if stream.as_raw_fd() >= FD_SETSIZE as RawFd => {
            let _ = writeln!(io::stderr(), "Client {peer} refused: select is full");
        }
        Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => clients.push(Client {
            stream,
            pending: Vec::new(),
        }),
        // The fault: WouldBlock is no trouble, but after EMFILE the newcomer is still there,
        // the listener still readable, and select has no reason to sleep.
        _ => {}
    }
    // ANCHOR_END: fault
}

/// A client, and what it has not taken yet.
struct Client {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Client {
    /// Reads if nothing is pending, and writes what is. False when the client has left.
    fn serve(&mut self) -> io::Result<bool> {
        let mut buffer = [0; BUFFER_SIZE];
        if self.pending.is_empty() {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(false);
            }
            self.pending = buffer[..count].to_vec();
        }
        let sent = self.stream.write(&self.pending)?;
        self.pending = self.pending.split_off(sent);
        Ok(true)
    }
}

#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("select(2) through nix needs Unix; on Windows, run this program in WSL")
}
